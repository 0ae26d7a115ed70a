"""What may be written where: norms inside `budgets`, autograd inside the model's handle, print inside `app`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from tests.architecture.tree import Function, Module, definitions, example, modules, protocol, report

BUDGETS = {"Linf", "L0", "L1", "L2", "Weighted", "Masked", "Ellipsoid", "Subspace", "Intersection", "Group", "Tabular"}
NORMS = {"linf", "l_inf", "l-inf", "l0", "l1", "l2", "l_0", "l_1", "l_2", "weighted", "masked"}
GRADIENTS = {"torch.autograd", "torch.func"}
HANDLE = "steepest.models.model"
# It answers other people's autograd functions, and defines one; a gradient is asked for nowhere in it.
# A tracer writes operations in place as operations on new values.
FUNCTIONS = {
    "steepest.models.functions": ("from torch.autograd import Function",),
    "steepest.models.traced": ("from torch.func import functionalize",),
}
# A recording of the passes that the handle asks for is the handle's other half.
# Slopes of bounds are fitted by the bounds' own derivatives: no network is asked there.
# A penalty on the gradient of the input is itself differentiated, with respect to the weights.
HANDLES = {HANDLE, "steepest.models.captured", "steepest.certify.slopes", "steepest.harden.alignment"}
# The demonstration trains a network of its own, hardening that of its user: gradients of parameters.
TRAINS = {
    "steepest.app.demo",
    "steepest.harden.bias",
    "steepest.harden.descent",
}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


def branches_on_a_norm(module: Module) -> list[str]:
    """Every question about a budget's type or name outside `budgets`; `app` may compare the texts that it reads."""
    if module.room == "budgets":
        return []
    found = []
    for node in ast.walk(module.tree):
        for part in _decided_by(node):
            if _names(part) & BUDGETS or (module.room != "app" and _texts(part) & NORMS):
                found.append(f"{module.name}:{part.lineno}: a branch on a budget: {ast.unparse(part)}")
    return found


