"""Whether a robust accuracy of a network would mean anything: one answer for each image, and a gradient to climb.

An attack searches for an image on which the network errs and then asks the network about that image once more. Neither
works where the answer is drawn at random or hangs on the other images of the batch. An attack that follows gradients
finds nothing where they are zero, as behind rounding, and the accuracy that it leaves looks like robustness
(arXiv:1802.00420).
"""

from __future__ import annotations

import torch
from torch import nn

from data.shards import Images
from tasks.engine.inference import channels_last, evaluating

IMAGES = 16  # images that a network is tried on
SAME = 1e-3  # share of the largest logit: answers that differ by less differ by the order of additions
BLIND = 0.5  # share of the images without a gradient from which a network is refused


def sample(images: Images) -> torch.Tensor:
    """The pixels of at most `IMAGES` of these images, evenly over their order: of several classes. uint8 N×C×H×W."""
    n = len(images)
    return images.pixels_NCHW[torch.linspace(0, n - 1, min(n, IMAGES)).round().long()]


def faults(net: nn.Module, images_BCHW: torch.Tensor) -> list[str]:
    """What keeps attacks on a network in eval mode from meaning anything, a line each; empty if nothing does.

    images_BCHW: fp32 in [0, 1], at least two, best real ones: an even image has no gradient in some sound networks.
    """
    images_BCHW = channels_last(images_BCHW)
    with evaluating(net), torch.random.fork_rng(devices=[]):
        with torch.no_grad():
            once_BK, again_BK = net(images_BCHW), net(images_BCHW)
            alone_BK = torch.cat([net(one) for one in images_BCHW.split(1)])
        found = _differing(once_BK, again_BK, alone_BK)
        blind = _without_gradient(net, images_BCHW)
    if blind >= BLIND * len(images_BCHW):
        found.append(
            f"its answer to {blind} of {len(images_BCHW)} images has no gradient: every pixel's is zero or not finite, "
            "and an attack that follows gradients would find nothing and report robustness. Rounding, comparing or a "
            "saturated softmax do this; take it out, or give it a gradient (straight-through)"
        )
    return found


def _differing(once_BK: torch.Tensor, again_BK: torch.Tensor, alone_BK: torch.Tensor) -> list[str]:
    """A line if the answers of one network to the same images differ; where they change from call to call, whether
    they change with the batch cannot be seen."""
    room = SAME * max(1.0, float(once_BK.abs().max()))
    again, alone = float((once_BK - again_BK).abs().max()), float((once_BK - alone_BK).abs().max())
    if not again <= room:  # NaN too
        return [
            f"asked twice about one image it gives different answers: its logits differ by {again:.3g}. Turn off in "
            "eval mode what draws at random, such as dropout"
        ]
    if not alone <= room:
        return [
            f"its answer to an image changes with the other images of the batch: its logits differ by {alone:.3g}. In "
            "eval mode no layer may use the batch's own statistics"
        ]
    return []


def _without_gradient(net: nn.Module, images_BCHW: torch.Tensor) -> int:
    """How many images have no gradient of the largest logit over the mean of all, as attacks climb."""
    images_BCHW = images_BCHW.detach().requires_grad_()
    logits_BK = net(images_BCHW)
    climbed = (logits_BK.amax(1) - logits_BK.mean(1)).sum()
    gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(climbed, images_BCHW, allow_unused=True)
    if (gradient_BCHW := gradients[0]) is None:
        return len(images_BCHW)
    return int(no_direction(gradient_BCHW).sum())


def no_direction(gradient_BCHW: torch.Tensor) -> torch.Tensor:
    """Which images' gradients lead nowhere, 0 in every pixel or not finite; bool B."""
    flat = gradient_BCHW.flatten(1)
    return (flat == 0).all(1) | ~flat.isfinite().all(1)
