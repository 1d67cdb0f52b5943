"""Augmentation in batch against a DataLoader with per-sample transforms, and its share of a training step.

Processor time of one thread, in a process that keeps its memory as a stage does. The peers are torchvision's transforms
(v2) on uint8 tensors and on PIL images, each image alone, in a DataLoader of the same process. The floor is measured
too: choosing and converting the images, and what torch's own kernels take for the changes: to mirror bytes, pad them
and cut windows out, and for all eight kinds to draw bits, look noise up by them, and sample the grids as well.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks._frame import Measured, interleaved, main
from tasks.augments import Chosen, augmented, chosen
from tasks.config.kinds import module_of
from tasks.config.params import KindParams, Threat
from tasks.engine.batch import Batch
from tasks.engine.devices import keep_memory
from tasks.engine.inference import to_float
from tasks.losses import loss_of

BATCH = 128
EPOCHS = 8  # of the batched variant in each round: one alone is over before its memory is warm
USUAL: dict[str, KindParams] = {"flip": {}, "crop": {}}
ALL: dict[str, KindParams] = {
    **USUAL,
    **{name: {} for name in ("colour_jitter", "affine", "elastic", "gaussian_noise", "poisson_noise")},
    "salt_and_pepper": {},
}
CHOICES = {"flip, crop": USUAL, "all eight": ALL}
STEPS = (("nsl_cnn", 1, 28, BATCH), ("resnet18", 3, 32, 32))  # network, channels, pixels, images of a timed step
LOSSES: dict[str, KindParams] = {"plain": {}, "nsl": {"steps": 4, "step_size": 0.05}}
PEERS = {"tensors": False, "PIL": True}
THREAT = Threat(norm="linf", epsilon=0.2)


class Light(torch.nn.Module):
    """Poisson's and salt-and-pepper noise for one image, which torchvision does not have."""

    def forward(self, image_CHW: torch.Tensor) -> torch.Tensor:
        image_CHW = (torch.poisson(image_CHW * 50) / 50).clamp(0, 1)
        drawn = torch.rand(1, *image_CHW.shape[1:])
        return image_CHW.masked_fill(drawn < 0.025, 0).masked_fill(drawn >= 0.975, 1)


class Samples(Dataset[torch.Tensor]):
    """uint8 images, each changed alone as it is asked for."""

    def __init__(self, pixels_NCHW: torch.Tensor, everything: bool, pil: bool) -> None:
        size = int(pixels_NCHW.shape[2])
        first: list[Any] = [v2.RandomHorizontalFlip(), v2.RandomCrop(size, padding=4)]
        if everything:
            first += [
                v2.ColorJitter(0.2, 0.2, 0.2, 0.02),
                v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5, interpolation=v2.InterpolationMode.BILINEAR),
                v2.ElasticTransform(20.0, 4.0),
            ]
        first += [v2.PILToTensor()] if pil else []
        first += [v2.ToDtype(torch.float32, scale=True)]
        self.change = v2.Compose(first + ([v2.GaussianNoise(sigma=0.1), Light()] if everything else []))
        self.images = [v2.functional.to_pil_image(image) for image in pixels_NCHW] if pil else list(pixels_NCHW)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        changed: torch.Tensor = self.change(self.images[index])
        return changed


