"""The command line of `steepest harden`."""

from __future__ import annotations

from steepest.app import options as o
from steepest.app.exits import CONTINUES, foreseen


@foreseen(CONTINUES)
def harden(
    model: o.Factory,
    data: o.Data,
    budget: o.Budget = None,
    method: o.Method = None,
    epochs: o.Epochs = None,
    out: o.Out = None,
    lr: o.Rate = None,
    batch_size: o.TrainingBatch = None,
    schedule: o.Schedule = None,
    momentum: o.Momentum = None,
    weight_decay: o.Decay = None,
    held_out: o.HeldOut = None,
    patience: o.Patience = None,
    augment: o.Augment = None,
    in_precision: o.InPrecision = None,
    channels_last: o.ChannelsLast = None,
    ema: o.Ema = None,
    swa: o.Swa = None,
    sentinel: o.SentinelOn = None,
    remedy: o.Remedy = None,
    bias_every: o.BiasEvery = None,
    devices: o.Devices = None,
    track: o.Track = None,
    test: o.Test = None,
    preset: o.Preset = None,
    attacks: o.Attacks = None,
    assure: o.Assure = None,
    diagnose: o.Diagnose = None,
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
    as_json: o.AsJson = False,
) -> None:
    """Train on worst-case points, and audit what comes of it.

    Writes weights, history and a page. The same command again continues a training that was interrupted. Exit code 12
    if training broke off before its end (a loss that is not finite, a sign without a remedy).
    """
    given = o.given(locals(), "as_json")
    from steepest.app.harden import asked_of, run

    run(*asked_of(given), as_json=as_json)
