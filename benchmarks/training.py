"""Training steps beside the loops that everybody writes: NSL, adversarial training, TRADES; and what memory they take.

Processor time of one thread, each in a process of its own, taking turns, medians. Ours is a step as tasks.train takes
it, from uint8 images to the moved weights, in bf16, in a process that keeps its memory as every stage does; the naive
one as it comes, and once more with its memory kept. A naive NSL step has three passes: one for the input's gradient,
one for the clean loss, one for its neighbour's; the others are PGD written by hand around the training pass. All are
Adam's, in fp32, on the network as its tutorial writes it. Memory: the most that lies in torch's tensors during a step
(its profiler's count), against the sum of the weights, their gradients, Adam's two moments, the batch, and what the
loss's passes forward keep of it to go back: one pass, and two for TRADES, whose divergence has both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks._frame import Measured, apart, main
from benchmarks._nets import settings as changed
from benchmarks._nets import tutorial
from benchmarks._profile import shares
from benchmarks.attacks import by_hand
from tasks.config.params import KindParams, Params
from tasks.engine import inference, networks
from tasks.engine.batch import Batch
from tasks.engine.devices import keep_memory
from tasks.engine.fit import backward
from tasks.engine.schedule import optimizer_of
from tasks.losses import loss_of

NSL, LINF = 0.2, 0.3  # the tutorial's step; the radius of the others
STEPS = 5  # of the inner PGD
LOSSES: dict[str, KindParams] = {
    "nsl": {"multiplier": 0.2, "step_size": NSL, "norm": "linf"},
    "pgd_at": {"steps": STEPS, "step_size": 0.1},
    "trades": {"steps": STEPS, "step_size": 0.1, "beta": 1.0},
}
BATCHES = {"nsl": (32, 128), "pgd_at": (128,), "trades": (128,)}
TARGET = 4.0  # × the naive NSL step, batch 128


def naive_nsl(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    asked = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(asked), labels), asked)
    neighbour = images + NSL * gradient.sign()
    return F.cross_entropy(net(images), labels) + 0.2 * F.cross_entropy(net(neighbour), labels)


def naive_pgd_at(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(net(by_hand(net, images, labels, LINF, 0.1, STEPS)), labels)


def naive_trades(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    clean = net(images).softmax(1).detach()
    found = images + 0.001 * torch.randn_like(images)
    for _ in range(STEPS):
        found.requires_grad_()
        (gradient,) = torch.autograd.grad(F.kl_div(net(found).log_softmax(1), clean, reduction="sum"), found)
        found = found.detach() + 0.1 * gradient.sign()
        found = torch.min(torch.max(found, images - LINF), images + LINF).clamp(0, 1)
    answers = net(images)
    return F.cross_entropy(answers, labels) + F.kl_div(
        net(found).log_softmax(1), answers.softmax(1), reduction="batchmean"
    )


NAIVE: dict[str, Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "nsl": naive_nsl,
    "pgd_at": naive_pgd_at,
    "trades": naive_trades,
}


class Stepper:
    """A network, its optimizer and its images; two of them start alike."""

    def __init__(self, loss: str, batch: int, params: Params) -> None:
        torch.manual_seed(0)
        self.net = tutorial().train()
        self.pixels = torch.randint(0, 256, (2048, 1, 28, 28), dtype=torch.uint8)
        self.labels = torch.randint(0, 10, (2048,))
        self.index = torch.randperm(2048)[:batch]
        self.loss, self.params, self.generator = loss, params, torch.Generator().manual_seed(0)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.net.parameters(), params.train.learning_rate)
        self.floats = inference.to_float(self.pixels)

    def naive(self) -> None:
        self.optimizer.zero_grad()
        NAIVE[self.loss](self.net, self.floats[self.index], self.labels[self.index]).backward()
        self.optimizer.step()

    def prepare(self) -> Stepper:
        made = networks.build("nsl_cnn", 10, 1, 28)
        made.load_state_dict(self.net.state_dict())
        self.net = made.train().to(memory_format=torch.channels_last)
        self.optimizer = optimizer_of(self.net, self.params.train)
        self.composed = loss_of(self.loss, LOSSES[self.loss], self.params.threat)
        return self

    def ours(self) -> None:
        images = inference.to_float(self.pixels.index_select(0, self.index))
        images = images.contiguous(memory_format=torch.channels_last)
        batch = Batch(images, self.labels.index_select(0, self.index), torch.ones(len(self.index)))
        self.optimizer.zero_grad(set_to_none=True)
        backward(self.net, batch, self.composed, self.generator, precision=self.params.train.precision)
        self.optimizer.step()


def settings() -> Params:
    return changed({"threat": {"norm": "linf", "epsilon": LINF}, "train": {"precision": "bf16", "optimizer": "adam"}})


def prepared(variant: str, loss: str, batch: int) -> Callable[[], object]:
    """A step to take, in a process of its own."""
    torch.set_num_threads(1)
    if variant != "naive":
        keep_memory()
    stepper = Stepper(loss, batch, settings())
    return stepper.prepare().ours if variant == "ours" else stepper.naive


def speeds(loss: str, batch: int, quick: bool) -> list[Measured]:
    variants = ("ours", "naive", "naive, memory kept")
    found = apart({each: partial(prepared, each, loss, batch) for each in variants}, 1 if quick else 40)
    of = f"{loss}, nsl_cnn, batch {batch}"
    target = TARGET if (loss, batch) == ("nsl", 128) else None
    return [
        *(Measured(f"{of}: {each}", batch / found[each], "images/s", None, "higher") for each in variants),
        Measured(f"{of}: ours", found["naive"] / found["ours"], "× naive", target, "higher"),
    ]


def memory(loss: str, batch: int) -> Measured:
    """The peak of a step against what cannot be less."""
    ours = Stepper(loss, batch, settings()).prepare()
    ours.ours()  # the moments are made in the first step
    weights = sum(weight.nbytes for weight in ours.net.parameters())
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images = torch.rand(batch, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        answers = ours.net(images)
    own = {weight.untyped_storage().data_ptr() for weight in ours.net.parameters()}
    passes = 2 if loss == "trades" else 1
    kept = 4 * weights + images.nbytes + passes * sum(size for at, size in seen.items() if at not in own)
    del answers
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        ours.ours()
    level = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    peak += 3 * weights  # what lay there before the step: weights and two moments
    return Measured(f"{loss}, nsl_cnn, batch {batch}: most memory", peak / kept, "× what is needed", 1.5, "lower")


def floor(ratio: float, quick: bool) -> list[Measured]:
    """How much of our NSL step kernels take that are not ours; ratio: how many times as fast as the naive one it is."""
    ours = Stepper("nsl", 128, settings()).prepare()
    taken, of = shares(ours.ours, 1 if quick else 10), "nsl, nsl_cnn, batch 128"
    return [
        *(Measured(f"{of}: ours, {name}", 100 * part, "% of the step", None, "lower") for name, part in taken.items()),
        Measured(f"{of}: these alone", ratio / sum(taken.values()), "× naive", None, "higher"),
    ]


def measure(quick: bool) -> list[Measured]:
    """Ratios, one thread."""
    torch.set_num_threads(1)
    found = [m for loss, batches in BATCHES.items() for batch in batches for m in speeds(loss, batch, quick)]
    ratio = next(m.value for m in found if m.target == TARGET)
    return found + floor(ratio, quick) + [memory(loss, 128) for loss in LOSSES]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
