"""The network that people attack now, as the model server and the page of the players ask it.

It answers quickly and binds nothing: what counts is judged later, on the frozen target.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from data.layout import Round, Workspace
from tasks.engine import checkpoint, inference
from tasks.workspace.rounds import read_index


@dataclass(frozen=True)
class Answer:
    """The target's answer to one image."""

    answer: int  # class index
    class_: str
    probability: float  # of the answer
    probabilities: tuple[float, ...]
    round: int  # that trained the target

    def __str__(self) -> str:
        return f"Model says {self.class_} ({self.probability:.0%})"


class Target:
    """The network that is attacked now; read again when it is another."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()  # of what is loaded
        self._use = threading.Lock()  # of the network
        self._loaded: tuple[tuple[Path, int, int], nn.Module, checkpoint.Card] | None = None

    def get(self) -> tuple[nn.Module, checkpoint.Card]:
        """Network and card. FileNotFoundError with what to do if there is none yet."""
        path = current(self._workspace)
        if path is None:
            raise FileNotFoundError("no round has a network yet; `dadc open` trains the first")
        stat = path.stat()
        name = (path, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if self._loaded is None or self._loaded[0] != name:
                self._loaded = (name, *checkpoint.load(path))
            return self._loaded[1:]

    @contextmanager
    def alone(self, pixels_CHW: torch.Tensor) -> Iterator[tuple[nn.Module, checkpoint.Card]]:
        """Network and card for one thread, which may hang hooks on it. ValueError if it sees images of another kind."""
        net, card = self.get()
        wanted = (card.channels, card.size, card.size)
        if tuple(pixels_CHW.shape) != wanted:
            raise ValueError(f"expected an image of {wanted}, got {tuple(pixels_CHW.shape)}")
        with self._use:
            yield net, card

    def answer(self, pixels_CHW: torch.Tensor) -> Answer:
        """Its answer to an image of its own size and channels. ValueError for another."""
        with self.alone(pixels_CHW) as (net, card):
            answers_N, probabilities_NK = inference.answer(net, pixels_CHW[None])
        chosen, probabilities = int(answers_N[0]), tuple(float(p) for p in probabilities_NK[0])
        return Answer(chosen, card.classes[chosen], probabilities[chosen], probabilities, card.round)


def current(workspace: Workspace) -> Path | None:
    """The target of the last round that collects, else the last network that there is."""
    index = read_index(workspace)
    targets = [workspace.root / entry["target"] for _, entry in sorted(index["collected"].items())]
    networks = [workspace.round(int(name)).challenger.model for name in sorted(index["rounds"])]
    there = [path for path in (*networks, *targets) if path.exists()]
    return there[-1] if there else None


def collecting(workspace: Workspace) -> Round | None:
    """The round that people work on: the last that collects, unless it is frozen or given up."""
    names = sorted(read_index(workspace)["collected"])
    round_ = workspace.round(int(names[-1])) if names else None
    return None if round_ is None or round_.lineage.exists() or round_.aborted.exists() else round_
