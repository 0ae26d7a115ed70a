"""Adversarial training in Lightning's own trainer: a callback that turns every training batch into its worst points."""

from __future__ import annotations

from typing import Any, final

import torch
from lightning.pytorch import Callback
from torch import nn

from steepest.basis.box import Box
from steepest.budgets.contract import Budget
from steepest.harden.batches import adversarial_batch
from steepest.models.model import Model


@final
class Adversarial(Callback):  # type: ignore[misc]
    """Before each training step, x of a batch (x, y, …) becomes the points of a training method.

    The module's own loss, optimiser and logging stay what they are. Free training and certified methods, which are
    more than points, need `st.harden`. A batch that is no list is overwritten, so it must be a copy of the data. Needs
    the extra `lightning`.

    Args:
        budget: what the points may differ by.
        method: a call of `steepest list methods`.
        box: the limits of inputs.
        network: answers logits; the LightningModule itself if left out.
    """

    def __init__(
        self, budget: Budget, *, method: str = "n-fgsm", box: Any = (0.0, 1.0), network: nn.Module | None = None
    ) -> None:
        self.budget, self.method, self.box, self.network = budget, method, Box.of(box), network

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """See Lightning's `Callback`."""
        x, y = batch[0], batch[1]
        model = Model(self.network or pl_module, self.box)
        step = int(trainer.global_step)
        ids = torch.arange(len(y), device=y.device)
        found = adversarial_batch(model, x, y, self.budget, method=self.method, step=step, ids=ids)
        if isinstance(batch, list):
            batch[0] = found
        else:
            x.copy_(found)
