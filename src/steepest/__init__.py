"""Worst-case inputs of any differentiable model, and how far that answer can be believed.

>>> import torch, steepest as st
>>> net = torch.nn.Linear(4, 3).eval()
>>> x, y = torch.rand(8, 4), torch.zeros(8, dtype=torch.int64)
>>> x_adv = st.fgsm(st.Model(net, box=(0, 1)), x, y, st.Linf(8 / 255))
>>> bool(((x_adv.double() - x.double()).abs() <= 8 / 255).all())
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steepest.attacks import recipes as recipes
    from steepest.attacks.api import attack as attack
    from steepest.attacks.api import fgsm as fgsm
    from steepest.attacks.contract import AttackResult as AttackResult
    from steepest.attacks.contract import Status as Status
    from steepest.attacks.curve import Curve as Curve
    from steepest.attacks.curve import curve as curve
    from steepest.attacks.universal import universal as universal
    from steepest.attacks.worst_case import worst_case as worst_case
    from steepest.audit.api import AuditRun as AuditRun
    from steepest.audit.api import audit as audit
    from steepest.audit.comparison import Comparison as Comparison
    from steepest.audit.comparison import compare as compare
    from steepest.audit.verifying.api import verify as verify
    from steepest.audit.verifying.contract import Decision as Decision
    from steepest.basis.box import Box as Box
    from steepest.basis.errors import ContractError as ContractError
    from steepest.basis.errors import DataError as DataError
    from steepest.basis.errors import IncompleteError as IncompleteError
    from steepest.basis.errors import ModelError as ModelError
    from steepest.basis.errors import SteepestError as SteepestError
    from steepest.basis.errors import UsageError as UsageError
    from steepest.basis.version import VERSION as __version__  # noqa: F401 — a lazy name, listed in _HOMES
    from steepest.budgets.ellipsoid import Ellipsoid as Ellipsoid
    from steepest.budgets.intersection import Intersection as Intersection
    from steepest.budgets.l0 import L0 as L0
    from steepest.budgets.l1 import L1 as L1
    from steepest.budgets.l2 import L2 as L2
    from steepest.budgets.linf import Linf as Linf
    from steepest.budgets.masked import Masked as Masked
    from steepest.budgets.pixel_l2 import PixelL2 as PixelL2
    from steepest.budgets.pixel_sum import PixelSum as PixelSum
    from steepest.budgets.region import Region as Region
    from steepest.budgets.relations import relations as relations
    from steepest.budgets.subspace import Subspace as Subspace
    from steepest.budgets.subspace import low_frequency as low_frequency
    from steepest.budgets.tabular import Tabular as Tabular
    from steepest.budgets.weighted import Weighted as Weighted
    from steepest.certify.api import certify as certify
    from steepest.certify.clever import Clever as Clever
    from steepest.certify.clever import clever as clever
    from steepest.certify.contract import Bound as Bound
    from steepest.certify.lipschitz import Lipschitz as Lipschitz
    from steepest.certify.lipschitz import lipschitz as lipschitz
    from steepest.certify.smoothing import Smoothed as Smoothed
    from steepest.certify.smoothing import smoothed as smoothed
    from steepest.certify.vnnlib import parse_property as parse_property
    from steepest.diagnose.api import Diagnosis as Diagnosis
    from steepest.diagnose.api import diagnose as diagnose
    from steepest.diagnose.contract import Finding as Finding
    from steepest.diagnose.contract import Verdict as Verdict
    from steepest.harden.api import harden as harden
    from steepest.harden.api import hardening as hardening
    from steepest.harden.batches import adversarial_batch as adversarial_batch
    from steepest.harden.bias import training_bias as training_bias
    from steepest.harden.sentinel import Sentinel as Sentinel
    from steepest.harden.training import Hardened as Hardened
    from steepest.models.ensemble import ensemble as ensemble
    from steepest.models.estimated import estimated as estimated
    from steepest.models.expected import expected as expected
    from steepest.models.loading import load as load
    from steepest.models.model import Model as Model
    from steepest.models.objectives import Targeted as Targeted
    from steepest.models.plain import labels as labels
    from steepest.models.plain import scores as scores
    from steepest.models.straight_through import defended as defended
    from steepest.models.straight_through import straight_through as straight_through
    from steepest.models.surrogate import found_obstacles as found_obstacles
    from steepest.models.surrogate import surrogate as surrogate
    from steepest.report.run import report as report

_HOMES = {
    "recipes": "attacks.recipes:",
    "attack": "attacks.api",
    "fgsm": "attacks.api",
    "AttackResult": "attacks.contract",
    "Status": "attacks.contract",
    "Curve": "attacks.curve",
    "curve": "attacks.curve",
    "universal": "attacks.universal",
    "worst_case": "attacks.worst_case",
    "AuditRun": "audit.api",
    "audit": "audit:",
    "Comparison": "audit.comparison",
    "compare": "audit.comparison",
    "verify": "audit.verifying.api",
    "Decision": "audit.verifying.contract",
    "Box": "basis.box",
    "ContractError": "basis.errors",
    "DataError": "basis.errors",
    "IncompleteError": "basis.errors",
    "ModelError": "basis.errors",
    "SteepestError": "basis.errors",
    "UsageError": "basis.errors",
    "Ellipsoid": "budgets.ellipsoid",
    "Intersection": "budgets.intersection",
    "L0": "budgets.l0",
    "L1": "budgets.l1",
    "L2": "budgets.l2",
    "Linf": "budgets.linf",
    "Masked": "budgets.masked",
    "PixelL2": "budgets.pixel_l2",
    "PixelSum": "budgets.pixel_sum",
    "Region": "budgets.region",
    "Subspace": "budgets.subspace",
    "Tabular": "budgets.tabular",
    "low_frequency": "budgets.subspace",
    "relations": "budgets.relations",
    "Weighted": "budgets.weighted",
    "Smoothed": "certify.smoothing",
    "smoothed": "certify.smoothing",
    "parse_property": "certify.vnnlib",
    "Bound": "certify.contract",
    "certify": "certify:",
    "Clever": "certify.clever",
    "clever": "certify.clever",
    "Lipschitz": "certify.lipschitz",
    "lipschitz": "certify.lipschitz",
    "Diagnosis": "diagnose.api",
    "diagnose": "diagnose:",
    "Finding": "diagnose.contract",
    "Verdict": "diagnose.contract",
    "harden": "harden:",
    "hardening": "harden.api",
    "Hardened": "harden.training",
    "adversarial_batch": "harden.batches",
    "training_bias": "harden.bias",
    "Sentinel": "harden.sentinel",
    "estimated": "models.estimated",
    "load": "models.loading",
    "Model": "models.model",
    "Targeted": "models.objectives",
    "labels": "models.plain",
    "scores": "models.plain",
    "ensemble": "models.ensemble",
    "expected": "models.expected",
    "defended": "models.straight_through",
    "straight_through": "models.straight_through",
    "found_obstacles": "models.surrogate",
    "surrogate": "models.surrogate",
    "report": "report:",
    "__version__": "basis.version:VERSION",
}
"""Where each public name lives; a colon ends a module that is itself meant, or precedes another name in it."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import steepest` does not pay for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'steepest' has no attribute {name!r}; it has {', '.join(__all__)}")
    home, colon, other = _HOMES[name].partition(":")
    module = importlib.import_module(f"steepest.{home}")
    found = module if colon and not other else getattr(module, other or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
