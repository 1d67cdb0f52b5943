"""SCORE, self-consistent robust error (Pang et al., arXiv:2202.10103): adversarial training on squared distances.

    L = [Σ over k of (p_k(x′) − q_k)² − clip]₊,    q = (1 − smoothing) · one-hot(y) + smoothing / K

The cross-entropy and the KL of adversarial training give way to a distance, which obeys the triangle inequality, and x′
is PGD's up that same distance. With `beta` it has TRADES' two terms,

    L = [Σ (p_k(x) − q_k)² − clip]₊ + beta · [Σ (p_k(x) − p_k(x′))² − clip]₊

and x′ climbs the second one. Written from the paper. Differs: images have weights; x′ is made in eval mode.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from tasks.attacks import random_start
from tasks.config.params import Threat
from tasks.engine.batch import Batch
from tasks.engine.bf16 import attack_network
from tasks.engine.inference import evaluating
from tasks.losses import Inner, ascend, weighted_mean


class Params(Inner):
    smoothing: float = Field(default=0.1, ge=0, lt=1)  # share of the label that is spread over all classes
    beta: float | None = Field(default=None, ge=0)  # null: one term, on x′; else TRADES' two terms
    clip: float = Field(default=0.0, ge=0)  # squared distance below which an image counts nothing


def adversarial(
    net: nn.Module, batch: Batch, params: Params, threat: Threat, generator: torch.Generator
) -> torch.Tensor:
    """B×C×H×W images within the ball that are as far as PGD gets from the label, or with `beta` from the clean answer;
    from a random start, no gradient."""
    images_BCHW = batch.images_BCHW
    start_BCHW = random_start(images_BCHW, threat.norm, params.radius(threat), generator)
    with evaluating(net), torch.no_grad():
        clean_BK = attack_network(net, images_BCHW)(images_BCHW).float().softmax(1)
    from_BK = clean_BK if params.beta is not None else targets(batch.labels_B, clean_BK.shape[1], params)

    def distance(logits_bK: torch.Tensor, part: slice) -> torch.Tensor:
        return (logits_bK.softmax(1) - from_BK[part]).square().sum(1)

    return ascend(net, start_BCHW, images_BCHW, params, threat, distance)


def targets(labels_B: torch.Tensor, classes: int, params: Params) -> torch.Tensor:
    """What the answers should be, B×K: the label's class with a share spread over all."""
    return F.one_hot(labels_B, classes) * (1 - params.smoothing) + params.smoothing / classes


def loss_at(net: nn.Module, batch: Batch, adversarial_BCHW: torch.Tensor, params: Params) -> torch.Tensor:
    """Weighted mean of squared distances between probabilities."""
    adversarial_BK = net(adversarial_BCHW).float().softmax(1)
    wanted_BK = targets(batch.labels_B, adversarial_BK.shape[1], params)
    if params.beta is None:
        return weighted_mean(_apart(adversarial_BK, wanted_BK, params), batch.weights_B)
    clean_BK = net(batch.images_BCHW).float().softmax(1)
    first_B, second_B = _apart(clean_BK, wanted_BK, params), _apart(clean_BK, adversarial_BK, params)
    return weighted_mean(first_B + params.beta * second_B, batch.weights_B)


def _apart(one_BK: torch.Tensor, other_BK: torch.Tensor, params: Params) -> torch.Tensor:
    return ((one_BK - other_BK).square().sum(1) - params.clip).clamp_min(0)
