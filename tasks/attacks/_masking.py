"""Signs of gradient masking, image by image (arXiv:1802.00420, 1902.06705): gradients that mislead the attacks on them.

Each sign is a yes or no for every image that was looked at, under the column's name in predictions.parquet; how many of
them an honest network may show by chance is tasks/evaluation/masking.py's to say. An image stands while the network
answers it, under every attack that follows gradients, with its label.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tasks import attacks
from tasks.attacks import odds_against, pgd, random_start, square, value_and_gradient
from tasks.attacks._battery import CURVE_STEPS
from tasks.config.params import Gradients, Threat
from tasks.config.seeds import derive
from tasks.engine.inference import MICROBATCH, device_of, evaluating, logits_of
from tasks.engine.trial import no_direction

DIFFERENT = 1e-4  # of the largest logit: two forward passes of a deterministic network differ by less, on a GPU too
ROUNDING = 1e-4  # by which probabilities in fp32 may miss a sum of 1


def large_radius(norm: str, pixels: int) -> float:
    """The radius within which every image of so many pixel values can be made grey all over, so that none may stand."""
    return 0.5 if norm == "linf" else 0.5 * math.sqrt(pixels)


def spread(which_N: torch.Tensor, most: int) -> torch.Tensor:
    """Indices of at most so many of the images that are marked True, evenly over their order."""
    index = which_N.nonzero()[:, 0]
    if len(index) <= most:
        return index
    return index[torch.linspace(0, len(index) - 1, most).round().long()]


def gradient_signs(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, threat: Threat, seed: int
) -> dict[str, torch.Tensor]:
    """What the gradients and the outputs at N images look like; bool N each, on the CPU.

    zero_clean, zero_start: the gradient that our attacks climb, of the odds against the label, is 0 in every pixel or
    not finite, at the clean image and at a random point of the ball. zero_cross_entropy: the cross-entropy's is, at the
    clean image. differs: a second forward pass gives other logits. probabilities: the outputs are a distribution.
    images: fp32 N×C×H×W in [0, 1]; labels: int64 N.
    """
    device, parts = device_of(net), []
    generator = torch.Generator().manual_seed(seed)
    with evaluating(net):
        for index in torch.arange(len(labels)).split(MICROBATCH):
            clean, own = images[index].to(device), labels[index].to(device)
            start = random_start(clean, threat.norm, threat.epsilon, generator)

            def cross_entropy(logits: torch.Tensor, part: slice, own: torch.Tensor = own) -> torch.Tensor:
                return functional.cross_entropy(logits, own[part], reduction="none")

            once, again = logits_of(net, clean), logits_of(net, clean)
            room = DIFFERENT * once.abs().amax(1).clamp_min(1)
            parts.append(
                {
                    "zero_clean": no_direction(value_and_gradient(net, clean, odds_against(own))[0]),
                    "zero_start": no_direction(value_and_gradient(net, start, odds_against(own))[0]),
                    "zero_cross_entropy": no_direction(value_and_gradient(net, clean, cross_entropy)[0]),
                    "differs": (once - again).abs().amax(1) > room,
                    "probabilities": (once.amin(1) >= 0) & ((once.sum(1) - 1).abs() < ROUNDING),
                }
            )
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


def black_box_signs(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, threat: Threat, choices: Gradients, seed: int
) -> dict[str, torch.Tensor]:
    """Which of N images that stand fall to what asks for answers only; bool N each, on the CPU.

    fell_square: to Square, of a few queries. fell_random: to any of a few points drawn evenly from the ball.
    """
    own = square.Params(queries=choices.queries)
    found = attacks.attack(square, net, images, labels, threat, own, derive(seed, "square"))
    generator = torch.Generator().manual_seed(derive(seed, "random"))
    fell_N = torch.zeros(len(labels), dtype=torch.bool)
    for _ in range(choices.starts):
        drawn = random_start(images, threat.norm, threat.epsilon, generator)
        fell_N |= answers(net, drawn) != labels
    return {"fell_square": found.answers != labels, "fell_random": fell_N}


def large_radius_sign(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, threat: Threat, seed: int
) -> dict[str, torch.Tensor]:
    """Which of N images fall to PGD at the radius where nothing may stand: fell_large, bool N on the CPU."""
    wide = Threat.model_construct(norm=threat.norm, epsilon=large_radius(threat.norm, images.shape[1:].numel()))
    own = pgd.Params(steps=CURVE_STEPS, drop=True)
    found = attacks.attack(pgd, net, images, labels, wide, own, derive(seed, "large"))
    return {"fell_large": found.answers != labels}


def answers(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Classes for N images in parts that a GPU holds; int64 N on the CPU."""
    parts = [logits_of(net, images[index]).argmax(1).cpu() for index in torch.arange(len(images)).split(256)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
