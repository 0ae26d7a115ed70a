"""The commands that prove: names, options and help; what they do is imported when it is asked for."""

from __future__ import annotations

from typing import Annotated

import typer

from steepest.app import options as o
from steepest.app.exits import CONTINUES, NOTHING, foreseen


@foreseen(CONTINUES)
def smooth(
    model: o.Model,
    data: o.Data,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise, in the units of the data.")],
    draws: Annotated[int, typer.Option(help="Noisy copies of each example that bound the majority.")] = 100_000,
    first_draws: Annotated[int, typer.Option(help="Noisy copies that choose the class before.")] = 100,
    alpha: Annotated[float, typer.Option(help="Probability with which an example may be certified wrongly.")] = 0.001,
    radii: Annotated[
        str | None, typer.Option(metavar="R,R,...", help="Of the table, L2; even steps if left out.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Keeps the counts, so that nothing is drawn twice.")
    ] = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    seed: o.Seed = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="auto|N", help="Noisy copies at once; 1024 if left out.")
    ] = None,
    device: o.Device = None,
    mean: o.Mean = None,
    std: o.Std = None,
    box: o.Box = None,
    labels: o.Labels = None,
    resize: o.Resize = None,
    weights: o.Weights = None,
    trust_code: o.TrustCode = None,
    allow_chance: o.AllowChance = None,
    as_json: o.AsJson = False,
) -> None:
    """Certify the vote of a model over Gaussian noise.

    Randomised smoothing: L2 radii within which the smoothed classifier answers the same, proven but for a probability
    alpha. It certifies that classifier, never the model itself. The same command with the same --out continues.
    """
    own = ("sigma", "draws", "first_draws", "alpha", "radii")
    given = o.given(locals(), *own, "own", "as_json")
    from steepest.app.smooth import Choices, run

    choices = Choices(sigma=sigma, draws=draws, first_draws=first_draws, alpha=alpha, radii=radii)
    run(given, choices, as_json=as_json)


@foreseen(NOTHING)
def verify(
    network: Annotated[
        str, typer.Argument(metavar="NET", help="A file .onnx or .onnx.gz; or alone a list: instances.csv.")
    ],
    asked: Annotated[
        str | None,
        typer.Argument(
            metavar="PROPERTY", help="A file .vnnlib or .vnnlib.gz, or a folder of them.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for each property; 60, or what the list says, if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all random draws.")] = 0,
    as_json: o.AsJson = False,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="The answer, and for sat the counterexample.")
    ] = None,
) -> None:
    """Decide a property in VNN-LIB 1.0.

    sat: an input inside the property's bounds whose outputs meet it, confirmed by onnxruntime. unsat: proven that
    there is none. unknown: neither, and why. All three exit with 0; what cannot be read exits with 2, also one of
    several. A list has lines onnx,vnnlib,timeout, its paths relative to it.
    """
    from steepest.app.verify import run

    run(network, asked, timeout=timeout, seed=seed, as_json=as_json, output=output)
