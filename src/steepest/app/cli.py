"""The command line: names, options and help of every command; what they do is imported when it is asked for."""

from __future__ import annotations

from typing import Annotated

import typer

from steepest.app import guarantees
from steepest.app import options as o
from steepest.app.exits import CONTINUES, NOTHING, foreseen
from steepest.app.training import harden
from steepest.basis.version import VERSION

app = typer.Typer(
    name="steepest",
    help="Find the worst input that a budget allows, for any differentiable model: robust accuracy, with its cost.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
runs = typer.Typer(help="List runs, show one, or join the parts of one.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(runs, name="runs")


def main() -> None:
    """Answer the command line."""
    app()


def _version(asked: bool) -> None:
    if asked:
        print(VERSION)
        raise typer.Exit


@app.callback()
def face(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find the worst input that a budget allows, for any differentiable model: robust accuracy, with its cost."""


@app.command()
@foreseen(CONTINUES)
def audit(
    model: o.MaybeModel = None,
    data: o.MaybeData = None,
    budget: o.Budget = None,
    preset: o.Preset = None,
    attacks: o.Attacks = None,
    objective: o.Objective = None,
    target: o.Target = None,
    label: o.Label = None,
    out: o.Out = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    seed: o.Seed = None,
    batch_size: o.BatchSize = None,
    shard_size: o.ShardSize = None,
    device: o.Device = None,
    precision: o.Precision = None,
    mean: o.Mean = None,
    std: o.Std = None,
    box: o.Box = None,
    labels: o.Labels = None,
    resize: o.Resize = None,
    weights: o.Weights = None,
    feature_weights: o.FeatureWeights = None,
    mask: o.Mask = None,
    trust_code: o.TrustCode = None,
    save: o.Save = None,
    assure: o.Assure = None,
    diagnose: o.Diagnose = None,
    allow_chance: o.AllowChance = None,
    gate: o.Gate = None,
    executor: o.Executor = None,
    workers: o.Workers = None,
    address: o.Address = None,
    gpus: o.Gpus = None,
    retries: o.Retries = None,
    shard: o.Shard = None,
    as_json: o.AsJson = False,
    output: o.Outputs = None,
) -> None:
    """Measure robust accuracy, and write a page about it.

    Whatever is left out comes from STEEPEST_<OPTION> in the environment, then from steepest.toml in this folder.
    The same command again continues a run that was interrupted.
    """
    given = o.given(locals(), "as_json", "output")
    from steepest.app.audit import run

    run(given, as_json=as_json, outputs=output or [])


@app.command()
@foreseen(CONTINUES)
def certify(
    model: o.Model,
    data: o.Data,
    budget: o.Budget = None,
    method: o.Certifiers = None,
    label: o.Label = None,
    out: o.Out = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    seed: o.Seed = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    mean: o.Mean = None,
    std: o.Std = None,
    box: o.Box = None,
    labels: o.Labels = None,
    resize: o.Resize = None,
    weights: o.Weights = None,
    feature_weights: o.FeatureWeights = None,
    mask: o.Mask = None,
    trust_code: o.TrustCode = None,
    allow_chance: o.AllowChance = None,
    gate: o.Gate = None,
    as_json: o.AsJson = False,
    output: o.Outputs = None,
) -> None:
    """Prove up to which size nothing breaks an example.

    Of every example the largest size that is proven and the smallest that a quick search breaks; how many are robust
    at least and at most at each --budget, and a page. Proofs hold against every attack.
    """
    given = o.given(locals(), "as_json", "output")
    from steepest.app.certify import run

    run(given, as_json=as_json, outputs=output or [])


@app.command()
@foreseen(NOTHING)
def attack(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An attack, e.g. fgsm or 'pgd(steps=50)'.")],
    model: o.Model,
    data: o.Data,
    budget: o.Budget = None,
    objective: o.Objective = None,
    target: o.Target = None,
    label: o.Label = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    seed: o.Seed = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    mean: o.Mean = None,
    std: o.Std = None,
    box: o.Box = None,
    labels: o.Labels = None,
    resize: o.Resize = None,
    weights: o.Weights = None,
    feature_weights: o.FeatureWeights = None,
    mask: o.Mask = None,
    trust_code: o.TrustCode = None,
    allow_chance: o.AllowChance = None,
    as_json: o.AsJson = False,
    output: o.Output = None,
    force: o.Force = False,
) -> None:
    """Run one attack and keep its points.

    -o adversarial.npz keeps floats; -o folder/ (or one.png for one example) keeps PNG images, rounded to 8 bits
    inside the budget; then the model is asked again about what was written.
    """
    given = o.given(locals(), "name", "as_json", "output", "force")
    from steepest.app.attack import run

    run(name, given, as_json=as_json, output=output, force=force)


@app.command()
@foreseen(NOTHING)
def curve(
    model: o.Model,
    data: o.Data,
    budget: o.Budget = None,
    points: Annotated[int, typer.Option(help="Equal steps of ε up to the budget's.")] = 32,
    objective: o.Objective = None,
    label: o.Label = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    seed: o.Seed = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    mean: o.Mean = None,
    std: o.Std = None,
    box: o.Box = None,
    labels: o.Labels = None,
    resize: o.Resize = None,
    weights: o.Weights = None,
    feature_weights: o.FeatureWeights = None,
    mask: o.Mask = None,
    trust_code: o.TrustCode = None,
    allow_chance: o.AllowChance = None,
    as_json: o.AsJson = False,
    output: o.Output = None,
) -> None:
    """Print accuracy against ε from one gradient each."""
    given = o.given(locals(), "points", "as_json", "output")
    from steepest.app.curve import run

    run(given, points=points, as_json=as_json, output=output)


@app.command()
@foreseen(NOTHING)
def diagnose(
    model: o.Model,
    data: o.Data,
    budget: o.Budget = None,
    checks: Annotated[
        str | None, typer.Option(metavar="A,B", help="Names of `steepest list checks`; all if left out.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For the searches without gradients, all together.")] = 20.0,
    objective: o.Objective = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    seed: o.Seed = None,
    device: o.Device = None,
    mean: o.Mean = None,
    std: o.Std = None,
    box: o.Box = None,
    labels: o.Labels = None,
    resize: o.Resize = None,
    weights: o.Weights = None,
    feature_weights: o.FeatureWeights = None,
    mask: o.Mask = None,
    trust_code: o.TrustCode = None,
    allow_chance: o.AllowChance = None,
    as_json: o.AsJson = False,
    output: o.Output = None,
) -> None:
    """Say whether robust accuracies of a model can be believed.

    Every check judges the same 64 examples, or those of --limit or --sample. -o page.html or findings.json keeps it.
    """
    given = o.given(locals(), "checks", "seconds", "as_json", "output")
    from steepest.app.diagnose import run

    run(given, checks=checks, seconds=seconds, as_json=as_json, output=output)


@app.command()
@foreseen(CONTINUES)
def compare(
    models: o.Models,
    data: o.DataOption = None,
    budget: o.Budget = None,
    preset: o.Preset = None,
    attacks: o.Attacks = None,
    objective: o.Objective = None,
    out: o.Out = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    seed: o.Seed = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    precision: o.Precision = None,
    mean: o.Mean = None,
    std: o.Std = None,
    box: o.Box = None,
    labels: o.Labels = None,
    resize: o.Resize = None,
    feature_weights: o.FeatureWeights = None,
    mask: o.Mask = None,
    trust_code: o.TrustCode = None,
    diagnose: o.Diagnose = None,
    allow_chance: o.AllowChance = None,
    as_json: o.AsJson = False,
    output: o.Outputs = None,
) -> None:
    """Audit models on the same examples, side by side.

    Who is more robust, by how much and by chance or not; who only looks so; what their layers do. One run a model
    and a page, comparison.html, in --out.
    """
    given = o.given(locals(), "models", "as_json", "output")
    from steepest.app.compare import run

    run(models, given, as_json=as_json, outputs=output or [])


app.command()(guarantees.smooth)
app.command()(guarantees.verify)
app.command()(harden)


@app.command()
@foreseen(NOTHING)
def report(run: o.Run, output: o.Outputs = None) -> None:
    """Write the page of a finished run again, or other files.

    -o page.html, results.json, junit.xml, audit.sarif, summary.md or model.card.md (for a model card); repeatable.
    """
    from steepest.app.runs import write_report

    write_report(run, output or [])


@app.command()
@foreseen(NOTHING)
def view(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folders of runs or trainings, or folders that hold some.")
    ],
    port: Annotated[int, typer.Option(help="Of this machine; 0 takes a free one.")] = 8000,
    browse: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
) -> None:
    """Serve pages of runs and trainings to this machine.

    Lists trainings and runs, side by side: numbers, verdicts and the examples that changed from the first run to each
    other one, with a link to each page. Ctrl-C ends it.
    """
    from steepest.app.view import run

    run(runs, port=port, browse=browse)


@runs.command("list")
@foreseen(NOTHING)
def runs_list(
    folder: Annotated[str, typer.Argument(metavar="[DIR]", help="The folder that holds runs.")] = "runs",
    as_json: o.AsJson = False,
) -> None:
    """List the runs and trainings in a folder."""
    from steepest.app.runs import list_runs

    list_runs(folder, as_json=as_json)


@runs.command("show")
@foreseen(NOTHING)
def runs_show(run: o.Run, as_json: o.AsJson = False) -> None:
    """Show the result of a run."""
    from steepest.app.runs import show_run

    show_run(run, as_json=as_json)


@runs.command("merge")
@foreseen("merge again: what was copied stays")
def runs_merge(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The folder to join them in; may be one of them.")],
    parts: Annotated[list[str], typer.Argument(metavar="IN...", help="Folders of parts: `audit --shard i/n`.")],
    as_json: o.AsJson = False,
) -> None:
    """Join the parts of a run, and write its page."""
    from steepest.app.runs import merge_runs

    merge_runs(out, parts, as_json=as_json)


@app.command("list")
@foreseen(NOTHING)
def list_(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="attacks, budgets, certifiers, checks, methods, objectives or presets."),
    ],
    budget: Annotated[
        str | None, typer.Option(metavar="KIND", help="Of the attacks, those that serve this budget: l1.")
    ] = None,
    as_json: o.AsJson = False,
) -> None:
    """List what can be named in commands."""
    from steepest.app.catalogues import show

    show(kind, budget=budget, as_json=as_json)


@app.command()
@foreseen(NOTHING)
def init(path: Annotated[str, typer.Argument(metavar="[PATH]", help="The file to write.")] = "steepest.toml") -> None:
    """Write a commented steepest.toml for `audit`."""
    from steepest.app.init import write

    write(path)


@app.command()
@foreseen(NOTHING)
def doctor(as_json: o.AsJson = False) -> None:
    """Show versions, and test against a known answer."""
    from steepest.app.doctor import run

    run(as_json=as_json)
