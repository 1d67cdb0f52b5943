"""Auto-PGD on the targeted difference-of-logits ratio (arXiv:2003.01690), towards the likeliest wrong classes in turn.

    DLR_t = −(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2),    π the classes from the highest logit down

It does not change when all logits are scaled, so a network that is merely very sure does not hide from it. Under four
classes there is no fourth logit, and the difference z_t − z_y is climbed instead. What else differs stands in
tasks/attacks/_apgd.py.
"""

from __future__ import annotations

import torch
from torch import nn

from tasks.attacks._apgd import ascend
from tasks.config.params import Count, Frozen, Threat

LEAST = 1e-12  # of the denominator


class Params(Frozen):
    steps: Count = 100
    targets: Count = 9  # wrong classes tried, the likeliest first; all of them where there are fewer
    restarts: Count = 1


def passes(params: Params) -> float:
    """Gradients of an image, at most."""
    return (params.steps + 1) * params.targets * params.restarts


def perturb(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    threat: Threat,
    params: Params,
    generator: torch.Generator,
) -> torch.Tensor:
    """B×C×H×W pixels in [0, 1] → as many, within the threat model."""
    with torch.no_grad():
        logits_BK = net(images_BCHW).float()
        likely_BK = logits_BK.scatter(1, labels_B[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    found_BCHW = images_BCHW.clone()
    standing = torch.arange(len(labels_B), device=labels_B.device)
    for rank in range(min(params.targets, logits_BK.shape[1] - 1)):
        towards_B = likely_BK[standing, rank]
        labels_S, images_SCHW = labels_B[standing], images_BCHW[standing]
        tried_SCHW = ascend(net, images_SCHW, labels_S, towards_B, _rise, threat, params.steps, generator)
        found_BCHW[standing] = tried_SCHW
        with torch.no_grad():
            standing = standing[net(tried_SCHW).argmax(1) == labels_S]
        if len(standing) == 0:
            break
    return found_BCHW


def _rise(logits_BK: torch.Tensor, labels_B: torch.Tensor, towards_B: torch.Tensor) -> torch.Tensor:
    apart_B = (logits_BK.gather(1, towards_B[:, None]) - logits_BK.gather(1, labels_B[:, None]))[:, 0]
    if logits_BK.shape[1] < 4:
        return apart_B
    highest_BK, _ = logits_BK.sort(1, descending=True)
    return apart_B / (highest_BK[:, 0] - (highest_BK[:, 2] + highest_BK[:, 3]) / 2).clamp_min(LEAST)
