"""MART, misclassification-aware adversarial training (Wang et al., ICLR 2020, OpenReview rklOg6EFwS).

    L = BCE(x′) + beta · KL(p(x) ‖ p(x′)) · (1 − p_y(x)),    BCE(x′) = −log p_y(x′) − log(1 − max over k ≠ y of p_k(x′))

x′ is PGD's on the cross-entropy. Written from the paper. Differs: probabilities under a logarithm are kept from 0, the
KL is never below 0; images have weights; x′ is made in eval mode.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from tasks.config.params import Threat
from tasks.losses import Inner, adversarial, check_inner, divergence, weighted_mean

LEAST = 1e-6  # of 1 − a probability under a logarithm


class Params(Inner):
    beta: float = Field(default=5.0, ge=0)  # the paper's λ


def check(params: Params, threat: Threat) -> None:
    """ValueError for a radius or steps that make no sense."""
    check_inner("mart", params, threat)


def loss_at(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    adversarial_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    weights_B: torch.Tensor,
    params: Params,
) -> torch.Tensor:
    """Boosted cross-entropy and the divergence of what is not yet answered rightly, both weighted means."""
    clean_BK, adversarial_BK = net(images_BCHW).float(), net(adversarial_BCHW).float()
    own_B1 = labels_B[:, None]
    wrong_B = adversarial_BK.softmax(1).scatter(1, own_B1, 0).amax(1)
    boosted_B = F.cross_entropy(adversarial_BK, labels_B, reduction="none") - (1 - wrong_B).clamp_min(LEAST).log()
    unsure_B = 1 - clean_BK.softmax(1).gather(1, own_B1)[:, 0]
    return weighted_mean(boosted_B + params.beta * divergence(clean_BK, adversarial_BK) * unsure_B, weights_B)


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
