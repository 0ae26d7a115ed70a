"""Loading a model from a file or from the user's code, with what was adapted and found written in its facts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from steepest.basis.box import Bound, Box
from steepest.basis.errors import UsageError, unknown
from steepest.models.contract import Facts
from steepest.models.loading import pickled
from steepest.models.loading import weights as weights_files
from steepest.models.loading.adapt import Channels, Normalisation, Normalised, fitted_to
from steepest.models.loading.exported import from_exported
from steepest.models.loading.factory import from_factory, names_factory
from steepest.models.loading.files import require_file
from steepest.models.loading.onnx import from_onnx
from steepest.models.model import Model, Network

__all__ = ["fitted_to", "load"]

_ALLOWED = (".onnx", ".pt2")
_REMEDY = (
    "Other sources: pkg.module:factory or file.py:factory, with --weights for safetensors or a state dict. "
    "Models of other frameworks: export them to ONNX."
)


def load(
    source: str | Path,
    *,
    box: Box | tuple[Bound, Bound] | None = (0.0, 1.0),
    mean: Channels = None,
    std: Channels = None,
    weights: str | Path | None = None,
    trust_code: bool = False,
    input_shape: tuple[int, ...] | None = None,
) -> Model:
    """Return the model that `source` names, in evaluation mode, its facts filled in.

    An ONNX file is compared with onnxruntime; a frozen batch size is opened. Files that can run code when opened
    are refused unless trusted.

    Args:
        source: a file ending in .onnx or .pt2, or `pkg.module:factory` or `file.py:factory` without arguments.
        box: the limits of the data, in data units, before normalisation.
        mean: with `std`, normalises per channel inside the model: (x − mean) / std; in data units.
        std: see `mean`; positive.
        weights: safetensors or a state dict for the factory's module.
        trust_code: also open pickles and TorchScript, and import code outside the working directory.
        input_shape: of one example as the model wants it, where the file does not say.

    Raises:
        UsageError: unknown or missing source, or one that would run code; names the remedy.
        ModelError: a damaged file, several inputs or outputs, or answers that disagree with onnxruntime.

    >>> _ = Path("net.py").write_text("import torch\\ndef make(): return torch.nn.Linear(4, 3)")
    >>> load("net.py:make").logits(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """
    limits, normalisation = Box.of(box), Normalisation.of(mean, std)
    text = str(source)
    if names_factory(text) and not Path(text).exists():
        file = None if weights is None else Path(weights)
        network, facts = from_factory(text, weights=file, trust_code=trust_code, input_shape=input_shape)
    else:
        if weights is not None:
            raise UsageError(
                f"weights={str(weights)!r} were given with the model {text!r}, which has its own; allowed only with "
                "pkg.module:factory or file.py:factory."
            )
        network, facts = _from_file(Path(source), limits, normalisation, trust_code, input_shape)
    if normalisation is not None:
        network = Normalised(network, normalisation)
        if mean is None or std is None:
            note = "no mean was given: 0 is used" if mean is None else "no std was given: 1 is used"
            facts = replace(facts, notes=(*facts.notes, note))
    model = Model(network, limits, facts=facts)
    given = partial(load, source, box=box, mean=mean, std=std, weights=weights)
    model.origin = partial(given, trust_code=trust_code, input_shape=input_shape)
    return model


def _from_file(
    path: Path,
    box: Box,
    normalisation: Normalisation | None,
    trust_code: bool,
    input_shape: tuple[int, ...] | None,
) -> tuple[Network, Facts]:
    require_file(path)
    ending = path.suffix.lower()
    if ending == ".onnx":
        return from_onnx(path, box=box, normalisation=normalisation, input_shape=input_shape)
    if ending == ".pt2":
        return from_exported(path, input_shape=input_shape, trust_code=trust_code)
    if ending in (*weights_files.ENDINGS, *pickled.ENDINGS):
        return pickled.from_pickled(path, trust_code=trust_code)
    if ending == ".py":
        raise UsageError(f"{str(path)!r} names a file of code but no factory in it; write {path}:factory.")
    raise unknown(f"model file ending of {str(path)!r},", ending, _ALLOWED, _REMEDY)
