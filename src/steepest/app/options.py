"""The options that commands share, each declared once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_EXAMPLE_BUDGET = "What may change: linf:8/255, l2:0.5, l1:12, weighted:0.1; several sizes: linf:2/255,4/255."

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A file .onnx or .pt2, or net.py:factory.")]
Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A .npz, .parquet, folder of class folders, one image, or 'digits'."),
]
Factory = Annotated[
    str, typer.Argument(metavar="MODEL", help="A network's own code, net.py:factory; --weights to begin from some.")
]
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Two or more files .onnx or .pt2, or net.py:factory; or name=net.onnx."),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help="A .npz, .parquet, folder of class folders, or 'digits'."),
]
MaybeModel = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="A file .onnx or .pt2, or net.py:factory.", show_default=False)
]
MaybeData = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="A .npz, .parquet, folder of class folders, one image, or 'digits'.",
        show_default=False,
    ),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")]
Budget = Annotated[str | None, typer.Option(metavar="KIND:SIZE", help=_EXAMPLE_BUDGET)]
Preset = Annotated[str | None, typer.Option(help="quick, standard (the default) or thorough.")]
Attacks = Annotated[str | None, typer.Option(help="Instead of a preset's: 'fgsm, pgd(steps=50, restarts=2)'.")]
Objective = Annotated[str | None, typer.Option(help="scaled-ce (the default), ce, margin or dlr.")]
Target = Annotated[str | None, typer.Option(help="Attack towards this class: an index, or a name.")]
Label = Annotated[str | None, typer.Option(help="The class of a single image: an index, or a name.")]
Out = Annotated[
    str | None, typer.Option(metavar="DIR", help="The run's folder; named after what is asked if left out.")
]
Limit = Annotated[int | None, typer.Option(help="Use the first N examples.")]
Sample = Annotated[int | None, typer.Option(help="Use a seeded draw of N examples, each class in proportion.")]
Seed = Annotated[int | None, typer.Option(help="Of all random draws; 0 if left out.")]
BatchSize = Annotated[str | None, typer.Option(metavar="auto|N", help="auto (the default) measures it once.")]
TrainingBatch = Annotated[str | None, typer.Option(metavar="N", help="Examples of a step: 128.")]
ShardSize = Annotated[
    int | None, typer.Option(help="Examples computed and saved together; 16 batches, at most 1024, if left out.")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; where the model lies already if left out.")]
Precision = Annotated[
    str | None,
    typer.Option(metavar="auto|exact", help="exact: search in the model itself, never in a faster twin of it."),
]
Mean = Annotated[str | None, typer.Option(help="Subtracted per channel inside the model: .49,.48,.45.")]
Std = Annotated[str | None, typer.Option(help="Divides each channel inside the model: .25,.24,.26.")]
Box = Annotated[str | None, typer.Option(help="The values that inputs may take: 0,1 if left out; -inf,inf for none.")]
Labels = Annotated[
    str | None, typer.Option(help="Class names in the order of the model's outputs: a,b,c, or a file, one a line.")
]
Resize = Annotated[str | None, typer.Option(metavar="HxW", help="Bring image files to one size.")]
Weights = Annotated[str | None, typer.Option(metavar="FILE", help="Safetensors or a state dict, for a factory.")]
FeatureWeights = Annotated[str | None, typer.Option(metavar="FILE.npy", help="One weight per feature, for 'weighted'.")]
Mask = Annotated[str | None, typer.Option(metavar="FILE.npy", help="Only features where it is true may change.")]
TrustCode = Annotated[
    bool | None, typer.Option("--trust-code", help="Open pickles, and run code outside the working directory.")
]
Save = Annotated[bool | None, typer.Option("--save", help="Keep every adversarial example in the run's artifacts/.")]
Assure = Annotated[
    int | None, typer.Option(metavar="M", help="Run the full AutoAttack on M survivors: a bound on what was missed.")
]
Diagnose = Annotated[
    bool | None, typer.Option(help="Say how far the number can be believed, and mend the search: on if left out.")
]
AllowChance = Annotated[
    bool | None, typer.Option("--allow-chance", help="Go on although the model is no better than chance.")
]
Certifiers = Annotated[
    str | None, typer.Option(metavar="A,B", help="Names of `steepest list certifiers`: crown if left out.")
]
Gate = Annotated[
    list[str] | None, typer.Option(metavar="RULE", help="Exit with 10 unless it holds: 'robust>=0.40', 'clean>0.9'.")
]
Executor = Annotated[
    str | None, typer.Option(help="Who computes the shards: in-process (the default), pool (processes), ray.")
]
Workers = Annotated[int | None, typer.Option(help="Of a pool or of Ray; one a processor if left out.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster, or auto; a local one if left out.")]
Gpus = Annotated[float | None, typer.Option(help="Of each Ray worker, e.g. 1 or 0.5.")]
Retries = Annotated[int | None, typer.Option(help="How often lost workers are replaced: 3.")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Compute this part only; join with `runs merge`.")]
Method = Annotated[str | None, typer.Option(help="A training method: n-fgsm (the default), 'pgd(steps=7)', trades.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the examples: 30.")]
Rate = Annotated[float | None, typer.Option("--lr", help="The largest learning rate: 0.2.")]
Schedule = Annotated[str | None, typer.Option(help="Of the learning rate: cyclic (the default), piecewise, constant.")]
Momentum = Annotated[float | None, typer.Option(help="Of the descent: 0.9.")]
Decay = Annotated[float | None, typer.Option("--weight-decay", help="Of the weights: 5e-4.")]
HeldOut = Annotated[float | None, typer.Option(help="Share of the examples that chooses the best epoch: 0.1.")]
Patience = Annotated[int | None, typer.Option(help="End after so many epochs without a more robust one.")]
Augment = Annotated[str | None, typer.Option(help="Vary images: none (the default), crop-flip.")]
InPrecision = Annotated[
    str | None, typer.Option("--precision", metavar="float32|bf16", help="Of the training forward: float32.")
]
ChannelsLast = Annotated[bool | None, typer.Option("--channels-last", help="Lay images out channels last: GPUs.")]
Ema = Annotated[float | None, typer.Option(help="Keep the average of the weights with this decay: 0.999.")]
Swa = Annotated[float | None, typer.Option(help="Keep the mean of the weights from this share of training on: 0.75.")]
SentinelOn = Annotated[
    bool | None, typer.Option("--sentinel/--no-sentinel", help="Watch for overfitting to the search: on if left out.")
]
Remedy = Annotated[
    list[str] | None, typer.Option(metavar="METHOD", help="What takes over at a sign, repeatable; stop: nothing.")
]
BiasEvery = Annotated[int | None, typer.Option(metavar="K", help="Measure the gradient's bias every K epochs.")]
Devices = Annotated[int | None, typer.Option(help="Processes or GPUs that train together: needs steepest[fabric].")]
Track = Annotated[str | None, typer.Option(metavar="A,B", help="Also tell tensorboard, mlflow: extras.")]
Test = Annotated[
    str | None,
    typer.Option(metavar="DATA", help="Examples of the audit; a fifth of DATA is set aside if left out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else.")]
Outputs = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Also write .html, .json, .xml (JUnit), .sarif, .md, .card.md; repeatable.",
    ),
]
Output = Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write the result.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]


def given(names: dict[str, Any], *without: str) -> dict[str, Any]:
    """Return the options that were given on the command line, from a command's local names.

    >>> given({"seed": 3, "limit": None, "diagnose": False, "as_json": True}, "as_json")
    {'seed': 3, 'diagnose': False}
    """
    return {name: value for name, value in names.items() if name not in without and value is not None}
