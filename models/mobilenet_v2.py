"""MobileNetV2 (Sandler et al., arXiv:1801.04381), torchvision's.

Random weights, or trained ones by `model.weights`. Normalization inside: ImageNet's; a grey channel is repeated to
three. Up to 64 pixels its first two halvings of the image are left out, see models/_blocks.py.
"""

from __future__ import annotations

from torch import nn
from torchvision.models import mobilenet_v2

from models._blocks import from_torchvision


def build(num_classes: int, channels: int, size: int) -> nn.Module:
    """N×channels×size×size pixels in [0, 1] → N×num_classes logits. ValueError for less than 8 pixels."""
    return from_torchvision(mobilenet_v2, "mobilenet_v2", num_classes, channels, size)
