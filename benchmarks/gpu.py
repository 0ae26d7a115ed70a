"""FGSM and PGD on a GPU against the same passes as one CUDA graph, captured by hand, and as a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import steepest as st
from benchmarks.contract import Result, Row, Table
from benchmarks.nets import images, own_answer, resnet18
from benchmarks.passes import TINY
from benchmarks.timing import Contender, in_turns, rounds_of
from steepest.attacks.api import pose
from steepest.models.captured import Captured
from steepest.models.inspection import inspected
from steepest.models.objectives import objective_of
from steepest.models.prepare import Preparation, prepare

BATCHES = (256, 1024)
ATTACKS = {"FGSM": (st.recipes.fgsm(), 1), "PGD-10": (st.recipes.pgd(steps=10), 10)}
TARGET = 0.9


def gpu(effort: float = 1.0) -> Result:
    """Rates of FGSM and PGD-10 on a ResNet-18 as shares of the rate of graphs captured by hand."""
    if not torch.cuda.is_available():
        return Result(title="On a GPU", note="No GPU on this machine: nothing was measured.", rows=())
    found = [_measured(size, effort) for size in BATCHES]
    return Result(
        title="On a GPU",
        note=f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}. ResNet-18, inputs "
        "3×32×32. Ours is `recipe.run` in the prepared twin, the start, the best points, the verdicts and exact "
        "feasibility included. By hand: one graph of the whole attack with the same number of forwards and input "
        "gradients of the cross-entropy, and x + step·sign, clamped; of the twin's own network, and of the model as "
        "it comes. The loop is the model's, launched by PyTorch call by call. Measured is our rate over theirs. "
        f"ε is 1e-6, so that no example leaves. {' '.join(each.note for each in found)}",
        rows=tuple(row for each in found for row in each.rows),
        table=Table(
            header=("examples a second", "ours", *_BY_HAND, _LOOP),
            lines=tuple(line for each in found for line in each.lines),
        ),
    )


_BY_HAND = ("graph of the twin's network", "graph of the model")
_LOOP = "loop of the model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one batch size gave."""

    note: str
    rows: tuple[Row, ...]
    lines: tuple[tuple[str, ...], ...]


def _measured(size: int, effort: float) -> Measured:
    net, x = resnet18().requires_grad_(False).cuda(), images(size, 3, 32, 32).cuda()
    y = own_answer(net, x)
    model, budget = inspected(st.Model(net, box=(0, 1)), x[:32]), st.Linf(TINY)
    found = prepare(model, x, y, objective_of("scaled-ce"))
    rows, lines = list[Row](), list[tuple[str, ...]]()
    for name, (recipe, steps) in ATTACKS.items():
        problem = pose(found.model, x, y, budget)
        contenders: dict[str, Contender] = {
            "ours": _awaited(lambda recipe=recipe, problem=problem: recipe.run(problem)),  # type: ignore[misc]
            _BY_HAND[0]: _awaited(captured_by_hand(_bare(found.model.network), x, y, steps)),
            _BY_HAND[1]: _awaited(captured_by_hand(net, x, y, steps)),
            _LOOP: _awaited(lambda steps=steps: walk(net, x, y, steps)),  # type: ignore[misc]
        }
        times = in_turns(contenders, rounds_of(31, effort))
        what = f"{name} in the twin, batch {size}"
        for against in (*_BY_HAND, _LOOP):
            value, spread = times.ratio(against, "ours")
            target = TARGET if against == _BY_HAND[0] else None
            rows.append(Row(what=what, against=against, value=value, target=target, at_least=True, spread=spread))
        rates = (f"{size / min(times.seconds[each]):,.0f}" for each in contenders)
        lines.append((f"{name}, batch {size}", *rates))
    return Measured(note=_described(size, found), rows=tuple(rows), lines=tuple(lines))


def walk(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """The attack as anyone writes it: so many input gradients and sign steps, and the answer at the end."""
    point, size = x, TINY / 4
    lower, upper = (x - TINY).clamp_min(0), (x + TINY).clamp_max(1)
    for _ in range(steps):
        point = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(net(point), y, reduction="sum"), point)
        point = (point.detach() + size * gradient.sign()).clamp(lower, upper)
    with torch.no_grad():
        answer: Tensor = net(point)
    return answer


def captured_by_hand(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> Callable[[], object]:
    """Return the replay of one graph that holds the whole walk."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        walk(net, x, y, min(steps, 2))
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        walk(net, x, y, steps)
    return graph.replay


def _bare(network: object) -> nn.Module:
    assert isinstance(network, nn.Module)
    return network.inner if isinstance(network, Captured) else network


def _awaited(work: Callable[[], object]) -> Contender:
    def done() -> None:
        work()
        torch.cuda.synchronize()

    return done


def _described(size: int, found: Preparation) -> str:
    changes = ", ".join(found.changes) or "nothing"
    return (
        f"Batch {size}: {changes} ({found.speedup:.2f} times as many gradients a second as the model as it comes, "
        f"outputs within {found.difference:.2g} of the largest; chosen in {found.seconds:.1f} s): "
        f"{'; '.join(str(each) for each in found.trials)}."
    )
