"""Beyond classifiers: worst cases of physical systems that are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from steepest.attacks.worst_case import worst_case
from steepest.basis.errors import ModelError
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf

DTYPE = torch.float64
DUALS = [
    (Linf, lambda h: h.abs().sum()),
    (L2, lambda h: h.norm()),
    (L1, lambda h: h.abs().max()),
]


@pytest.mark.parametrize(("make", "dual"), DUALS)
def test_a_linear_map_is_exact_in_every_norm(make, dual):
    a = torch.randn(12, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 12, dtype=DTYPE, generator=torch.Generator().manual_seed(1))
    found = worst_case(lambda p: p @ a, x, make(0.7), recipe="pgd(steps=5)")
    assert torch.allclose(found.value, x @ a + 0.7 * dual(a), rtol=1e-10)
    assert (found.gauge <= 1).all()
    assert (found.status == 0).all()
    assert not found.won.any()


def impulse(a: np.ndarray, b: np.ndarray, c: np.ndarray, steps: int) -> torch.Tensor:
    """h_t = c'A^{T−1−t}B, the answer at the end to one unit of input at step t."""
    powers, state = [], b
    for _ in range(steps):
        powers.append(float(c @ state))
        state = a @ state
    return torch.tensor(powers[::-1], dtype=DTYPE)


def simulate(a: np.ndarray, b: np.ndarray, c: np.ndarray):
    """The same system as a simulation that knows nothing of impulse responses."""
    turn, push, look = (torch.tensor(part, dtype=DTYPE) for part in (a, b, c))

    def last(u: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(u.shape[0], len(b), dtype=DTYPE)
        for t in range(u.shape[1]):
            state = state @ turn.T + u[:, t : t + 1] * push
        return state @ look

    return last


@pytest.mark.parametrize(("make", "dual"), DUALS)
def test_peak_gain_of_a_linear_system(make, dual):
    """P1: the largest output after T steps is ε times the dual norm of the impulse response."""
    a, b, c = np.array([[0.9, 0.3], [-0.4, 0.7]]), np.array([0.2, 1.0]), np.array([1.0, -0.5])
    found = worst_case(simulate(a, b, c), torch.zeros(1, 25, dtype=DTYPE), make(0.3), recipe="fgsm")
    h = impulse(a, b, c, 25)
    assert found.value.item() == pytest.approx(0.3 * float(dual(h)), rel=1e-9)
    if make is Linf:
        assert torch.equal(found.point.sign()[0], h.sign())


def held(w: float, z: float, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """x″ + 2zw x′ + w² x = u with u held for dt: the exact step."""
    both = np.zeros((3, 3))
    both[:2] = [[0, 1, 0], [-w * w, -2 * z * w, 1]]
    step = expm(both * dt)
    return step[:2, :2], step[:2, 2]


def test_an_oscillator_under_bounded_force_reaches_the_closed_form():
    """P2: worst |x| = (ε/w²) coth(πz / 2√(1 − z²)), 6.39 times the static ε/w² at z = .1: resonance."""
    w, z, eps, dt = 2.0, 0.1, 0.25, 0.05
    steps = round(45 / dt)  # e^{−zwT} = 1e-4 of the answer is still to come
    a, b = held(w, z, dt)
    system = simulate(a, b, np.array([1.0, 0.0]))
    found = worst_case(system, torch.zeros(1, steps, dtype=DTYPE), Linf(eps), recipe="fgsm")
    gain = 1 / math.tanh(math.pi * z / (2 * math.sqrt(1 - z * z)))
    assert gain == pytest.approx(6.3868, abs=1e-4)
    assert found.value.item() == pytest.approx(eps / w**2 * gain, rel=3e-3)
    assert found.value.item() <= eps / w**2 * gain
    h = impulse(a, b, np.array([1.0, 0.0]), steps)
    assert found.value.item() == pytest.approx(eps * float(h.abs().sum()), rel=1e-9)
    switches = int((found.point[0, 1:].sign() != found.point[0, :-1].sign()).sum())
    assert switches == int(45 * w * math.sqrt(1 - z * z) / math.pi)  # the force changes sign with the free swing


def test_a_deviation_whose_gradient_vanishes_at_x_is_found_from_random_starts():
    """(aᵀδ)² has no slope at δ = 0: FGSM alone stays there and says so."""
    a = torch.tensor([1.0, -2.0, 0.5], dtype=DTYPE)
    x = torch.full((4, 3), 0.3, dtype=DTYPE)

    def deviation(p):
        return ((p - x[: len(p)]) @ a).square()

    found = worst_case(deviation, x, Linf(0.2), recipe="pgd(steps=10)")
    assert torch.allclose(found.value, torch.full((4,), (0.2 * 3.5) ** 2, dtype=DTYPE))
    assert (found.status == 0).all()
    blind = worst_case(deviation, x, Linf(0.2), recipe="fgsm")
    assert (blind.status == 2).all()
    assert (blind.value == 0).all()


def test_the_box_limits_the_inputs_themselves():
    a = torch.tensor([1.0, -1.0], dtype=DTYPE)
    x = torch.tensor([[0.95, 0.5]], dtype=DTYPE)
    assert worst_case(lambda p: p @ a, x, Linf(0.1), box=(0, 1)).value.item() == pytest.approx(0.6)


def test_a_function_that_mixes_the_examples_is_refused():
    with pytest.raises(ModelError, match=r"one number each"):
        worst_case(lambda p: p.sum(), torch.zeros(3, 2), Linf(0.1))
