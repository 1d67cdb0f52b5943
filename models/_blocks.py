"""What the networks share: normalization on the inside, and torchvision's networks fitted to small images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

SMALL = 64  # pixels; up to here a network's stem does not shrink the image
SMALLEST = 8  # pixels; the stages after the stem shrink by 8
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of a colour's pixels
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
MNIST = ((0.1307,), (0.3081,))


class Normalized(nn.Module):
    """Pixels in [0, 1] → normalized → a network's logits.

    A network that takes more channels than the images have sees the grey channel in each of them.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: nn.Module, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        super().__init__()
        self.network = network
        for name, values in zip(("mean", "deviation"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        # A grey image against three means broadcasts to three channels.
        logits_BK: torch.Tensor = self.network((images_BCHW - self.mean) / self.deviation)
        return logits_BK


def from_torchvision(
    make: Callable[..., nn.Module], name: str, num_classes: int, channels: int, size: int
) -> Normalized:
    """One of torchvision's networks with random weights, ImageNet's normalization and three channels inside.

    Every one of them shrinks the image by 32, the first two times by 2 in its stem. Up to 64 pixels these two are
    left out, as is usual on CIFAR: the total is 8, and no weight changes its shape, so trained weights fit any size.
    """
    check(name, channels, size)
    network = make(weights=None, num_classes=num_classes)
    if size <= SMALL:
        keep_size(network)
    return Normalized(network, IMAGENET)


def keep_size(network: nn.Module) -> None:
    """Take the shrinking out of the first two layers that shrink, a convolution's stride or a pooling."""
    shrinking = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d) and layer.stride in (2, (2, 2))
    ]
    for name, layer in shrinking[:2]:
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        else:
            network.set_submodule(name, nn.Identity())


def check(name: str, channels: int, size: int) -> None:
    """ValueError for images that the network `name` cannot take."""
    if channels not in (1, 3):
        raise ValueError(f"{name} takes images of 1 or 3 channels, got {channels}; set data.channels in params.yaml")
    if size < SMALLEST:
        raise ValueError(f"{name} needs images of at least {SMALLEST} pixels, got {size}; set data.size in params.yaml")
