"""One step's images with their labels and their weights in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """Images of one training step. Pixels in [0, 1], fp32; labels int64; weights fp32, 1 for an ordinary image."""

    images_BCHW: torch.Tensor
    labels_B: torch.Tensor
    weights_B: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels_B)

    def part(self, index: slice) -> Batch:
        """Some of the images, in the same order."""
        return Batch(self.images_BCHW[index], self.labels_B[index], self.weights_B[index])
