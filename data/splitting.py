"""The set's training part → train, pool, validation and gate: seeded, stratified by class."""

from __future__ import annotations

import torch

from data.shards import Images


def split_train(
    images: Images, *, pool: int, validation: int, limit: int | None, seed: int, gate: int = 0
) -> dict[str, Images]:
    """The parts of `split_rows`, as images."""
    rows = split_rows(images, pool=pool, validation=validation, gate=gate, limit=limit, seed=seed)
    return {name: images.take(part) for name, part in rows.items()}


def split_rows(
    images: Images, *, pool: int, validation: int, limit: int | None, seed: int, gate: int = 0
) -> dict[str, torch.Tensor]:
    """Cut `images` (at most `limit` of them, a stratified choice) into `train`, `pool`, `validation` and, if any are
    asked for, `gate`: their rows.

    Every class gets its share of each part. ValueError if there is one class only, a class without images, or too few
    images for the parts.
    """
    k = len(images.classes)
    if k < 2:
        raise ValueError(f"expected at least two classes, got {k}: {', '.join(images.classes) or 'none'}")
    counts = torch.bincount(images.labels_N, minlength=k)
    if int(counts.min()) == 0:
        missing = [images.classes[i] for i in (counts == 0).nonzero().flatten().tolist()]
        raise ValueError(f"every class needs training images, none of {', '.join(missing[:5])} was found")
    n = len(images) if limit is None else min(limit, len(images))
    if n - pool - validation - gate < k:
        to_gate = f", {validation} to validation and {gate} to the gate" if gate else f" and {validation} to validation"
        raise ValueError(
            f"{n} training images cannot give {pool} to the pool{to_gate} and leave one of each "
            f"of the {k} classes to train on; lower data.pool, data.validation or data.gate, or raise data.limit"
        )
    order = _stratified(images.labels_N, seed)
    sizes = {"pool": pool, "validation": validation, "gate": gate, "train": n - pool - validation - gate}
    parts = dict(zip(sizes, order[:n].split(list(sizes.values())), strict=True))
    if gate == 0:
        del parts["gate"]
    left = torch.bincount(images.labels_N[parts["train"]], minlength=k)
    if int(left.min()) == 0:
        lost = [images.classes[i] for i in (left == 0).nonzero().flatten().tolist()]
        raise ValueError(
            f"no image of {', '.join(lost[:5])} would be left to train on; lower data.pool, data.validation or "
            "data.gate, or bring more images of it"
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
