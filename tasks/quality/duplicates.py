"""Near-duplicates: drawings that their author submitted more than once, of which only the first earns anything.

Near is measured on what a person would see: both images in grey, averaged over at most 28×28 cells, less their mean; a
cosine of SAME or more at any shift of up to 2/28 of the image, between candidates of one author and one intended class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import product

import torch

from data.records import Candidate
from data.shards import decode_png

SAME = 0.97  # cosine from which two images are near-duplicates
GRID = 28  # cells a side, at most
SHIFT = 2  # in 28ths of a side, each way
BLOCK = 32  # images compared at once with all before them
CACHE_SIZE = 2**14  # authors' drawings of a class of which the near-duplicates are remembered
_CACHE: dict[bytes, tuple[int, ...]] = {}


def duplicates(fools: Iterable[Candidate]) -> set[str]:
    """Keys of the fools of one author that are near-duplicates of an earlier one. A verified one is earlier than one
    that is not, so that nobody loses by having tried before."""
    by_class: dict[int, list[Candidate]] = {}
    for fool in sorted(fools, key=lambda c: (not c.verified, c.at, c.key)):
        by_class.setdefault(fool.intended, []).append(fool)
    return {own[i].key for own in by_class.values() for i in _near_duplicates([fool.image for fool in own])}


def new_fools(candidates: Iterable[Candidate]) -> list[Candidate]:
    """People's fools without near-duplicates of their author's: what places and a round's end go by."""
    by_author: dict[str, list[Candidate]] = {}
    for c in candidates:
        if c.by_people and c.fooling:
            by_author.setdefault(c.annotator, []).append(c)
    again = {account: duplicates(own) for account, own in by_author.items()}
    return [c for account, own in by_author.items() for c in own if c.key not in again[account]]


def is_near_duplicate(image: bytes, earlier: Sequence[bytes]) -> bool:
    """Whether a PNG is a near-duplicate of one of others."""
    return len(earlier) in _compare([*earlier, image])


def _near_duplicates(images: Sequence[bytes]) -> tuple[int, ...]:
    """Which are near-duplicates of an earlier one that is none. A page asks for the same again and again: what was
    found is kept, by the images' digest."""
    if len(images) < 2:
        return ()
    digest = hashlib.sha256(b"".join(hashlib.sha256(image).digest() for image in images)).digest()
    if digest not in _CACHE:
        if len(_CACHE) >= CACHE_SIZE:
            _CACHE.clear()
        _CACHE[digest] = _compare(images)
    return _CACHE[digest]


def _compare(images: Sequence[bytes]) -> tuple[int, ...]:
    again: list[int] = []
    middle_NG = torch.empty(0)
    kept_N = torch.ones(len(images), dtype=torch.bool)
    for start in range(0, len(images), BLOCK):
        shifted_BSG = torch.stack([_at_shifts(image) for image in images[start : start + BLOCK]])
        shifts = shifted_BSG.shape[1]
        middle_NG = torch.cat([middle_NG.view(-1, shifted_BSG.shape[2]), shifted_BSG[:, shifts // 2]])
        alike_BSN = (shifted_BSG.flatten(0, 1) @ middle_NG.T).unflatten(0, (-1, shifts))
        for i, near_N in enumerate(alike_BSN.amax(1) >= SAME, start):
            if bool((near_N[:i] & kept_N[:i]).any()):
                kept_N[i] = False
                again.append(i)
    return tuple(again)


def _at_shifts(image: bytes) -> torch.Tensor:
    """The image at each of its shifts, in the middle as it is: grey, averaged over cells, of mean 0 and length 1; an
    even image is all 0, like nothing."""
    pixels_HW = decode_png(image, 1)[0].double()
    cells = min(GRID, *pixels_HW.shape)
    pixel = max(1, round(max(pixels_HW.shape) / 28))
    steps = [pixel * step for step in range(-SHIFT, SHIFT + 1)]
    all_SHW = torch.stack([torch.roll(pixels_HW, shift, (0, 1)) for shift in product(steps, steps)])
    small_SG = torch.nn.functional.adaptive_avg_pool2d(all_SHW, cells).flatten(1)
    centred_SG: torch.Tensor = small_SG - small_SG.mean(1, keepdim=True)
    length_S1: torch.Tensor = torch.linalg.vector_norm(centred_SG, dim=1, keepdim=True)
    return (centred_SG / length_S1.clamp(min=1e-9)).float()