def _decided_by(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        yield from node.args[1:]
    elif isinstance(node, ast.Compare):
        yield from [node.left, *node.comparators]
    elif isinstance(node, ast.MatchClass):
        yield node.cls
    elif isinstance(node, ast.MatchValue):
        yield node.value
    elif isinstance(node, ast.Dict):
        yield from (key for key in node.keys if isinstance(key, ast.Name | ast.Attribute))


def _names(part: ast.expr) -> set[str]:
    # the function of a call is no operand: `x <= L2(1).norm(d)` builds a budget, it does not ask for one
    called = {id(n) for c in ast.walk(part) if isinstance(c, ast.Call) for n in ast.walk(c.func)}
    nodes = [node for node in ast.walk(part) if id(node) not in called]
    plain = {node.id for node in nodes if isinstance(node, ast.Name)}
    return plain | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _texts(part: ast.expr) -> set[str]:
    return {n.value.lower() for n in ast.walk(part) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def autograd(module: Module) -> list[str]:
    """Every call of autograd outside the model's handle."""
    if module.name in HANDLES:
        return []
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and ast.unparse(node) in FUNCTIONS.get(module.name, ()):
            continue
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            used = base.startswith(tuple(GRADIENTS)) or any(f"{base}.{a.name}" in GRADIENTS for a in node.names)
        elif isinstance(node, ast.Import):
            used = any(alias.name.startswith(tuple(GRADIENTS)) for alias in node.names)
        elif isinstance(node, ast.Call):
            ascends = isinstance(node.func, ast.Attribute) and node.func.attr == "backward"
            used = ascends and module.name not in TRAINS
        else:
            used = isinstance(node, ast.Attribute) and ast.unparse(node) in GRADIENTS
        if used:
            found.append(f"{module.name}:{getattr(node, 'lineno', 0)}: autograd outside {HANDLE}")
    return found


def prints(module: Module) -> list[str]:
    """Every word to the terminal outside `app`."""
    if module.room == "app":
        return []
    speakers = {"print", "sys.stdout.write", "sys.stderr.write"}
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    return [f"{module.name}:{c.lineno}: prints" for c in calls if ast.unparse(c.func) in speakers]


def unfinished(module: Module) -> list[str]:
    """Every mark of work left for later, and every body that does not keep what it promises."""
    tree, lines = module.tree, enumerate(module.text.splitlines(), 1)
    found = [f"{module.name}:{number}: {match[0]}" for number, line in lines if (match := UNFINISHED.search(line))]
    contracts = {id(inner) for _, node, owner in definitions(tree) if protocol(owner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in contracts:
            continue
        if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc):
            found.append(f"{module.name}:{node.lineno}: raises NotImplementedError")
        empty = isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and _is_ellipsis(node.value))
        if empty or (isinstance(node, Function) and _says_only(node)):
            found.append(f"{module.name}:{node.lineno}: an empty body")
    return found


def _is_ellipsis(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is ...


def _says_only(node: Function) -> bool:
    # a function that returns nothing may do nothing, if its docstring says so
    silent = node.returns is not None and ast.unparse(node.returns) == "None"
    return len(node.body) == 1 and ast.get_docstring(node) is not None and not silent


@pytest.mark.parametrize(
    "text",
    [
        "if isinstance(budget, Linf): x = 1",
        "if isinstance(budget, (int, budgets.L2)): x = 1",
        "if type(budget) is L1: x = 1",
        "if type(budget).__name__ == 'Linf': x = 1",
        "x = 1 if norm in ('L2', 'l1') else 2",
        "match budget:\n    case Masked(): x = 1",
        "match norm:\n    case 'l2': x = 1",
        "step = {Linf: 1, L2: 2}[type(budget)]",
    ],
)
def test_a_branch_on_a_norm_is_seen(text: str) -> None:
    assert branches_on_a_norm(example(text))
    assert branches_on_a_norm(example(text, "steepest.budgets.example")) == []


def test_what_is_no_branch_on_a_norm() -> None:
    declared = (
        "@attacks.add('square', budgets='linf l2')\ndef square(): return 1\nbudget = Linf(0.1)\nx = L2(1).gauge(d) <= 1"
    )
    assert branches_on_a_norm(example(declared)) == []
    assert branches_on_a_norm(example("if name == 'linf': x = 1", "steepest.app.example")) == []
    assert branches_on_a_norm(example("if isinstance(budget, Linf): x = 1", "steepest.app.example"))


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ng, = torch.autograd.grad(f, x)",
        "from torch.autograd import grad",
        "from torch import autograd",
        "import torch.autograd as ag",
        "from torch.func import vjp",
        "loss.sum().backward()",
    ],
)
def test_autograd_elsewhere_is_seen(text: str) -> None:
    assert autograd(example(text))
    assert all(autograd(example(text, handle)) == [] for handle in HANDLES)


@pytest.mark.parametrize("name", sorted(TRAINS))
def test_what_trains_may_do_nothing_more(name: str) -> None:
    assert autograd(example("loss.backward()", name)) == []
    assert autograd(example("torch.autograd.grad(f, x)", name))


def test_a_derivative_may_be_defined_in_one_place_and_asked_for_in_none() -> None:
    assert autograd(example("from torch.autograd import Function", "steepest.models.functions")) == []
    assert autograd(example("from torch.autograd import grad", "steepest.models.functions"))
    assert autograd(example("from torch.autograd import Function"))


def test_a_print_is_seen() -> None:
    assert prints(example("print(1)")) and prints(example("import sys\nsys.stderr.write('x')"))
    assert prints(example("print(1)", "steepest.app.example")) == []
    assert prints(example('"""Use print(1)."""')) == []


@pytest.mark.parametrize(
    "text",
    [
        "x = 1  # TO" + "DO: later",
        "raise NotImplementedError",
        "raise NotImplementedError('later')",
        "def f(): pass",
        "def f() -> int: ...",
        "def f() -> int:\n    'Return one.'",
        "try:\n    f()\nexcept ValueError:\n    pass",
        "class Plain:\n    def f(self): ...",
    ],
)
def test_unfinished_work_is_seen(text: str) -> None:
    assert unfinished(example(text))


def test_contracts_and_silence_are_finished() -> None:
    assert unfinished(example("class Budget(Protocol):\n    def f(self) -> int:\n        'Return one.'")) == []
    assert unfinished(example("class Budget(Protocol):\n    def f(self) -> int: ...")) == []
    assert unfinished(example("try:\n    f()\nexcept NotImplementedError:\n    x = 1")) == []
    assert unfinished(example("def f() -> None:\n    'Show nothing.'\nx: tuple[int, ...] = (1,)\ny = t[..., 0]")) == []


@pytest.mark.parametrize("rule", [branches_on_a_norm, autograd, prints, unfinished], ids=lambda rule: rule.__name__)
def test_the_package_keeps_to_its_words(rule: Callable[[Module], list[str]]) -> None:
    report([line for module in modules() for line in rule(module)])
