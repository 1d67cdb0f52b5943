"""What a network is trained on: the images of the base split and verified candidates, each with a weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from data.records import Candidate
from data.shards import Images, candidate_images
from tasks.config.params import TrainCandidates


@dataclass(frozen=True)
class TrainingSet:
    """Images with a weight each in the loss; an image that an epoch shows several times stands in `order` as often.

    base_NCHW: uint8, of the base split, which may be larger than memory; added_MCHW: uint8, of the candidates;
    labels: int64 N+M; weights: float32 N+M; order: indices into both together.
    """

    base_NCHW: torch.Tensor
    added_MCHW: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    order: torch.Tensor

    def pixels(self, index_B: torch.Tensor) -> torch.Tensor:
        """The images at these indices, uint8 B×C×H×W."""
        n = len(self.base_NCHW)
        if len(self.added_MCHW) == 0:
            return self.base_NCHW.index_select(0, index_B)
        pixels_BCHW = self.base_NCHW.new_empty(len(index_B), *self.base_NCHW.shape[1:])
        of_base_B = index_B < n
        pixels_BCHW[of_base_B] = self.base_NCHW[index_B[of_base_B]]
        pixels_BCHW[~of_base_B] = self.added_MCHW[index_B[~of_base_B] - n]
        return pixels_BCHW


def training_set(base: Images, candidates: Iterable[Candidate], choices: TrainCandidates) -> TrainingSet:
    """The base split, and the candidates of its `train` part that are verified and fooling (or just verified).

    ValueError if the candidates' images have another shape than the base split's.
    """
    chosen = [c for c in candidates if c.split == "train" and c.verified and (c.fooling or choices.non_fooling)]
    n = len(base)
    if not chosen or choices.weight == 0:
        return TrainingSet(base.pixels_NCHW, base.pixels_NCHW[:0], base.labels_N, torch.ones(n), torch.arange(n))
    added = candidate_images(chosen, base.channels, base.classes)
    if added.pixels_NCHW.shape[1:] != base.pixels_NCHW.shape[1:]:
        expected, got = tuple(base.pixels_NCHW.shape[1:]), tuple(added.pixels_NCHW.shape[1:])
        raise ValueError(f"candidates must be images of {expected} (channels, height, width), got {got}")
    m = len(added)
    return TrainingSet(
        base.pixels_NCHW,
        added.pixels_NCHW,
        torch.cat([base.labels_N, added.labels_N]),
        torch.cat([torch.ones(n), torch.full((m,), choices.weight)]),
        torch.cat([torch.arange(n), torch.arange(n, n + m).repeat(choices.repeat)]),
    )
