"""Clean accuracy and quick PGD accuracy on validation: what a training keeps its best epoch by."""

from __future__ import annotations

import torch
from torch import nn

from data.shards import Images
from tasks.attacks import attack, pgd
from tasks.config.params import Threat
from tasks.config.seeds import derive
from tasks.engine import inference
from tasks.engine.devices import ONE_PROCESS, Compute

IMAGES = 256  # of validation, at most, that PGD is tried on
STEPS = 10


def clean_and_robust(
    net: nn.Module, validation: Images, compute: Compute = ONE_PROCESS, *, threat: Threat, seed: int
) -> tuple[float, float]:
    """Accuracy on all of validation, and under PGD on some of it, as shares; leaves the network in eval mode.

    seed: the campaign's; the same one takes the same images and starts, after every epoch and in every round.
    """
    net.eval()
    draws = torch.Generator().manual_seed(derive(seed, "train", "quick"))
    attacked = torch.randperm(len(validation), generator=draws)[:IMAGES]
    all_here, attacked_here = compute.shard(torch.arange(len(validation))), compute.shard(attacked)
    answers_N, _ = inference.answer(net, validation.pixels_NCHW[all_here])
    right_N = compute.all_gather(answers_N == validation.labels_N[all_here], len(validation))
    images_NCHW = inference.to_float(validation.pixels_NCHW[attacked_here])
    labels_N = validation.labels_N[attacked_here]
    params = pgd.Params(steps=STEPS, drop=True)
    made = attack(pgd, net, images_NCHW, labels_N, threat, params, derive(seed, "train", "quick"))
    stands_N = compute.all_gather(made.answers == labels_N, len(attacked))
    return right_N.float().mean().item(), stands_N.float().mean().item()
