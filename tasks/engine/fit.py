"""The training loop: epochs over a training set, the best epoch kept, a state from which a killed training goes on.

The loss, the augmentation, the check on validation and the perturbation of weights are handed in, so that the loop
knows none of them.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import nn

from data.shards import Images
from tasks.config.params import Train
from tasks.config.seeds import derive
from tasks.engine import inference, schedule, stage, train_state
from tasks.engine.batch import Batch
from tasks.engine.devices import ONE_PROCESS, Compute
from tasks.engine.train_state import Progress
from tasks.engine.training_set import TrainingSet


class Loss(Protocol):
    """A loss of one batch, a scalar for one `backward`; a weighted mean of one number for each image."""

    @property
    def name(self) -> str: ...

    @property
    def defends(self) -> bool:
        """Whether it promises anything under attack; if not, what a network has of it may fall."""

    def __call__(self, net: nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor: ...

    def repeatable(self, net: nn.Module, batch: Batch, generator: torch.Generator) -> Callable[[], torch.Tensor]:
        """The loss as a function of the weights alone, for what must see it twice."""


Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]  # uint8 B×C×H×W → fp32 in [0, 1]
Check = Callable[[nn.Module, Images, Compute], tuple[float, float]]  # clean and robust accuracy on validation
Perturb = Callable[[nn.Module, Callable[[], torch.Tensor]], AbstractContextManager[None]]  # weights, moved inside


def fit(
    net: nn.Module,
    training_set: TrainingSet,
    validation: Images,
    recipe: Train,
    *,
    loss: Loss,
    check: Check,
    seed: int,
    name: str,
    augment: Augment = lambda pixels_BCHW, _: inference.to_float(pixels_BCHW),
    perturb: Perturb | None = None,
    perturb_from: int = 1,
    compute: Compute = ONE_PROCESS,
    store: train_state.Store | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train `net` and return its best epoch, by the mean of clean and robust accuracy on validation, as `check` has it.

    Neither counts for less than one answer to every image would get: that answer is right under attack too, and of two
    classes it would be kept before any network that has learned something.
    recipe: optimizer, rate, schedule, batch, epochs, patience and precision; its loss, augmentation and weight
    perturbation are those handed in; perturb_from: the first epoch with the perturbation. seed, name: from which every
    random number is derived. store: where the state is kept after every epoch, and gone on from; None keeps nothing.
    Returns the network in eval mode, on the CPU, and the history: one entry for each epoch, and which was kept (from
    1). ValueError if the loss is no number, or if a batch is too small for the network's batch norm.
    """
    net = net.to(compute.device).to(memory_format=torch.channels_last)
    optimizer = schedule.optimizer_of(net, recipe)
    draws = {
        part: torch.Generator("cpu" if part == "order" else compute.device).manual_seed(
            derive(seed, "train", name, part)
        )
        for part in ("order", "loss", "augment")
    }
    guess = validation.labels_N.bincount().max().item() / len(validation)  # accuracy of one answer to every image
    best, progress = copy.deepcopy(net.state_dict()), Progress()
    steps = steps_an_epoch(len(training_set.order), recipe.batch, compute.world, net)
    if store is not None and (kept := store.read()) is not None:
        progress = train_state.restore(kept, net, best, optimizer, draws)
        compute.say(f"train {name}: goes on after epoch {len(progress.epochs)}")
    began, before = time.monotonic(), len(progress.epochs)
    for epoch in range(before + 1, recipe.epochs + 1):
        if progress.stopped:
            break
        net.train()
        # What dropout draws from, on every device: begun anew, so that it need not be kept to go on to the same bytes.
        torch.manual_seed(derive(seed, "train", name, "dropout", epoch, compute.rank))
        order = training_set.order[torch.randperm(len(training_set.order), generator=draws["order"])]
        if compute.world > 1:  # every process draws for its own images
            for part in ("loss", "augment"):
                draws[part].manual_seed(derive(seed, "train", name, part, epoch, compute.rank))
        total, epoch_began = 0.0, time.monotonic()
        for step, index in enumerate(order.tensor_split(steps)):
            schedule.set_rate(optimizer, recipe, (epoch - 1 + step / steps) / recipe.epochs)
            batch = _batch(training_set, compute.shard(index), augment, draws["augment"], compute.device)
            optimizer.zero_grad(set_to_none=True)
            moved = perturb if epoch >= perturb_from else None
            value = backward(net, batch, loss, draws["loss"], precision=recipe.precision, perturb=moved)
            if compute.world > 1:
                value = compute.average_gradients(net, value, batch.weights_B.sum().item())
            if not math.isfinite(value):
                raise _diverged(f"the loss is {value}", epoch, recipe)
            optimizer.step()
            total += value * len(index)
        compute.average_statistics(net)
        broken = [key for key, tensor in net.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise _diverged(f"{', '.join(broken)} of the network are not finite", epoch, recipe)
        speed = len(order) / (time.monotonic() - epoch_began)
        clean, robust = check(net, validation, compute)
        progress.epochs.append({"epoch": epoch, "loss": total / len(order), "clean": clean, "robust": robust})
        score = (max(clean, guess) + max(robust, guess), robust, -total / len(order))  # of two alike the lower loss
        if score > progress.score:
            progress.score, progress.kept, best = score, epoch, copy.deepcopy(net.state_dict())
        left = (time.monotonic() - began) / (epoch - before) * (recipe.epochs - epoch)
        compute.say(
            f"train {name}: epoch {epoch}/{recipe.epochs}  loss {total / len(order):.3f}  clean {clean:.1%}  "
            f"pgd {robust:.1%}  {speed:.0f} images/s  {left:.0f} s left"
        )
        progress.stopped = schedule.why_stop(progress.epochs, recipe.patience, guess, defended=loss.defends)
        if progress.stopped:
            compute.say(f"train {name}: stopped after epoch {epoch}, epoch {progress.kept} is kept: {progress.stopped}")
        if store is not None and compute.first:
            store.write(asdict(progress), train_state.capture(net, best, optimizer, draws))
    net.load_state_dict(best)
    net = net.to("cpu").to(memory_format=torch.contiguous_format).eval()
    history: dict[str, Any] = {
        "kept": progress.kept,
        "epochs": progress.epochs,
        "images": len(training_set.order),
        "loss": loss.name,
    }
    history |= {"processes": compute.world} if compute.world > 1 else {}
    return net, history | ({"stopped": progress.stopped} if progress.stopped else {})


def backward(
    net: nn.Module,
    batch: Batch,
    loss: Loss,
    generator: torch.Generator,
    *,
    precision: str = "fp32",
    perturb: Perturb | None = None,
) -> float:
    """One batch's loss, whose gradients the weights then have; on moved weights where there is a perturbation.

    On the CPU a batch is gone through in parts, whose gradients are added up by weight: the layers of more images leave
    the cache. precision: fp32, or bf16 under autocast.
    """

    def autocast() -> torch.autocast:
        return torch.autocast(batch.images_BCHW.device.type, torch.bfloat16, enabled=precision == "bf16")

    if perturb is None:
        total_weight = batch.weights_B.sum().clamp_min(torch.finfo(batch.weights_B.dtype).tiny)
        value = 0.0
        for index in inference.microbatches(net, batch.images_BCHW):
            part = batch.part(index)
            with autocast():
                share = loss(net, part, generator) * (part.weights_B.sum() / total_weight)
            share.backward()
            value += share.item()
        return value
    with autocast():
        again = loss.repeatable(net, batch, generator)

    def anew() -> torch.Tensor:
        with autocast():  # one for each call: within it, weights once cast are kept, moved or not
            return again()

    with perturb(net, anew):
        moved = anew()
        moved.backward()
    return moved.item()


def steps_an_epoch(images: int, batch: int, world: int, net: nn.Module) -> int:
    """Into how many even batches an epoch falls: a last batch of one image would break batch norm.

    ValueError for batches of fewer images than there are processes, or than batch norm needs.
    """
    normed = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules())
    least = world * (2 if normed else 1)
    if min(batch, images) < least:
        why = f" in {world} processes" if world > 1 else ""
        why += ": its batch norm needs two in each" if normed else ""
        got = f"got {min(batch, images)} images; {stage.amended('raise it')}"
        raise ValueError(f"train.batch must be at least {least} for this network{why}, {got}")
    return min(math.ceil(images / batch), images // least)


def _batch(
    training_set: TrainingSet, index_B: torch.Tensor, augment: Augment, draws: torch.Generator, device: torch.device
) -> Batch:
    images_BCHW = augment(training_set.pixels(index_B).to(device), draws)
    return Batch(
        images_BCHW.contiguous(memory_format=torch.channels_last),
        training_set.labels[index_B].to(device),
        training_set.weights[index_B].to(device),
    )


def _diverged(what: str, epoch: int, recipe: Train) -> ValueError:
    advice = stage.amended(f"lower train.learning_rate (now {recipe.learning_rate:g})")
    return ValueError(f"{what} in epoch {epoch}: training has diverged; {advice}")
