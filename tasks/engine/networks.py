"""Networks by name: a file of models/, or a user's own by import path, `package.module:build`.

Either way it is a function `build(num_classes, channels, size)`: pixels in [0, 1] of N×channels×size×size in, logits of
N×num_classes out, normalization inside. An import path is followed from the workspace's root or into the environment.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from data.shards import Images
from models._pretrained import start_from
from tasks.config.kinds import module_of
from tasks.config.params import Params, ParamsError
from tasks.engine import trial
from tasks.engine.inference import to_float

GIVEN = ("num_classes", "channels", "size")  # what a build function is called with


def build(name: str, num_classes: int, channels: int, size: int) -> nn.Module:
    """A new network of that name, with weights of its own. ParamsError if there is no such function."""
    if ":" not in name:
        made: nn.Module = module_of("models", name, "model.name").build(num_classes, channels, size)
        return made
    made = _function(name)(num_classes, channels, size)
    if not isinstance(made, nn.Module):
        raise ParamsError(f"model.name: {name} must give a torch.nn.Module, got {type(made).__name__}")
    if lazy := [inner for inner, weight in (*made.named_parameters(), *made.named_buffers()) if is_lazy(weight)]:
        raise ParamsError(f"model.name: {name} must give a network with all its weights, {lazy[0]} has no shape yet")
    return made


def check(
    net: nn.Module,
    name: str,
    num_classes: int,
    channels: int,
    size: int,
    pixels_NCHW: torch.Tensor | None = None,
) -> None:
    """Try a network on images, as it is asked and as it is trained; its weights are left as they were.

    pixels_NCHW: uint8, some of the campaign's images; None: noise. ValueError if the network gives anything but logits
    for that many classes, or if attacks on it would mean nothing (tasks/engine/trial.py).
    """
    what = f"model.name: {name} must turn images of 2×{channels}×{size}×{size} into logits of 2×{num_classes}"
    before, mode = {key: value.clone() for key, value in net.state_dict().items()}, net.training
    net = net.to(memory_format=torch.channels_last)
    for training in (False, True):
        what += ", in train mode too" if training else ""
        images_BCHW = torch.full((2, channels, size, size), 0.5).to(memory_format=torch.channels_last).requires_grad_()
        try:
            with torch.random.fork_rng(devices=[]):
                logits_BK = net.train(training)(images_BCHW)
            follows = _follows(logits_BK, images_BCHW)
            net.train(mode).load_state_dict(before)
        except Exception as error:  # whatever the user's own code raises
            said = next(iter(str(error).splitlines()), type(error).__name__)
            cure = "; images come channels last: in place of view take reshape, or flatten(1)" if "view" in said else ""
            raise ValueError(f"{what}, and fails: {said}{cure}") from error
        if not isinstance(logits_BK, torch.Tensor) or logits_BK.shape != (2, num_classes):
            got = tuple(logits_BK.shape) if isinstance(logits_BK, torch.Tensor) else type(logits_BK).__name__
            raise ValueError(f"{what}, got {got}")
        if not torch.isfinite(logits_BK).all():
            raise ValueError(f"{what}, got NaN or infinity")
        if not follows:
            raise ValueError(f"{what}, with a gradient that attacks can follow to the images, and gives none")
    if pixels_NCHW is None:
        pixels_NCHW = (torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(0)) * 255).byte()
    if found := trial.faults(net, to_float(pixels_NCHW)):
        raise ValueError(f"model.name: {name} cannot be evaluated under attack: " + "; ".join(found))


def source(name: str) -> Path | None:
    """The file of a network that is named by import path; None for one of models/."""
    if ":" not in name:
        return None
    return Path(inspect.getfile(inspect.getmodule(_function(name)) or _function(name))).resolve()


def given(params: Params, number: int) -> tuple[str, str] | None:
    """The user's file that round `number` starts from: its key in params.yaml and its path there; None from scratch."""
    if number == 0 and params.first.weights is not None:
        return "first.weights", params.first.weights
    if params.model.weights is not None and (number == 0 or params.train.init == "scratch"):
        return "model.weights", params.model.weights
    return None


def is_given(params: Params) -> bool:
    """Whether params.yaml names a network or weights of the user's own, for `check_given` to look at."""
    return ":" in params.model.name or params.model.weights is not None or params.first.weights is not None


def check_given(params: Params, number: int, root: Path, images: Images) -> Path | None:
    """The user's file of weights for round `number`, once it fits the network and the network fits the images.

    None where round `number` takes no file. root: the workspace's, from which paths count; images: some of the
    campaign's, on a few of which the network is tried. ParamsError or ValueError says what does not fit.
    """
    name, file = params.model.name, given(params, number)
    if file is None and ":" not in name:
        return None
    shape = (len(images.classes), images.channels, images.size)
    net = build(name, *shape)
    path = None
    if file is not None:
        key, path = file[0], root / Path(file[1]).expanduser()
        start_from(net, path, key, whole=key == "first.weights")
    check(net, name, *shape, trial.sample(images))
    return path


def _follows(logits: Any, images_BCHW: torch.Tensor) -> bool:
    """Whether a gradient leads from what a network gave back to its images."""
    if not isinstance(logits, torch.Tensor) or not logits.requires_grad:
        return False
    return torch.autograd.grad(logits.sum(), images_BCHW, allow_unused=True)[0] is not None


def _function(name: str) -> Any:
    """Only a function that takes what a network is built from is ever called: a name may come from a checkpoint."""
    where, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(where), attribute)
    except (ImportError, AttributeError) as error:
        raise ParamsError(
            f"model.name: {name!r} cannot be imported ({error}); expected package.module:function, in the workspace or "
            "in the environment"
        ) from error
    if not inspect.isfunction(found) or tuple(inspect.signature(found).parameters)[:3] != GIVEN:
        raise ParamsError(f"model.name: {name!r} must be a function of ({', '.join(GIVEN)})")
    return found
