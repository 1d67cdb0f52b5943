"""ResNeXt-50, 32 groups of 4 (Xie et al., arXiv:1611.05431), torchvision's.

Random weights, or trained ones by `model.weights`. Normalization inside: ImageNet's; a grey channel is repeated to
three. Up to 64 pixels its first two halvings of the image are left out, see models/_blocks.py.
"""

from __future__ import annotations

from torch import nn
from torchvision.models import resnext50_32x4d

from models._blocks import from_torchvision


def build(num_classes: int, channels: int, size: int) -> nn.Module:
    """N×channels×size×size pixels in [0, 1] → N×num_classes logits. ValueError for less than 8 pixels."""
    return from_torchvision(resnext50_32x4d, "resnext50", num_classes, channels, size)
