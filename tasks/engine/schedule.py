"""The optimizer of a training, its learning rate over the epochs, and when a training ends early."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from tasks.config.params import Train

MOMENTUM = 0.9  # of SGD
RISE = 0.4  # share of a one-cycle schedule in which the rate rises
FALL = 0.15  # PGD accuracy on validation, below its best epoch, that ends the training: more is no chance


def optimizer_of(net: nn.Module, recipe: Train) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum, as `train.optimizer` says, over all weights."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=decay)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Train, done: float) -> None:
    """The learning rate for the next step, when that share (0 to 1) of the training is done."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * rate(recipe.schedule, done)


def rate(schedule: str, done: float) -> float:
    """The learning rate as a share of its highest, when so large a share (0 to 1) of the training is done.

    cosine: down to 0 along half a wave. one_cycle: up from 0 over the first two fifths, then down to 0, straight, as in
    arXiv:2001.03994. step: a tenth from half on, a hundredth from three quarters on. late_step: a tenth from 100 of 110
    epochs on, a hundredth from 105 on, as RiFT's paper trains.
    """
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if schedule == "one_cycle":
        return done / RISE if done < RISE else (1 - done) / (1 - RISE)
    if schedule == "step":
        return 0.1 ** sum(done >= at for at in (0.5, 0.75))
    if schedule == "late_step":
        return 0.1 ** sum(done >= at for at in (100 / 110, 105 / 110))
    return 1.0


def why_stop(epochs: list[dict[str, Any]], patience: int | None, guess: float, *, defended: bool) -> str:
    """Why training should end after these epochs; empty if it should go on.

    What counts is PGD accuracy, or clean accuracy for a loss that promises nothing under attack; never for less than
    `guess`, the accuracy of one answer to every image: a network that begins there falls when it begins to learn.
    """
    what, key = ("PGD", "robust") if defended else ("clean", "clean")
    reached = [max(epoch[key], guess) for epoch in epochs]
    best, last = max(reached), reached[-1]
    if defended and best - last > FALL:
        return (
            f"PGD accuracy on validation fell from {best:.1%} to {last:.1%}, more than {FALL:.0%}, as happens when a "
            "loss is learned by heart; give its attack more steps, or lower train.learning_rate"
        )
    since = len(reached) - 1 - reached.index(best)
    if patience is not None and since >= patience:
        return f"{what} accuracy on validation has not risen over {best:.1%} for {since} epochs (train.patience)"
    return ""
