"""What is wrong with a data set before it is frozen: copies between its parts, few or unlike images. A line each.

Copies are sought among the pixels that the network will see: equal ones, and near ones, such as a photo that was saved
again. Near is measured as tasks/quality/duplicates.py does, without shifts and more strictly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch

from data.shards import Images

FEW = 10  # training images of a class below which it is named
UNEVEN = 5.0  # times as many images as the smallest class has, from which the largest is named
NEAR = 0.998  # cosine from which two images are near-duplicates
CELLS = 28  # a side, at most, of the grey images that are compared
MOST_PAIRS = 5 * 10**7  # pairs of images compared for near-duplicates; of larger sets only copies are sought
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey (ITU-R BT.601), which JPEG keeps best
BLOCK = 1024  # images held in memory at once
NAMED = 5


def faults_of(train: Images, test: Images, others: Mapping[str, Images]) -> list[str]:
    """A line for everything that would mislead somebody about the campaign's figures; empty if there is nothing.

    train: the whole training part, from which validation images and the pool are taken; others: `evaluate.sets`.
    """
    first = _first_of_each(train)
    lines = _inside(train, first)
    for name, images in {"test": test, **others}.items():
        lines += _shared(train, first, name, images)
    return lines + _classes(train) + _appearance(train)


def _inside(train: Images, first: Mapping[bytes, int]) -> list[str]:
    """Copies within the training part, which validation and the pool are taken from."""
    again = [(i, first[digest]) for i, digest in enumerate(_digests(train)) if first[digest] != i]
    other_class = [(i, j) for i, j in again if train.labels_N[i] != train.labels_N[j]]
    lines = []
    if other_class:
        lines.append(
            f"{len(other_class)} training images stand in two classes, first {_pair(train, train, other_class[0])}: "
            "one of the two labels is wrong"
        )
    if len(again) > len(other_class):
        pair = next(pair for pair in again if pair not in other_class)
        lines.append(
            f"{len(again) - len(other_class)} training images are copies of others, first {_pair(train, train, pair)}: "
            "validation images and the pool are taken out of the same images; remove the copies"
        )
    return lines


def _shared(train: Images, first: Mapping[bytes, int], name: str, images: Images) -> list[str]:
    """Images of another part that are training images too, the same or nearly so."""
    copies = {i: first[digest] for i, digest in enumerate(_digests(images)) if digest in first}
    lines = []
    if copies:
        lines.append(
            f"{len(copies)} of {len(images)} {name} images are training images too, first "
            f"{_pair(images, train, next(iter(copies.items())))}: what is measured on them says nothing; remove them"
        )
    near = {i: j for i, j in _near(train, images) if i not in copies}
    if near:
        lines.append(
            f"{len(near)} of {len(images)} {name} images are nearly the same as a training image, first "
            f"{_pair(images, train, next(iter(near.items())))}: look at them"
        )
    return lines


def _classes(train: Images) -> list[str]:
    counts: list[int] = train.labels_N.bincount(minlength=len(train.classes)).tolist()
    few = [f"{name} ({count})" for name, count in zip(train.classes, counts, strict=True) if count < FEW]
    lines = []
    if few:
        more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
        lines.append(f"fewer than {FEW} training images: {', '.join(few[:NAMED])}{more}; bring more of them")
    least, most = counts.index(min(counts)), counts.index(max(counts))
    if counts[most] > UNEVEN * counts[least]:
        lines.append(
            f"{train.classes[most]} has {counts[most]} training images and {train.classes[least]} {counts[least]}, "
            f"more than {UNEVEN:g} to 1: an accuracy over all images says little about the small class"
        )
    return lines


def _appearance(train: Images) -> list[str]:
    """Images of one even colour, and grey ones among colour."""
    even_N = torch.cat([block.flatten(1).amax(1) == block.flatten(1).amin(1) for block in _blocks(train)])
    lines = [_counted(train, even_N, "are of one even colour")] if even_N.any() else []
    if train.channels == 3:
        grey_N = torch.cat([(block == block[:, :1]).flatten(1).all(1) for block in _blocks(train)]) & ~even_N
        if grey_N.any() and not (grey_N | even_N).all():
            lines.append(_counted(train, grey_N, "are grey, among colour ones"))
    return lines


def _counted(train: Images, which_N: torch.Tensor, what: str) -> str:
    return (
        f"{int(which_N.sum())} of {len(train)} training images {what}, first {train.keys[int(which_N.int().argmax())]}"
    )


def _first_of_each(images: Images) -> dict[bytes, int]:
    """Digest → the first image that has it."""
    first: dict[bytes, int] = {}
    for i, digest in enumerate(_digests(images)):
        first.setdefault(digest, i)
    return first


def _digests(images: Images) -> Iterator[bytes]:
    for block in _blocks(images):
        for pixels in block:
            yield hashlib.blake2b(pixels.contiguous().numpy().tobytes(), digest_size=16).digest()


def _near(train: Images, images: Images) -> Iterator[tuple[int, int]]:
    """Each of `images` that is near a training image, with the nearest one."""
    if len(train) * len(images) > MOST_PAIRS:
        return
    known_NG = torch.cat([_small(block) for block in _blocks(train)])
    for start, block in enumerate(_blocks(images)):
        nearest = (_small(block) @ known_NG.T).max(1)
        for row in (nearest.values >= NEAR).nonzero().flatten().tolist():
            yield start * BLOCK + row, int(nearest.indices[row])


def _small(pixels_NCHW: torch.Tensor) -> torch.Tensor:
    """Grey, averaged over cells, of mean 0 and length 1; an even image is all 0, like nothing. N×cells²."""
    weights = torch.tensor(LUMA if pixels_NCHW.shape[1] == 3 else (1.0,))
    grey_NHW = torch.einsum("nchw,c->nhw", pixels_NCHW.float(), weights)
    cells = min(CELLS, *grey_NHW.shape[1:])
    small_NG = torch.nn.functional.adaptive_avg_pool2d(grey_NHW, cells).flatten(1)
    centred_NG = small_NG - small_NG.mean(1, keepdim=True)
    lengths: torch.Tensor = torch.linalg.vector_norm(centred_NG, dim=1, keepdim=True)
    return (centred_NG / lengths.clamp(min=1e-6)).float()


def _blocks(images: Images) -> Iterator[torch.Tensor]:
    for start in range(0, len(images), BLOCK):
        yield images.pixels_NCHW[start : start + BLOCK]


def _pair(left: Images, right: Images, pair: tuple[int, int]) -> str:
    return f"{left.keys[pair[0]]} = {right.keys[pair[1]]}"
