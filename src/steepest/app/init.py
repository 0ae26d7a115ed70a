"""`steepest init`: a commented configuration to start from."""

from __future__ import annotations

from pathlib import Path

from steepest.app import console, exports
from steepest.app.config import FILE
from steepest.basis.errors import UsageError

TEXT = """\
# What `steepest audit` does in this folder. The command line and STEEPEST_<OPTION> go before this file.

model = "net.onnx"        # .onnx, .pt2, or "net.py:factory" (then weights = "net.safetensors")
data = "test.npz"         # .npz, .parquet, a folder of class folders, or "digits"
budget = "linf:8/255"     # what may change; several sizes: "linf:2/255,4/255,8/255"

preset = "standard"       # or "quick", "thorough"
# attacks = "fgsm, pgd(steps=50, restarts=2)"     # instead of the preset's
# objective = "scaled-ce"
# target = "cat"          # attack towards this class: an index, or a name

# limit = 1000            # the first examples only
# sample = 1000           # or a seeded draw, each class in proportion
seed = 0
# batch_size = "auto"
# shard_size = 1024       # examples computed and saved together
# device = "cuda"
# precision = "exact"     # search in the model itself, never in a faster twin of it

# mean = [0.4914, 0.4822, 0.4465]                 # a normalisation that lies outside the model
# std = [0.2023, 0.1994, 0.2010]
# box = [0, 1]            # the values that inputs may take
# labels = ["airplane", "automobile"]             # in the order of the model's outputs
# resize = "32x32"

# out = "runs/mine"
# save = true             # keep every adversarial example
# assure = 60             # run the full AutoAttack on so many survivors: a bound on what was missed
# diagnose = false        # do not ask how far the number can be believed
# executor = "pool"       # or "ray"; who computes the shards
# workers = 4
# address = "auto"        # of a Ray cluster; with gpus = 1 for each worker, retries = 3
# gate = ["robust>=0.40"] # exit with 10 unless it holds
"""


def write(path: str) -> None:
    """Write the configuration; never over another.

    Raises:
        UsageError: it exists, or its folder does not.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    exports.require_parent(file)
    if file.exists():
        raise UsageError(f"{str(file)!r} exists already: edit it, delete it, or give another path.")
    exports.replace(file, lambda beside: beside.write_text(TEXT, encoding="utf-8"))
    console.say(f"{file}: name your model, data and budget there, then run `steepest audit`.")
