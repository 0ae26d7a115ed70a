"""The commands that prove: names, options and help; what they do is imported when it is asked for."""

from __future__ import annotations

from typing import Annotated

import typer

from steepest.app import options as o
from steepest.app.exits import CONTINUES, foreseen


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