def epochs(channels: int, size: int, quick: bool) -> list[Measured]:
    """How many times as fast as the faster peer: an epoch in batch, and the floor, which changes nothing."""
    n = 256 if quick else 1024
    pixels = torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8)
    measured = []
    for name, choice in CHOICES.items():
        generator = torch.Generator().manual_seed(0)
        variants: dict[str, Callable[[], object]] = {
            "batch": partial(in_batch, pixels, chosen(choice), generator),
            "unchanged": partial(in_batch, pixels, (), generator),
            "kernels": partial(kernels, pixels, choice is ALL, generator),
        }
        for peer, pil in PEERS.items():
            loader = DataLoader(Samples(pixels, choice is ALL, pil), BATCH, shuffle=True)
            variants[peer] = partial(deque, loader, 0)  # goes through all of it and keeps nothing
        found = interleaved(variants, 1 if quick else 7, time.process_time)
        fastest = min(found[peer] for peer in PEERS)
        ours, floor = found["batch"] / EPOCHS, (found["unchanged"] + found["kernels"]) / EPOCHS
        of = f"{channels}×{size}×{size}, {name}"
        measured += [
            Measured(f"{of}: in batch", ours / n * 1e6, "µs/image", None, "lower"),
            *(Measured(f"{of}: DataLoader, {p}", found[p] / n * 1e6, "µs/image", None, "lower") for p in PEERS),
            Measured(f"{of}: × the faster DataLoader", fastest / ours, "×", 40, "higher"),
            Measured(f"{of}: the floor alone", fastest / floor, "×", None, "higher"),
        ]
    return measured


def in_batch(pixels_NCHW: torch.Tensor, kinds: tuple[Chosen, ...], generator: torch.Generator) -> None:
    for _ in range(EPOCHS):
        for index in torch.randperm(len(pixels_NCHW)).tensor_split(max(1, len(pixels_NCHW) // BATCH)):
            augmented(pixels_NCHW.index_select(0, index), kinds, generator)


def kernels(pixels_NCHW: torch.Tensor, everything: bool, generator: torch.Generator) -> None:
    """What is torch's and as large as the images: their bytes mirrored, padded, and copied from a window; in all eight
    kinds two drawings of noise, one of specks and two sampled grids as well."""
    n, channels, height, width = pixels_NCHW.shape
    images, grid = torch.rand(BATCH, channels, height, width), torch.rand(BATCH, height, width, 2) * 2 - 1
    bits, table = torch.empty(images.numel() // 4, dtype=torch.int64), torch.randn(2**16)
    for start in range(0, EPOCHS * n, BATCH):
        pixels = pixels_NCHW[start % n :][:BATCH]
        F.pad(pixels.flip(3), (4,) * 4)[..., 4:-4, 4:-4].clone()
        if everything:
            for _ in range(2):
                table.index_select(0, bits.random_(-(2**63), None, generator=generator).view(torch.uint16).int())
                F.grid_sample(images, grid, align_corners=False)
            bits[: height * width * BATCH // 4].random_(-(2**63), None, generator=generator)


def step(optimizer: torch.optim.Optimizer, value: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad(set_to_none=True)
    value().backward()
    optimizer.step()


def shares(network: str, channels: int, size: int, batch: int, quick: bool) -> list[Measured]:
    """What augmentation takes beside a training step, as a share of the step."""
    net = module_of("models", network, "model.name").build(10, channels, size).to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (batch, channels, size, size), dtype=torch.uint8)
    ready = to_float(pixels).contiguous(memory_format=torch.channels_last)
    images = Batch(ready, torch.randint(0, 10, (batch,)), torch.ones(batch))
    optimizer, generator = torch.optim.SGD(net.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    measured = []
    for loss, given in LOSSES.items():
        value = partial(loss_of(loss, given, THREAT), net, images, generator)
        variants: dict[str, Callable[[], object]] = {"step": partial(step, optimizer, value)}
        variants |= {name: partial(augmented, pixels, chosen(choice), generator) for name, choice in CHOICES.items()}
        found = interleaved(variants, 1 if quick else 7, time.process_time)
        of = f"{network}, {channels}×{size}×{size}, {loss}"
        measured.append(Measured(f"{of}: a step", found["step"] / batch * 1e3, "ms/image", None, "lower"))
        measured += [
            Measured(f"{of}: {name}", found[name] / found["step"] * 100, "% of a step", 5, "lower") for name in CHOICES
        ]
    return measured


def measure(quick: bool) -> list[Measured]:
    """Ratios and shares, one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    measured = [m for channels, size in ((1, 28), (3, 32)) for m in epochs(channels, size, quick)]
    return measured + [m for one in STEPS for m in shares(*one, quick)]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
