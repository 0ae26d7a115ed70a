"""Deciding one property: slices of time for attacks and for bounds, in turn, until one of them has the answer."""

from __future__ import annotations

import gzip
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from steepest.audit.verifying.contract import SAT, UNKNOWN, UNSAT, Decision, Judge
from steepest.audit.verifying.search import Seeker, float32_box
from steepest.basis.box import Box
from steepest.basis.errors import NoCertificateError, UsageError
from steepest.certify.boxes import METHODS, Boxes, conditioned
from steepest.certify.input_splitting import FEWEST, MOST, Splitting
from steepest.certify.vnnlib import Case, Property, read_property
from steepest.models.loading import load
from steepest.models.loading.adapt import InPrecision
from steepest.models.loading.original import Original
from steepest.models.model import Model, Network

_SHARE, _LATER, _ROUNDS = 0.5, 0.1, 6
"""Attacks have so much of the time that bounds have, where both can do something, and less after so many rounds."""

_QUICK, _SLOW = 0.1, 1.0
"""Seconds of a step of halving, outside of which the next one takes twice or half as many boxes."""

_SLOPES = 60
"""α-CROWN takes about so many times as long as CROWN: it is left out where so much time is not left."""

_MIDDLES = 8
"""Boxes whose middles are tried after each bound."""

_FEW = 20
"""Inputs up to which boxes are halved; of more, activations are split first."""

_SPLIT = "crown"
"""The bound that halves are asked by."""


def verify(
    network: str | Path | Model, asked: str | Path | Property, *, timeout: float = 60.0, seed: int = 0
) -> Decision:
    """Return whether some input in the property's boxes has outputs that it asks for; see `Decision`.

    Random points and gradient ascents look for such an input; intervals, CROWN, α-CROWN and then halving of the boxes
    try to prove that there is none. Either may end it.

    Args:
        network: an .onnx file (.onnx.gz), or a model whose examples have a known shape or are vectors.
        asked: a file in VNN-LIB 1.0 (.vnnlib, .vnnlib.gz), or what `st.parse_property` made of a text.
        timeout: in seconds, from the first question on; looked at between steps, so that it may be exceeded by one.

    Raises:
        UsageError: the property cannot be read, or has other numbers of inputs and outputs than the network; or the
            model is asked through an oracle.
        ModelError: as `st.load`.

    >>> text = '''(declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
    ...     (assert (>= X_0 0)) (assert (<= X_0 1)) (assert (<= Y_0 Y_1))'''
    >>> from steepest.certify.vnnlib import parse_property
    >>> found = verify(Model(lambda x: torch.cat([x + 0.5, 1 - x], 1), box=None), parse_property(text))
    >>> found.answer, bool(found.x + 0.5 <= 1 - found.x)
    ('sat', True)
    """
    if not 0 < timeout < math.inf:
        raise UsageError(f"timeout={timeout} is not allowed: give a positive number of seconds.")
    question = asked if isinstance(asked, Property) else read_property(asked)
    if isinstance(network, Model):
        if network.oracles:
            raise UsageError(
                f"{network.facts.source} is asked through an oracle, and a property speaks of a network itself: give "
                "st.Model(module, box=None)."
            )
        # What the network itself answers, also where that is known to be probabilities.
        itself = Model(_from_float32(network.network), None, facts=replace(network.facts, outputs="logits"))
        return _decided(itself, _Itself(itself), question, timeout, seed)
    with unpacked(Path(network)) as path:
        model = load(path, box=None)
        model = model.with_facts(replace(model.facts, source=str(network)))
        return _decided(model, Original(path), question, timeout, seed)


def _from_float32(network: Network) -> Network:
    """Return a network that takes float32, as inputs are here, also where its own numbers are float64."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    first = next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), None)
    return InPrecision(network, first) if first is torch.float64 else network


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Give the path of a model file, unpacked beside nothing of the user's if it ends in .gz.

    Raises:
        UsageError: the compressed file is missing or damaged.
    """
    if path.suffix.lower() != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        try:
            with gzip.open(path, "rb") as packed, plain.open("wb") as file:
                shutil.copyfileobj(packed, file)
        except (OSError, EOFError) as error:
            raise UsageError(f"the model {str(path)!r} cannot be unpacked ({error}): check the file.") from None
        yield plain


