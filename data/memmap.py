"""Pixels that lie in a file and are read as they are wanted: what the operating system keeps of them is its own affair.

A tensor over a file is a tensor like any other, with the same bytes, and takes no memory of the process.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def scratch(folder: Path) -> Iterator[None]:
    """Within it, `room` is made in this folder; else where the system has its temporary files."""
    folder.mkdir(parents=True, exist_ok=True)
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def room(*shape: int) -> torch.Tensor:
    """A uint8 tensor of zeros over a file without a name, which is gone with the tensor."""
    if 0 in shape:
        return torch.zeros(shape, dtype=torch.uint8)
    with tempfile.TemporaryFile(dir=_folder.get()) as file:
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))


def mapped(path: Path, *shape: int) -> torch.Tensor:
    """The uint8 tensor whose bytes a file holds. It must not be written to. ValueError for a file of another length."""
    wanted, got = int(np.prod(shape)), path.stat().st_size
    if wanted != got:
        raise ValueError(f"{path} must hold {wanted} bytes, got {got}; remove it, it is made anew")
    if wanted == 0:
        return torch.zeros(shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch has no read-only tensors, and says so
        return torch.from_numpy(np.memmap(path, np.uint8, "r", shape=shape))
