"""ResNet-34 (He et al., arXiv:1512.03385), 21.28 million weights with ten classes at 32×32.

Up to 64 pixels the stem is a 3×3 convolution without pooling, as is usual on CIFAR; above, ImageNet's. Shortcuts that
change the shape are 1×1 convolutions with batch norm. Normalization is inside, see models/_resnet.py.
"""

from __future__ import annotations

from torch import nn
from torchvision.models import resnet34

from models._resnet import basic


def build(num_classes: int, channels: int, size: int) -> nn.Module:
    """N×channels×size×size pixels in [0, 1] → N×num_classes logits. ValueError for less than 8 pixels."""
    return basic(resnet34, "resnet34", num_classes, channels, size)
