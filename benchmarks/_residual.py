"""A small residual network with batch norm, for what has to be measured without a GPU: model.name
benchmarks._residual:build."""

from __future__ import annotations

from torch import nn

from models._blocks import CIFAR10, MNIST, Normalized
from models.wrn_34_10 import network

DEPTH, WIDTH = 10, 1


def build(num_classes: int, channels: int, size: int) -> nn.Module:
    """WRN-10-1: three blocks of 16, 32 and 64 channels, 78,000 weights."""
    return Normalized(network(num_classes, channels, DEPTH, WIDTH), MNIST if channels == 1 else CIFAR10)
