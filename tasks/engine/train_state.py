"""A training's state between two epochs, so that one that was killed goes on and ends with the same bytes.

Safetensors with one line of JSON, git-ignored, of no use to any other training: its identity is a digest of what the
training is made from. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from data.files import write_whole
from data.layout import Round

_KEY = "dadc.resume"


@dataclass(frozen=True)
class Store:
    """The one file of a training."""

    path: Path
    identity: str

    def write(self, told: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep the state, whole or not at all. told: what JSON holds."""
        metadata = {_KEY: json.dumps({"identity": self.identity, **told})}
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        write_whole(self.path, safetensors_bytes(plain, metadata=metadata))

    def read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """The state of the same training; None where there is none, or another's, or a broken one."""
        try:
            with safe_open(self.path, framework="pt") as file:
                told = json.loads((file.metadata() or {}).get(_KEY, "{}"))
                if told.get("identity") != self.identity:
                    return None
                return told, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        except (SafetensorError, OSError, json.JSONDecodeError):
            return None

    def remove(self) -> None:
        """The training has ended."""
        self.path.unlink(missing_ok=True)


def store(round_: Round, stage: str) -> Store:
    """Where a stage of a round keeps its state. With other parameters, lineage or torch it is another training."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in (round_.params, round_.lineage):
        digest.update(path.read_bytes())
    return Store(round_.workspace.local / "resume" / f"{stage}-{round_.name}.safetensors", digest.hexdigest())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimizer remembers, under names of its own."""
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
