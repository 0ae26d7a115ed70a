"""`--help` answers at once: it pays neither for torch nor for anything else that is large."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from tests.app.material import answered, steepest
from tests.architecture.tree import SOURCE

HEAVY = {"torch", "numpy", "scipy", "sklearn", "pyarrow", "onnx", "onnxruntime", "PIL", "jinja2", "vl_convert", "rich"}
COMMANDS = (
    "audit", "attack", "smooth", "verify", "compare", "curve", "diagnose", "report", "view", "runs", "list", "init",
    "doctor",
)  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


def test_help_imports_nothing_large() -> None:
    code = (
        "import sys\nsys.argv = ['steepest', *sys.argv[1:]]\nfrom steepest.app.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    for words in (["--help"], ["audit", "--help"], ["--version"]):
        loaded = run("-c", code, *words).stdout.splitlines()[-1]
        assert "steepest" in loaded
        assert not {name for name in HEAVY if f"'{name}'" in loaded}, words


def test_help_answers_in_under_300_ms() -> None:
    # Time of the processor, not of the clock: other tests run beside this one.
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("-m", "steepest", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.3


def test_help_names_every_command() -> None:
    text = answered("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in text
    assert "..." not in text.partition("Commands:")[2]  # no summary is cut


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    assert "Usage: steepest " + name in answered(name, "--help").stdout


def test_a_misspelt_option_is_refused() -> None:
    result = steepest("audit", "a", "b", "--budgett", "linf:0.1")
    assert result.exit_code == 2
    assert "--budget" in result.stderr
