"""A network on disk and what it answers. Safetensors only: nothing is ever unpickled.

A file holds the bare network's weights and, under one metadata key, a card that says how to build it again.
One key, because safetensors writes several in random order and the same network must give the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import nn

from data.files import write_whole
from data.shards import Images
from tasks.config.params import ParamsError
from tasks.engine import networks

_KEY = "dadc"


@dataclass(frozen=True)
class Card:
    """How to build the network whose weights a checkpoint holds, and where it comes from."""

    model: str  # a file of models/, or package.module:build
    classes: tuple[str, ...]  # names, in the order of the logits
    channels: int
    size: int  # pixels, height = width
    round: int  # that trained it

    def build(self) -> nn.Module:
        """The network with weights of its own, not yet those of the file."""
        return networks.build(self.model, len(self.classes), self.channels, self.size)

    def check(self, images: Images, what: str) -> None:
        """ValueError if the network was made for other images than those of `what`."""
        if self.classes != images.classes:
            raise ValueError(f"model and {what} must have the same classes, got {self.classes} and {images.classes}")
        wanted, got = (self.channels, self.size), (images.channels, images.size)
        if wanted != got:
            raise ValueError(
                f"the model takes images of {wanted[0]}×{wanted[1]}×{wanted[1]} (channels, height, width), {what} has "
                f"{got[0]}×{got[1]}×{got[1]}; data.channels and data.size of params.yaml hold for a whole campaign"
            )


def save(path: Path, net: nn.Module, card: Card) -> None:
    """Write the bare network, whole or not at all. ValueError if `net` is not the network that `card` names."""
    wanted = _shapes(_built(card).state_dict())
    # Copied: safetensors refuses weights that layers share.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
    fault = _difference(wanted, _shapes(state))
    if fault:
        raise ValueError(f"{path}: the card names {_named(card)}, and the network is another: {fault}")
    write_whole(path, safetensors_bytes(state, metadata={_KEY: json.dumps(asdict(card), sort_keys=True)}))


def load(path: Path) -> tuple[nn.Module, Card]:
    """What `save` wrote: the network in eval mode, on the CPU, and its card.

    ValueError if the file is broken, of another kind, or holds another network than it says.
    """
    if not path.exists():
        raise FileNotFoundError(f"expected a checkpoint at {path}, and there is none; `dvc pull` brings what DVC keeps")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is no sound safetensors file ({error}); bring it back with `dvc checkout` or `dvc pull`"
        ) from error
    card = _card(path, metadata)
    try:
        net = _built(card)
    except ParamsError as error:
        what = f"that cannot be built: {error}" if ":" in card.model else "that models/ does not have"
        raise ValueError(f"{path} holds a network {card.model!r} {what}") from error
    fault = _difference(_shapes(net.state_dict()), _shapes(state))
    if fault:
        raise ValueError(f"{path} says that it holds {_named(card)}, and holds another network: {fault}")
    net.load_state_dict(state)
    return net.eval(), card


def _built(card: Card) -> nn.Module:
    """The network for its shapes, or for weights from elsewhere: what building draws is thrown away.

    On the CPU, not on torch's meta device, where a function of the user's own may not read a number out of a tensor.
    """
    with torch.random.fork_rng(devices=[]):
        return card.build()


def _card(path: Path, metadata: dict[str, str]) -> Card:
    if _KEY not in metadata:
        raise ValueError(f"{path} is a safetensors file without a card of this tool; it was not written by `dadc`")
    try:
        return TypeAdapter(Card).validate_json(metadata[_KEY], strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} has a card that cannot be read: {where} {first['msg']}") from error


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    return {name: (value.dtype, tuple(value.shape)) for name, value in state.items()}


def _difference(
    wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]], got: dict[str, tuple[torch.dtype, tuple[int, ...]]]
) -> str:
    """The first things in which two networks differ; empty if they do not."""
    faults = [f"{name} is missing" for name in wanted.keys() - got.keys()]
    faults += [f"{name} is not its own" for name in got.keys() - wanted.keys()]
    for name in wanted.keys() & got.keys():
        if wanted[name] != got[name]:
            faults.append(f"{name} expected as {_written(wanted[name])}, got {_written(got[name])}")
    return "; ".join(sorted(faults)[:3])


def _written(kind: tuple[torch.dtype, tuple[int, ...]]) -> str:
    dtype, shape = kind
    return f"{str(dtype).removeprefix('torch.')} {'×'.join(map(str, shape)) or 'scalar'}"


def _named(card: Card) -> str:
    return f"{card.model} ({len(card.classes)} classes, {card.channels}×{card.size}×{card.size})"
