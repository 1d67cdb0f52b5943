"""SCORE, self-consistent robust error (Pang et al., arXiv:2202.10103): adversarial training on squared distances.

    L = Σ over k of (p_k(x′) − q_k)²,    q = (1 − smoothing) · one-hot(y) + smoothing / K

The cross-entropy and the KL of adversarial training give way to a distance, which obeys the triangle inequality. x′ is
PGD's on the cross-entropy. Written from the paper, its adversarial-training form. Differs: images have weights; x′ is
made in eval mode; with `beta` the distance between both answers is added, L + beta · Σ (p_k(x) − p_k(x′))² with the
first term on x, as TRADES does.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from tasks.engine.batch import Batch
from tasks.losses import Inner, weighted_mean


class Params(Inner):
    smoothing: float = Field(default=0.1, ge=0, lt=1)  # share of the label that is spread over all classes
    beta: float | None = Field(default=None, ge=0)  # null: one term, on x′; else TRADES' two terms


def loss_at(net: nn.Module, batch: Batch, adversarial_BCHW: torch.Tensor, params: Params) -> torch.Tensor:
    """Weighted mean of squared distances between probabilities."""
    adversarial_BK = net(adversarial_BCHW).float().softmax(1)
    classes = adversarial_BK.shape[1]
    wanted_BK = F.one_hot(batch.labels_B, classes) * (1 - params.smoothing) + params.smoothing / classes
    if params.beta is None:
        return weighted_mean((adversarial_BK - wanted_BK).square().sum(1), batch.weights_B)
    clean_BK = net(batch.images_BCHW).float().softmax(1)
    first_B, apart_B = (clean_BK - wanted_BK).square().sum(1), (clean_BK - adversarial_BK).square().sum(1)
    return weighted_mean(first_B + params.beta * apart_B, batch.weights_B)
