"""The target's own answer to every candidate: the frozen network, run again on the image as it is stored.

Nothing that a browser or the model server said counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.records import Candidate

if TYPE_CHECKING:
    from data.shards import Images


def judge(candidates: Sequence[Candidate], target: Path) -> list[Candidate]:
    """Answer and probability of each well-formed candidate, in fp32. target: the frozen network's checkpoint."""
    import torch

    from data.shards import decode_png
    from tasks.engine import checkpoint, inference

    net, card = checkpoint.load(target)
    sound = [c for c in candidates if c.wellformed]
    if not sound:
        return list(candidates)
    pixels_NCHW = torch.stack([decode_png(c.image, card.channels) for c in sound])
    if pixels_NCHW.shape[-1] != card.size:
        raise ValueError(f"expected candidates of {card.size} pixels, as {target} takes, got {pixels_NCHW.shape}")
    answers_N, probabilities_NK = inference.answer(net, pixels_NCHW)
    judged = {
        c.key: replace(c, answer=int(answer), probability=float(probabilities_K[answer]))
        for c, answer, probabilities_K in zip(sound, answers_N, probabilities_NK, strict=True)
    }
    return [judged.get(c.key, c) for c in candidates]


def rightly_classified(seeds: Images, target: Path) -> list[str]:
    """Keys of the seed images that the target answers rightly: an attack's success is a share of those."""
    from tasks.engine import checkpoint, inference

    net, _ = checkpoint.load(target)
    answers_N, _ = inference.answer(net, seeds.pixels_NCHW)
    return [key for key, right in zip(seeds.keys, (answers_N == seeds.labels_N).tolist(), strict=True) if right]
