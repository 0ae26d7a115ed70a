"""The catalogue of training methods."""

from __future__ import annotations

from steepest.basis.catalogue import Catalogue
from steepest.harden.contract import Method

METHODS: Catalogue[Method] = Catalogue("method", by_name=True)
