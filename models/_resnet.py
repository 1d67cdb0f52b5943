"""Residual networks of basic blocks, for resnet18.py and resnet34.py."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models import ResNet

from models._blocks import CIFAR10, IMAGENET, MNIST, SMALL, Normalized, check


def basic(make: Callable[..., ResNet], name: str, num_classes: int, channels: int, size: int) -> Normalized:
    """torchvision's network with a stem for the size: up to 64 pixels a 3×3 convolution and no pooling.

    Normalization: MNIST's for one channel, CIFAR-10's for three up to 64 pixels, ImageNet's above.
    """
    check(name, channels, size)
    network = make(weights=None, num_classes=num_classes)
    if size <= SMALL:
        network.conv1 = _convolution(channels, kernel=3, stride=1)
        network.maxpool = nn.Identity()
    elif channels == 1:
        network.conv1 = _convolution(channels, kernel=7, stride=2)
    colour = CIFAR10 if size <= SMALL else IMAGENET
    return Normalized(network, MNIST if channels == 1 else colour)


def _convolution(channels: int, *, kernel: int, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, 64, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
