"""nsl_cnn behind a fixed stretch of contrast, for images of ink on paper such as MNIST's and L∞ radii up to 0.3.

Adversarially trained networks learn by themselves, at great cost, to threshold such images in their first layer (Madry
et al., arXiv:1706.06083, appendix C). Here it is there from the start: pixels below 0.3 become black, those above 0.7
white. A plain cut has no gradient, and that only hides a network from PGD: trained with one, and with bounds that were
learned, Square broke what PGD had left standing. So the bounds are fixed, and the gradient passes the cut as if it were
not there, for training and for whoever attacks.
"""

from __future__ import annotations

import torch
from torch import nn

from models import nsl_cnn

LOW, HIGH = 0.3, 0.7  # pixels in [0, 1] that become black and white


class Stretch(nn.Module):
    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        stretched_BCHW = (images_BCHW - LOW) / (HIGH - LOW)
        return stretched_BCHW + (stretched_BCHW.clamp(0, 1) - stretched_BCHW).detach()


def build(num_classes: int, channels: int, size: int) -> nn.Module:
    """N×channels×size×size pixels in [0, 1] → N×num_classes logits. ValueError for less than 8 pixels."""
    return nn.Sequential(Stretch(), nsl_cnn.build(num_classes, channels, size))
