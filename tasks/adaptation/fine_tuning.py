"""RiFT's fine-tuning of some parameters on clean images (arXiv:2308.02533): SGD with momentum, the rate a tenth from
half of the steps on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from data.shards import Images
from tasks import augments
from tasks.config.params import Params, Rift
from tasks.config.seeds import derive
from tasks.engine import inference, stage

MOMENTUM = 0.9
DECAY_AT = 0.5  # share of the steps after which the learning rate falls to a tenth
REPORTS = 10  # lines that a fine-tuning says


def fine_tuned(net: nn.Module, names: Sequence[str], train: Images, params: Params) -> dict[str, torch.Tensor]:
    """These parameters after fine-tuning them alone on clean images, by name; `net` is left as it was.

    Under `rift.statistics: frozen` the network stays in eval mode: no statistics move and nothing is dropped. Under
    `follow` it is in training mode, as in the published code, and what else has moved is returned too: batch norm's
    means and variances, never its counters. Without names, statistics move alone. ValueError if the loss is no number.
    """
    choices, device, follow = params.rift, inference.device_of(net), params.rift.statistics == "follow"
    moving = [net.get_parameter(name) for name in names]
    tensors = dict(zip(names, moving, strict=True)) | dict(net.named_buffers())
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    what = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "") or "the statistics"
    if not moving and not follow:
        raise ValueError("RiFT was given nothing to fine-tune: no parameter's name, and statistics that stay frozen")
    optimizer = schedule = None
    steps = steps_of_tuning(len(train), choices)
    if moving:
        rate, decay = choices.learning_rate, choices.weight_decay
        optimizer = torch.optim.SGD(moving, lr=rate, momentum=MOMENTUM, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, round(steps * DECAY_AT))])
    draws = stage.generator(params, "rift", "augment", device=device)
    kinds = augments.chosen(params.train.augment)
    if choices.augment is not None:
        kinds = augments.chosen(choices.augment, "rift.augment")
    torch.manual_seed(derive(params.seed, "rift", "dropout"))
    mean = Mean()
    try:
        net.train(follow)
        for step, index in enumerate(batches(len(train), choices.batch, steps, params), 1):
            images_BCHW = augments.augmented(train.pixels_NCHW[index].to(device), kinds, draws)
            with torch.set_grad_enabled(bool(moving)):
                value = functional.cross_entropy(net(images_BCHW), train.labels_N[index].to(device))
            mean.add(value.item(), len(index))
            if not math.isfinite(mean.total):
                cure = stage.amended(f"lower rift.learning_rate (now {choices.learning_rate:g})")
                raise ValueError(f"the loss of {what} is {value.item()} in step {step} of fine-tuning; {cure}")
            if optimizer is not None and schedule is not None:
                gradients = torch.autograd.grad(value, moving, allow_unused=True)
                for weight, gradient in zip(moving, gradients, strict=True):
                    weight.grad = gradient
                optimizer.step()
                schedule.step()
            if step % max(1, steps // REPORTS) == 0:
                stage.say(f"rift: {what} step {step}/{steps}  loss {mean.taken():.4f}")
        return {
            name: tensor.detach().clone()
            for name, tensor in tensors.items()
            if name in names or (tensor.is_floating_point() and not tensor.equal(before[name]))
        }
    finally:
        net.eval()
        for name, tensor in tensors.items():
            tensor.grad = None
            with torch.no_grad():
                tensor.copy_(before[name])


def steps_of_tuning(images: int, choices: Rift) -> int:
    """How many steps fine-tuning takes: the budget, or what so many epochs of so many images come to."""
    return choices.steps_of_tuning or (choices.epochs or 1) * math.ceil(images / choices.batch)


def batches(images: int, batch: int, steps: int, params: Params) -> Iterator[torch.Tensor]:
    """So many even batches of indices, each epoch in an order of its own."""
    shuffle = stage.generator(params, "rift", "order")
    for _ in range(math.ceil(steps / math.ceil(images / batch))):
        order = torch.randperm(images, generator=shuffle)
        some = order.tensor_split(math.ceil(images / batch))
        yield from some[:steps]
        steps -= len(some)


@dataclass
class Mean:
    """The mean loss of the images since it was last taken."""

    total: float = 0.0
    n: int = 0

    def add(self, value: float, n: int) -> None:
        self.total, self.n = self.total + value * n, self.n + n

    def taken(self) -> float:
        mean, self.total, self.n = self.total / self.n, 0.0, 0
        return mean
