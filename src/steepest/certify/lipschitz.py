"""How stretchy a model is: its Lipschitz constants from above and from below, and which layer makes it so."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from steepest.basis.errors import NoCertificateError
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.certify.eclipse import carried, eclipse_bound, eclipse_bounds
from steepest.certify.pairs import Pairs, contrasts
from steepest.certify.ratios import Ratios, ratios
from steepest.certify.stretching import StepBound, stretching
from steepest.certify.walk import graph_of, whole_graph
from steepest.models.model import Model
from steepest.models.objectives import checked
from steepest.models.traced import Graph


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ceiling:
    """Lipschitz constants in L2 that a network cannot exceed anywhere, from its weights alone.

    Attributes:
        layers: every step of the trace, in order.
        product: the norms of the steps, multiplied along chains.
        eclipse: the constant by ECLipsE-Fast; None where that does not apply, for `why`.
    """

    layers: tuple[StepBound, ...]
    product: float
    eclipse: float | None
    why: str

    @property
    def best(self) -> float:
        """The smaller of the two."""
        return self.product if self.eclipse is None else min(self.product, self.eclipse)

    @property
    def amplifier(self) -> StepBound | None:
        """The step with the largest share of what amplifies; None where nothing does."""
        found = max(self.layers, key=lambda layer: layer.share, default=None)
        return found if found is not None and found.share > 0 else None

    def to_record(self) -> dict[str, Any]:
        """Return the bounds as plain JSON values."""
        return {
            "product": self.product,
            "eclipse": self.eclipse,
            "why": self.why,
            "layers": [asdict(layer) for layer in self.layers],
        }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lipschitz:
    """Lipschitz constants in L2, from above for all inputs and from below inside a region around each example.

    Attributes:
        ceiling: of the whole network; None where an operation has no rule, for `reason`.
        rivals: int64 [N, R], the classes k looked at, the nearest at x first.
        margin: float64 [N, R], z_y − z_k at x.
        pairs: float64 [N, R], the smallest known bound of the constant of z_y − z_k; None with `ceiling`.
        found: what the model was seen to do: lower bounds, so that every constant of the region is at least as large.
        radius: float64 [N], min over k of margin/pairs, a Euclidean distance within which no class looked at
            overtakes y; 0 where the model is wrong at x; None with `ceiling`.
        attainable: float64 [N], the same by the lower bounds: more no certificate from a constant of the region says.

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.9, 0.3]]), torch.tensor([0])
    >>> found = st.lipschitz(st.Model(torch.nn.Flatten()), x, y, st.L2(0.1))
    >>> found.radius.round(decimals=4), found.attainable.round(decimals=4)     # 0.6/√2, from above and from below
    (tensor([0.4243], dtype=torch.float64), tensor([0.4243], dtype=torch.float64))
    """

    ceiling: Ceiling | None
    reason: str
    rivals: Tensor
    margin: Tensor
    pairs: Tensor | None
    found: Ratios
    radius: Tensor | None
    attainable: Tensor


def lipschitz(
    model: Model,
    x: Tensor,
    y: Tensor,
    budget: Budget,
    *,
    rivals: int = 9,
    samples: int = 16,
    steps: int = 10,
    seed: int = 0,
) -> Lipschitz:
    """Bound how much a model can stretch a change of its input, and say which of its layers makes it so.

    From above, for all inputs: the norms of the layers multiplied; the constant of every difference z_y − z_k through
    the last layers; ECLipsE-Fast for chains of rising activations. From below, inside the budget around x: the largest
    gradients sampled and climbed to. Between the two lies the true constant; a wide gap is slack of the bound, not
    danger. Of probabilities, the logits behind the softmax are meant.

    Args:
        x: [N, *features], inside the model's box; y: int64 [N].
        rivals: how many classes besides y are looked at, the nearest at x first.
        samples, steps: how many points are sampled, and steps climbed, for an example.

    Raises:
        DataError: labels do not fit; x leaves the box.
        ModelError: no gradient reaches the input.

    Source: of the bounds Szegedy et al. 2014, Tsuzuku et al. 2018 and Xu & Sivaranjani 2024; of norms of convolutions
    Sedghi, Gupta & Long 2019.

    >>> import steepest as st
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> found = st.lipschitz(st.Model(net), torch.tensor([[0.5, 0.25]]), torch.tensor([0]), st.L2(0.1))
    >>> round(found.ceiling.product, 6), found.pairs.round(decimals=6), found.found.ascended.round(decimals=6)
    (4.0, tensor([[5.]], dtype=torch.float64), tensor([[5.]], dtype=torch.float64))
    """
    region = Region(budget, model.box, model.box.admit(x, "x"))
    labels = checked(y, model.logits(region.x))
    asked, bounds, centred, reason = _bounded(model, tuple(x.shape[1:]))
    own = asked.logits(region.x).double()
    found = ratios(asked, region, labels, rivals=rivals, samples=samples, steps=steps, seed=seed, centred=centred)
    margin = (own.gather(1, labels[:, None]) - own).gather(1, found.rivals)
    pairs = None
    if bounds is not None:
        pairs = bounds.pairs(labels.cpu()).to(own.device).gather(1, found.rivals)
    return Lipschitz(
        ceiling=None if bounds is None else bounds.ceiling,
        reason=reason,
        rivals=found.rivals,
        margin=margin,
        pairs=pairs,
        found=found,
        radius=None if pairs is None else _nearest(margin, pairs),
        attainable=_nearest(margin, found.ascended),
    )


def ceiling_of(model: Model, shape: tuple[int, ...]) -> Ceiling:
    """Return what a model's weights alone say: no example is asked about.

    Args:
        shape: of one example.

    Raises:
        NoCertificateError: the model cannot be traced, or an operation has no rule.

    >>> net = torch.nn.Linear(2, 2)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> round(ceiling_of(Model(net), (2,)).product, 6)
    4.0
    """
    return Bounded.of(graph_of(model, shape)).ceiling


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bounded:
    """The bounds of a graph.

    Attributes:
        constants: of every difference of outputs.
        state: what ECLipsE-Fast carried to the last layer, where it applies.
    """

    ceiling: Ceiling
    constants: Pairs
    state: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, graph: Graph) -> Bounded:
        """Return them, the norms computed once."""
        layers = stretching(graph)
        constants = Pairs(graph=graph, totals=(1.0, *(layer.total for layer in layers)), known={})
        try:
            state, why = carried(graph), ""
        except NoCertificateError as error:
            state, why = None, str(error)
        ceiling = Ceiling(
            layers=layers,
            product=constants.totals[-1],
            eclipse=None if state is None else eclipse_bound(*state),
            why=why,
        )
        return cls(ceiling=ceiling, constants=constants, state=state)

    def pairs(self, y: Tensor) -> Tensor:
        """Return the smallest known constant of z_y − z_k for every class k, float64 [N, K]."""
        found = self.constants.of(y)
        if self.state is None:
            return found
        for row, label in enumerate(y.tolist()):
            found[row] = found[row].minimum(eclipse_bounds(*self.state, contrasts(label, found.shape[1])))
        return found


def _bounded(model: Model, shape: tuple[int, ...]) -> tuple[Model, Bounded | None, bool, str]:
    """Return the model whose outputs are the logits that are bounded, up to one number of each example or exactly.

    Returns:
        (the model, its bounds or None, whether its outputs are known up to one number only, why there are no bounds).
    """
    loose = model.facts.outputs == "probabilities"
    try:
        whole = whole_graph(model, shape)
        graph = whole.without_softmax()
        bounds = Bounded.of(graph)
    except NoCertificateError as error:
        return model, None, loose, str(error)
    if whole.steps[-1].op == "aten._softmax" and not loose:
        return model.with_facts(replace(model.facts, outputs="probabilities")), bounds, True, ""
    return model, bounds, graph is not whole or loose, ""


def _nearest(margin: Tensor, constants: Tensor) -> Tensor:
    """Return min over the rivals of margin/constant, 0 where one is not positive; ∞ where nothing changes it."""
    distance = torch.where(margin > 0, margin / constants, 0.0)
    return distance.amin(1) if distance.shape[1] else distance.new_full((len(margin),), torch.inf)
