"""The complete example of CONTRIBUTING runs, in a process of its own: it enters an attack into the catalogue."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.architecture.tree import ROOT


def test_the_example_of_a_new_attack_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    assert "assert " in blocks[1]
    script = tmp_path / "example.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    where = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    asked = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=where, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