@final
@dataclass(frozen=True, slots=True)
class _Itself:
    """A model as its own judge."""

    model: Model

    def outputs(self, x: Tensor) -> Tensor:
        """See `Judge`."""
        with self.model.borrowed(), torch.no_grad():
            return self.model.passed(x[None])[0]


def _decided(model: Model, judge: Judge, asked: Property, timeout: float, seed: int) -> Decision:
    shape = _shape(model, asked)
    count = judge.outputs(torch.zeros(shape)).numel()
    if count != asked.outputs:
        raise UsageError(
            f"the property declares {asked.outputs} outputs, and {model.facts.source} has {count}: give the property "
            "of this network."
        )
    race = Race(model=model, judge=judge, shape=shape, asked=asked, seed=seed, until=time.monotonic() + timeout)
    return race.run()


def _shape(model: Model, asked: Property) -> tuple[int, ...]:
    """Return the shape of one example; the inputs of the property fill it in row-major order."""
    shape = model.facts.input_shape or (asked.inputs,)
    if math.prod(shape) != asked.inputs:
        raise UsageError(
            f"the property declares {asked.inputs} inputs, and {model.facts.source} takes {math.prod(shape)} "
            f"({'×'.join(map(str, shape))}): give the property of this network."
        )
    return tuple(shape)


@final
@dataclass(slots=True, kw_only=True)
class _Runner:
    """One case of the property: a search, and bounds."""

    case: Case
    low: Tensor
    high: Tensor
    seeker: Seeker
    conditions: Model
    group: Tensor
    boxes: Boxes | None = None
    splitting: Splitting | None = None
    level: int = 0
    seconds: float = 1.0
    searching: bool = False
    proven: bool = False
    by: str = ""

    @property
    def open(self) -> Tensor:
        """bool [C]: the conjunctions that may hold somewhere still."""
        if self.splitting is None:
            return torch.ones(len(self.case.either), dtype=torch.bool)
        return self.splitting.open.any(0)


