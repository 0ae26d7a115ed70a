"""What is installed and what is committed: exact versions, no CUDA, no path of one machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.tree import ROOT, report, repository_files

# torchvision installs over a CPU build of torch and dies on import; the others are several GB.
UNWANTED = re.compile(r"^(nvidia-.*|triton.*|cuda-.*|torchvision)$")
# Put together here, so that this file does not name them itself.
PLACES = re.compile("|".join(["/" + part for part in ("home/", "root/", "work/", "tmp/[a-z]", r"opt/(wheels|pypi)")]))


def pins(text: str) -> dict[str, str]:
    """The exact versions of a requirements file; anything else than `name==version` is an error."""
    found = {}
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9a-z.]*)", line)
        assert match, f"{line!r} is not an exact version"
        found[canonicalize_name(match[1])] = match[2]
    return found


def unwanted(names: list[str]) -> list[str]:
    """Those of the distributions that must never be installed."""
    return [name for name in names if UNWANTED.match(canonicalize_name(name))]


def places(text: str) -> list[str]:
    """The lines that name a path of one machine."""
    return [line.strip() for line in text.splitlines() if PLACES.search(line)]


def test_the_rules_can_fail() -> None:
    assert unwanted(["torch", "nvidia-cublas", "Triton", "cuda-toolkit", "torchvision"]) == [
        "nvidia-cublas", "Triton", "cuda-toolkit", "torchvision",
    ]  # fmt: skip
    assert places("x = '/" + "home/me/x'") and places("cd /" + "tmp/a") and not places("a/b https://example.org/x")
    for line in ("torch>=2", "torch==2.13.0+cpu", "torch @ file:///x", "-e ."):
        with pytest.raises(AssertionError):
            pins(line)


def test_constraints_pin_everything_and_nothing_unwanted() -> None:
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert unwanted(list(pinned)) == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        asked = Requirement(line)
        assert asked.specifier.contains(pinned[canonicalize_name(asked.name)]), line
    rivals = pins((ROOT / "tests" / "rivals" / "requirements.txt").read_text(encoding="utf-8"))
    assert unwanted(list(rivals)) == []
    assert set(rivals).isdisjoint(pinned)


@pytest.mark.full
def test_a_fresh_install_takes_no_cuda() -> None:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    target = ["-c", "constraints.txt", f"torch=={version('torch')}", "-e", ".[dev]"]
    if index := os.environ.get("TORCH_INDEX"):
        target += ["--extra-index-url", index]
    asked = subprocess.run([*command, *target], cwd=ROOT, capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"pip cannot resolve here: {asked.stderr.strip().splitlines()[-1:]}")
    names = [item["metadata"]["name"] for item in json.loads(asked.stdout)["install"]]
    assert "torch" in names
    assert unwanted(names) == []


def test_no_path_of_one_machine() -> None:
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {line[:120]}" for line in places(text)]
    report(found)
