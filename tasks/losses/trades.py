"""TRADES (Zhang et al., arXiv:1901.08573).

    L = CE(x) + beta · KL(p(x) ‖ p(x′)),    x′ = PGD up that KL within the ball, from x + 0.001 · N(0, 1)

Differs: the KL is worked out of log-probabilities and never below 0, which keeps it from becoming NaN; images have
weights; under L2 the steps have unit length, as in `pgd`, instead of an optimizer's. As in the authors' code x′ is made
in eval mode, and both passes of the loss are in training mode.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from tasks.attacks._fast import stepping
from tasks.checkpoint import evaluating
from tasks.losses import Inner, check_inner, climb, divergence, weighted_cross_entropy, weighted_mean
from tasks.params import Threat

START = 0.001  # standard deviation of the first move; at x itself the KL has no gradient


class Params(Inner):
    beta: float = Field(default=6.0, ge=0)  # the paper's 1/λ; 6 on CIFAR-10, 1 on MNIST


def check(params: Params, threat: Threat) -> None:
    """ValueError for a radius or steps that make no sense."""
    check_inner("trades", params, threat)


def adversarial(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    params: Params,
    threat: Threat,
    generator: torch.Generator,
) -> torch.Tensor:
    """B×C×H×W images within the ball whose answer is far from the clean one's; no gradient. Labels play no part."""
    with evaluating(net), torch.no_grad():
        clean_BK = stepping(net, images_BCHW)(images_BCHW).float()
    noise_BCHW = torch.randn(images_BCHW.shape, generator=generator, device=generator.device).to(images_BCHW)
    start_BCHW = images_BCHW + START * noise_BCHW

    def rise(logits_bK: torch.Tensor, part: slice) -> torch.Tensor:
        return divergence(clean_BK[part], logits_bK)

    return climb(net, start_BCHW, images_BCHW, params, threat, rise)


def loss_at(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    adversarial_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    weights_B: torch.Tensor,
    params: Params,
) -> torch.Tensor:
    """The clean images' cross-entropy and beta times the divergence, both weighted means."""
    clean_BK = net(images_BCHW)
    apart = weighted_mean(divergence(clean_BK, net(adversarial_BCHW)), weights_B)
    return weighted_cross_entropy(clean_BK, labels_B, weights_B) + params.beta * apart


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
