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

from tasks.config.params import Threat
from tasks.losses import Inner, adversarial, check_inner, weighted_mean


class Params(Inner):
    smoothing: float = Field(default=0.1, ge=0, lt=1)  # share of the label that is spread over all classes
    beta: float | None = Field(default=None, ge=0)  # null: one term, on x′; else TRADES' two terms


def check(params: Params, threat: Threat) -> None:
    """ValueError for a radius or steps that make no sense."""
    check_inner("score", params, threat)


def loss_at(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    adversarial_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    weights_B: torch.Tensor,
    params: Params,
) -> torch.Tensor:
    """Weighted mean of squared distances between probabilities."""
    adversarial_BK = net(adversarial_BCHW).float().softmax(1)
    classes = adversarial_BK.shape[1]
    wanted_BK = F.one_hot(labels_B, classes) * (1 - params.smoothing) + params.smoothing / classes
    if params.beta is None:
        return weighted_mean((adversarial_BK - wanted_BK).square().sum(1), weights_B)
    clean_BK = net(images_BCHW).float().softmax(1)
    first_B, apart_B = (clean_BK - wanted_BK).square().sum(1), (clean_BK - adversarial_BK).square().sum(1)
    return weighted_mean(first_B + params.beta * apart_B, weights_B)


def loss(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    weights_B: torch.Tensor,
    params: Params,
    threat: Threat,
    generator: torch.Generator,
) -> torch.Tensor:
    """A scalar for one `backward`; the adversarial images are made on the weights as they are."""
    check(params, threat)
    adversarial_BCHW = adversarial(net, images_BCHW, labels_B, params, threat, generator)
    return loss_at(net, images_BCHW, adversarial_BCHW, labels_B, weights_B, params)
