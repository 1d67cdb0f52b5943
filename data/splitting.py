"""The set's training part → train, pool and validation: seeded, stratified by class."""

from __future__ import annotations

import torch

from data.shards import Images


def split_train(images: Images, *, pool: int, validation: int, limit: int | None, seed: int) -> dict[str, Images]:
    """The parts of `split_rows`, as images."""
    rows = split_rows(images, pool=pool, validation=validation, limit=limit, seed=seed)
    return {name: images.take(part) for name, part in rows.items()}


def split_rows(images: Images, *, pool: int, validation: int, limit: int | None, seed: int) -> dict[str, torch.Tensor]:
    """Cut `images` (at most `limit` of them, a stratified choice) into `train`, `pool` and `validation`: their rows.

    Every class gets its share of each part. ValueError if there is one class only, a class without images, or too few
    images for the parts.
    """
    k = len(images.classes)
    if k < 2:
        raise ValueError(f"at least two classes are wanted, got {k}: {', '.join(images.classes) or 'none'}")
    counts = torch.bincount(images.labels_N, minlength=k)
    if int(counts.min()) == 0:
        missing = [images.classes[i] for i in (counts == 0).nonzero().flatten().tolist()]
        raise ValueError(f"every class needs training images, none of {', '.join(missing[:5])} was found")
    n = len(images) if limit is None else min(limit, len(images))
    if n - pool - validation < k:
        raise ValueError(
            f"{n} training images cannot give {pool} to the pool and {validation} to validation and leave one of each "
            f"of the {k} classes to train on; lower data.pool or data.validation, or raise data.limit"
        )
    order = _stratified(images.labels_N, seed)
    parts = {"pool": order[:pool], "validation": order[pool : pool + validation], "train": order[pool + validation : n]}
    left = torch.bincount(images.labels_N[parts["train"]], minlength=k)
    if int(left.min()) == 0:
        lost = [images.classes[i] for i in (left == 0).nonzero().flatten().tolist()]
        raise ValueError(
            f"no image of {', '.join(lost[:5])} would be left to train on; lower data.pool or data.validation, "
            "or bring more images of it"
        )
    return {name: part.sort().values for name, part in parts.items()}


def _stratified(labels_N: torch.Tensor, seed: int) -> torch.Tensor:
    """An order of the images in which every stretch holds the classes in about their shares."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels_N), generator=generator)
    place = torch.empty(len(labels_N), dtype=torch.float64)
    for label in labels_N.unique():
        own = shuffled[labels_N[shuffled] == label]
        place[own] = (torch.arange(len(own), dtype=torch.float64) + 0.5) / len(own)
    return shuffled[place[shuffled].argsort(stable=True)]
