"""Trained weights of a user's own for a new network: a safetensors state dict in torchvision's layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

_INSIDE = "network."  # where models/_blocks.py keeps the network that it normalizes for
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # as torchvision's published files name it
_WRAPPERS = ("module.", "_orig_mod.")  # before every name: of DataParallel, and of torch.compile
_COUNTER = "num_batches_tracked"  # older files lack it
_PICKLES = (b"PK\x03\x04", b"\x80")


def start_from(net: nn.Module, path: Path, key: str = "model.weights", *, whole: bool = False) -> tuple[str, ...]:
    """Put the weights of a file into `net`; the names of the weights that stay random.

    These are the classifier's, the last linear layer's, where the file has another number of classes, and none
    otherwise; none ever if `whole`. key: of params.yaml, for the error. ValueError if the file is no safetensors file
    or holds another network; nothing is ever unpickled.
    """
    wanted = net.state_dict()
    own = {name.removeprefix(_INSIDE): name for name in wanted}
    found = {_name(name): value for name, value in _unwrapped(_read(path, key), own).items()}
    # Of layers that share a weight a file may name one: safetensors' save_model leaves out the others.
    named = {wanted[name].data_ptr(): found[short] for short, name in own.items() if short in found}
    found |= {s: named[at] for s, name in own.items() if s not in found and (at := wanted[name].data_ptr()) in named}
    head = _head(net)
    random, faults = [], []
    for short, name in own.items():
        if short not in found:
            if not short.endswith(_COUNTER):
                faults.append(f"{short} is missing")
        elif found[short].shape == wanted[name].shape:
            wanted[name] = found[short].to(wanted[name].dtype)
        elif not whole and name in head and found[short].shape[1:] == wanted[name].shape[1:]:
            random.append(name)
        else:
            faults.append(f"{short} expected as {_shape(wanted[name])}, got {_shape(found[short])}")
    faults += [f"{name} is not the network's" for name in found.keys() - own.keys()]
    if faults:
        raise ValueError(
            f"{key}: {path} holds another network: {'; '.join(sorted(faults)[:3])}"
            + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
            + f"; choose model.name, data.channels and data.size as the weights were made for, or set {key}: "
            "null (up to 64 pixels resnet18 and resnet34 have a first convolution of their own)"
        )
    broken = [name for name, value in wanted.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"{key}: {path}: {broken[0]} holds NaN or infinity; bring a sound file")
    net.load_state_dict(wanted)
    return tuple(random)


def _read(path: Path, key: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{key}: expected a safetensors file at {path}, and there is none")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except (SafetensorError, OSError) as error:
        with path.open("rb") as opened:
            pickled = opened.read(4).startswith(_PICKLES)  # a safetensors file may begin so too, but it was none
        if not pickled:
            raise ValueError(f"{key}: {path} is no sound safetensors file: {error}") from error
        raise ValueError(
            f"{key}: {path} is a pickle, which can run code and is never opened; where you trust it, turn it "
            'into safetensors: python -c "import sys, torch, safetensors.torch as s; '
            's.save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])" old.pth new.safetensors'
        ) from error


def _unwrapped(found: dict[str, torch.Tensor], own: Iterable[str]) -> dict[str, torch.Tensor]:
    """The weights by the names that the network had before it was wrapped, once or several times."""
    for prefix in _WRAPPERS * 2:
        if all(name.startswith(prefix) for name in found) and not any(name.startswith(prefix) for name in own):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _name(name: str) -> str:
    return _OLD_DENSENET.sub(r"\1\2.", name.removeprefix(_INSIDE))


def _head(net: nn.Module) -> tuple[str, ...]:
    linear = [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear)]
    return tuple(f"{name}.{part}" for name in linear[-1:] for part in ("weight", "bias"))


def _shape(value: torch.Tensor) -> str:
    return "×".join(map(str, value.shape)) or "scalar"
