"""auto_LiRPA, where it can be imported, as an independent witness of interval and linear bounds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import steepest as st
from steepest.certify.grounds import Product
from steepest.certify.linear import Bounds
from steepest.certify.network import network_of

EPSILON = 0.05


@pytest.mark.parametrize("bend", [nn.ReLU(), nn.LeakyReLU(0.1)])
def test_bounds_of_logits_are_its_bounds(bend):
    lirpa = pytest.importorskip("auto_LiRPA", exc_type=ImportError)
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3, 2, 1), bend, nn.Flatten(), nn.Linear(12, 10), bend, nn.Linear(10, 3)]
    net, x = nn.Sequential(*layers).eval(), torch.rand(4, 1, 4, 4)
    around = lirpa.PerturbationLpNorm(norm=float("inf"), eps=EPSILON)
    theirs = lirpa.BoundedModule(net, torch.empty_like(x))
    asked = (lirpa.BoundedTensor(x, around),)
    network = network_of(st.Model(net, box=None), (1, 4, 4))
    bounds = Bounds.by_intervals(network, Product(x.double() - EPSILON, x.double() + EPSILON))
    intervals, _ = theirs.compute_bounds(x=asked, method="IBP")
    torch.testing.assert_close(bounds.ranges[network.last][0].float(), intervals, rtol=0, atol=1e-4)
    unit, owner = torch.eye(3, dtype=torch.float64).repeat(4, 1), torch.arange(4).repeat_interleave(3)
    linear, _ = theirs.compute_bounds(x=asked, method="CROWN")
    mine = bounds.tightened().lower(unit, owner, network.last).value.reshape(4, 3)
    torch.testing.assert_close(mine.float(), linear, rtol=0, atol=1e-4)
