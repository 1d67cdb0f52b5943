"""TRADES (Zhang et al., arXiv:1901.08573).

    L = CE(x) + beta · KL(p(x) ‖ p(x′)),    x′ = PGD up that KL within the ball, from x + 0.001 · N(0, 1)

Differs: the KL is worked out of log-probabilities and never below 0, which keeps it from becoming NaN; images have
weights; under L2 the steps have unit length, as in `pgd`, instead of an optimizer's; with bf16 the first step is in
fp32. As in the authors' code x′ is made in eval mode, and both passes of the loss are in training mode.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from models._convolution import in_bf16
from tasks.attacks import Objective
from tasks.config.params import Threat
from tasks.engine.batch import Batch
from tasks.engine.bf16 import attack_network
from tasks.engine.inference import evaluating
from tasks.losses import Inner, ascend, divergence, weighted_cross_entropy, weighted_mean

START = 0.001  # standard deviation of the first move; at x itself the KL has no gradient


class Params(Inner):
    beta: float = Field(default=6.0, ge=0)  # the paper's 1/λ; 6 on CIFAR-10, 1 on MNIST


def adversarial(
    net: nn.Module, batch: Batch, params: Params, threat: Threat, generator: torch.Generator
) -> torch.Tensor:
    """B×C×H×W images within the ball whose answer is far from the clean one's; no gradient. Labels play no part."""
    images_BCHW = batch.images_BCHW
    noise_BCHW = torch.randn(images_BCHW.shape, generator=generator, device=generator.device).to(images_BCHW)
    found_BCHW, step = images_BCHW + START * noise_BCHW, params.step(threat)
    # So close to x answers differ by less than bf16 tells apart, and all steps would go where rounding sent the first.
    turns = ((1, False), (params.steps - 1, True)) if in_bf16(images_BCHW) else ((params.steps, False),)
    for steps, swift in turns:
        some = params.model_copy(update={"steps": steps, "step_size": step})
        with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=swift):
            found_BCHW = ascend(net, found_BCHW, images_BCHW, some, threat, _away(net, images_BCHW))
    return found_BCHW


def _away(net: nn.Module, images_BCHW: torch.Tensor) -> Objective:
    """How far an answer is from the network's answer to the clean image, in eval mode."""
    with evaluating(net), torch.no_grad():
        clean_BK = attack_network(net, images_BCHW)(images_BCHW).float()
    return lambda logits_bK, part: divergence(clean_BK[part], logits_bK)


def loss_at(net: nn.Module, batch: Batch, adversarial_BCHW: torch.Tensor, params: Params) -> torch.Tensor:
    """The clean images' cross-entropy and beta times the divergence, both weighted means."""
    clean_BK = net(batch.images_BCHW)
    apart = weighted_mean(divergence(clean_BK, net(adversarial_BCHW)), batch.weights_B)
    return weighted_cross_entropy(clean_BK, batch.labels_B, batch.weights_B) + params.beta * apart