@final
@dataclass(slots=True, kw_only=True)
class Race:
    """Attacks and bounds of one property, in turn."""

    model: Model
    judge: Judge
    shape: tuple[int, ...]
    asked: Property
    seed: int
    until: float
    began: float = field(default_factory=time.monotonic)
    obstacle: str = ""
    crown_seconds: float = 0.0
    preparing: float = 0.0
    networks: dict[bytes, Boxes] = field(default_factory=dict)

    def run(self) -> Decision:
        """Return the decision."""
        runners = [self._runner(case) for case in self.asked.cases]
        if not runners:
            return self._answer(UNSAT, runners, "no input meets the bounds of any case")
        sought = bounded = 0.0
        while True:
            share = _SHARE if runners[0].seeker.round < _ROUNDS else _LATER
            seeking = sought <= share * bounded or not any(self._boundable(runner) for runner in runners)
            began = time.monotonic()
            met = self._round(runners, seeking=seeking)
            if met is not None:
                return met
            if all(runner.proven for runner in runners):
                return self._answer(UNSAT, runners, ", ".join(dict.fromkeys(runner.by for runner in runners)))
            if time.monotonic() >= self.until:
                return self._answer(UNKNOWN, runners, self._tried(runners))
            if seeking:
                sought += time.monotonic() - began
            else:
                bounded += time.monotonic() - began - self.preparing
                self.preparing = 0.0

    def _runner(self, case: Case) -> _Runner:
        low, high = (bound.reshape(self.shape) for bound in (case.lower, case.upper))
        below, above = float32_box(low, high)
        rows = torch.cat([part.rows for part in case.either])
        most = torch.cat([part.most for part in case.either])
        group = torch.cat([torch.full((len(part.most),), at) for at, part in enumerate(case.either)])
        # Also the float32 numbers that stand for a side without any: so the two answers speak of one box.
        low, high = torch.minimum(low, below.double()), torch.maximum(high, above.double())
        conditions = conditioned(self.model, rows, most, Box(low, high))
        seeker = Seeker(conditions, below, above, group, self.seed)
        return _Runner(case=case, low=low, high=high, seeker=seeker, conditions=conditions, group=group)

    def _round(self, runners: list[_Runner], *, seeking: bool) -> Decision | None:
        """Let every case that is open have one step; return the decision if a counterexample was met."""
        for runner in runners:
            if runner.proven or time.monotonic() >= self.until:
                continue
            points = (
                runner.seeker.candidates(runner.open, self.until - time.monotonic())
                if seeking
                else self._bounded(runner)
            )
            found = self._confirmed(runner, points)
            if found is not None:
                return self._answer(SAT, runners, _found(runner, seeking), found)
        return None

    def _boundable(self, runner: _Runner) -> bool:
        """Return whether bounds can do more for a case."""
        done = runner.level == len(METHODS) and not runner.searching
        stuck = done and runner.splitting is not None and runner.splitting.stuck
        return not (self.obstacle or runner.proven or stuck)

    def _bounded(self, runner: _Runner) -> Tensor:
        """Let the next bound speak; return the inputs worth trying."""
        nothing = runner.low[None][:0]
        if not self._boundable(runner):
            return nothing
        if runner.splitting is None:
            try:
                runner.splitting = Splitting.of(self._boxes(runner), runner.group, runner.low, runner.high)
            except NoCertificateError as error:
                self.obstacle = str(error)
                return nothing
        self._step(runner, runner.splitting)
        runner.proven = runner.splitting.left == 0
        middles = runner.splitting.middles(_MIDDLES)
        return runner.seeker.best_of(middles, runner.open) if len(middles) else nothing

    def _step(self, runner: _Runner, splitting: Splitting) -> None:
        """Take the next method for the whole box; when all had their turn, split activations, or halve boxes."""
        began = time.monotonic()
        if runner.searching:
            seconds = max(0.0, min(runner.seconds, self.until - began))
            splitting.search(seconds)
            runner.by, runner.seconds = "split activations", 2 * runner.seconds
            # It ended before its time, so it can do no more.
            runner.searching = time.monotonic() - began >= seconds
            return
        if runner.level == len(METHODS):
            splitting.split(_SPLIT)
            runner.by = f"{_SPLIT} on halved boxes"
            spent = time.monotonic() - began
            splitting.together *= 2 if spent < _QUICK else 1
            splitting.together //= 2 if spent > _SLOW else 1
            splitting.together = min(max(splitting.together, FEWEST), MOST)
            return
        method = METHODS[runner.level]
        runner.level += 1
        runner.searching = runner.level == len(METHODS) and runner.low.numel() > _FEW
        if method == "alpha-crown" and began + _SLOPES * self.crown_seconds > self.until:
            return
        splitting.bound(method)
        runner.by = method
        if method == "crown":
            self.crown_seconds = max(self.crown_seconds, time.monotonic() - began)

    def _boxes(self, runner: _Runner) -> Boxes:
        """Return what bounds the conditions of a case; cases with the same conditions share it."""
        either = runner.case.either
        key = b"|".join(part.rows.numpy().tobytes() + part.most.numpy().tobytes() for part in either)
        if key not in self.networks:
            began = time.monotonic()
            self.networks[key] = Boxes(runner.conditions, self.shape)
            self.preparing += time.monotonic() - began
        return self.networks[key]

    def _confirmed(self, runner: _Runner, points: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the first point whose outputs, by the judge, meet a conjunction, and those outputs."""
        for x in points:
            y = self.judge.outputs(x)
            if bool(y.isfinite().all()) and any(bool(part.holds(y[None])) for part in runner.case.either):
                return x, y
        return None

    def _tried(self, runners: list[_Runner]) -> str:
        open_ = sum(int(runner.open.sum()) for runner in runners if not runner.proven)
        total = sum(len(runner.case.either) for runner in runners)
        left = sum(0 if runner.splitting is None else runner.splitting.left for runner in runners)
        return f"{open_} of {total} alternatives are open, in {left} boxes" if not self.obstacle else "attacks alone"

    def _answer(
        self, answer: str, runners: list[_Runner], how: str, found: tuple[Tensor, Tensor] | None = None
    ) -> Decision:
        seconds = time.monotonic() - self.began
        return Decision(
            answer=answer,
            x=None if found is None else found[0].flatten(),
            y=None if found is None else found[1],
            how=how,
            reason="" if answer != UNKNOWN else self.obstacle or f"nothing was decided in {seconds:.1f} s",
            boxes=sum(0 if runner.splitting is None else runner.splitting.asked for runner in runners),
            points=sum(runner.seeker.points for runner in runners),
            seconds=seconds,
        )


def _found(runner: _Runner, seeking: bool) -> str:
    if not seeking:
        return "the middle of a box that bounds could not exclude"
    return "a random point" if runner.seeker.round <= 1 else f"gradient ascents, round {runner.seeker.round - 1}"
