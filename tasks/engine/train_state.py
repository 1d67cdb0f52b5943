"""A training's state between two epochs, so that one that was killed goes on and ends with the same bytes.

Safetensors with one line of JSON, git-ignored, of no use to any other training: its identity is a digest of what the
training is made from. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import nn

from data.files import write_whole
from data.layout import Arm

_KEY = "dadc.resume"


@dataclass
class Progress:
    """What a training has come to, epoch by epoch."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    kept: int = 0  # the best epoch, from 1
    score: tuple[float, float, float] = (-1.0, -1.0, -math.inf)  # by which it is the best
    stopped: str = ""  # why it ended early


@dataclass(frozen=True)
class Store:
    """The one file of a training."""

    path: Path
    identity: str

    def write(self, progress: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep the state, whole or not at all. progress: what JSON can hold."""
        metadata = {_KEY: json.dumps({"identity": self.identity, **progress})}
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        write_whole(self.path, safetensors_bytes(plain, metadata=metadata))

    def read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """Progress and tensors of the same training; None where there are none, or another's, or broken ones."""
        try:
            with safe_open(self.path, framework="pt") as file:
                progress = json.loads((file.metadata() or {}).get(_KEY, "{}"))
                if progress.get("identity") != self.identity:
                    return None
                return progress, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        except (SafetensorError, OSError, json.JSONDecodeError):
            return None

    def remove(self) -> None:
        """The training has ended."""
        self.path.unlink(missing_ok=True)


def store(arm: Arm, stage: str) -> Store:
    """Where a stage keeps its state for an arm. With other parameters, lineage or torch it is another training."""
    round_ = arm.round
    digest = hashlib.sha256(torch.__version__.encode())
    for path in (round_.params, round_.lineage):
        digest.update(path.read_bytes())
    name = f"{stage}-{arm.label.replace('/', '-')}.safetensors"
    return Store(round_.workspace.local / "resume" / name, digest.hexdigest())


def capture(
    net: nn.Module,
    best: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    draws: Mapping[str, torch.Generator],
) -> dict[str, torch.Tensor]:
    """All that the next epoch hangs on: weights, the best epoch's, the optimizer's memory, every generator's state."""
    return {
        **{f"net.{key}": value for key, value in net.state_dict().items()},
        **{f"best.{key}": value for key, value in best.items()},
        **optimizer_tensors(optimizer),
        **{f"draws.{part}": generator.get_state() for part, generator in draws.items()},
    }


def restore(
    kept: tuple[dict[str, Any], dict[str, torch.Tensor]],
    net: nn.Module,
    best: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    draws: Mapping[str, torch.Generator],
) -> Progress:
    """Put back what `capture` took, as `Store.read` returns it."""
    progress, tensors = kept
    net.load_state_dict({key: tensors[f"net.{key}"] for key in net.state_dict()})
    for key, value in best.items():
        value.copy_(tensors[f"best.{key}"])
    load_optimizer(optimizer, tensors)
    for part, generator in draws.items():
        generator.set_state(tensors[f"draws.{part}"])
    both, robust, *loss = progress["score"]  # a training that older code began has no loss there
    score = (both, robust, loss[0] if loss else -math.inf)
    return Progress(progress["epochs"], progress["kept"], score, progress["stopped"])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimizer remembers, as tensors under names that tell its parts apart."""
    return {
        f"optimizer.{number}.{name}": value
        for number, kept in optimizer.state_dict()["state"].items()
        for name, value in kept.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `optimizer_tensors` took, each in the memory format of its weight."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for full, value in tensors.items():
        if full.startswith("optimizer."):
            number, name = full.removeprefix("optimizer.").split(".", 1)
            weight = weights[int(number)]
            laid = torch.empty_like(weight).copy_(value) if value.shape == weight.shape and value.ndim else value
            state.setdefault(int(number), {})[name] = laid
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
