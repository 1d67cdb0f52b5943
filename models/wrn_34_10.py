"""WRN-34-10, a wide residual network (Zagoruyko & Komodakis, arXiv:1605.07146): 34 layers, ten times as wide.

46.16 million weights with ten classes and three channels. Blocks activate before they convolve; no dropout.
Normalization inside: CIFAR-10's for three channels, MNIST's for one. It shrinks the image by 4 whatever its size, so
memory and time grow with the square of the size.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from models._blocks import CIFAR10, MNIST, Normalized, check

DEPTH, WIDTH = 34, 10


class Block(nn.Module):
    """Twice batch norm, ReLU, 3×3 convolution; a 1×1 convolution as the shortcut where the shape changes."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        same = inside == outside and stride == 1
        self.shortcut = None if same else nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        active_BCHW = F.relu(self.bn1(maps_BCHW))
        kept_BCHW = maps_BCHW if self.shortcut is None else self.shortcut(active_BCHW)
        added_BCHW: torch.Tensor = self.conv2(F.relu(self.bn2(self.conv1(active_BCHW))))
        return kept_BCHW + added_BCHW


def network(num_classes: int, channels: int, depth: int, width: int) -> nn.Sequential:
    """Three stages of (depth − 4) / 6 blocks with 16, 32 and 64 times `width` channels."""
    blocks, rest = divmod(depth - 4, 6)
    if rest:
        raise ValueError(f"a wide residual network has 6n + 4 layers, got {depth}")
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    inside = 16
    for stage, base in enumerate((16, 32, 64)):
        for block in range(blocks):
            layers.append(Block(inside, base * width, 2 if stage > 0 and block == 0 else 1))
            inside = base * width
    layers += [nn.BatchNorm2d(inside), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, num_classes)]
    for layer in nn.Sequential(*layers).modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def build(num_classes: int, channels: int, size: int) -> nn.Module:
    """N×channels×size×size pixels in [0, 1] → N×num_classes logits. ValueError for less than 8 pixels."""
    check("wrn_34_10", channels, size)
    return Normalized(network(num_classes, channels, DEPTH, WIDTH), MNIST if channels == 1 else CIFAR10)
