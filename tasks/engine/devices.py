"""Where a stage runs: on which device, and as which of how many processes.

Several processes, and any device but the CPU, are Lightning Fabric's: it starts the processes (or takes torchrun's
place among hosts), gives each its device, and adds up what they found. One process on the CPU needs none of it and
leaves it out, for it takes longer to import than a small round to train.

Each process takes its share of every batch and of every set of images, so that `train.batch` means the same whatever
their number; gradients are averaged by the weight of the images they come from. Networks are not wrapped: losses go
through them several times, and backwards for the images as well.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tasks.config.params import Params

# glibc's mallopt, malloc.h: by its own rules it hands big tensors' memory back, and every step has it zeroed anew.
KEPT = {-1: 2**31 - 1, -2: 64 * 2**20, -3: 32 * 2**20}  # trim threshold, top pad, mmap threshold at its highest; bytes


def keep_memory() -> None:
    """Keep what tensors give back for the next ones, in this process; nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for option, value in KEPT.items():
            mallopt(option, value)


@dataclass(frozen=True)
class Compute:
    """This process: its device, and its place among all that work on a stage."""

    device: torch.device = torch.device("cpu")  # noqa: RUF009  it never changes
    rank: int = 0
    world: int = 1  # processes, on all machines
    fabric: Any = None  # Lightning's; None for one process on the CPU

    @property
    def first(self) -> bool:
        """Whether this process is the one that speaks and writes."""
        return self.rank == 0

    def say(self, line: str) -> None:
        """A line of progress, at once, from the first process: DVC and Prefect pass it on."""
        if self.first:
            print(line, flush=True)

    def shard(self, index_N: torch.Tensor) -> torch.Tensor:
        """This process's part of some indices; every process gets at least one where there are enough."""
        return index_N if self.world == 1 else index_N.tensor_split(self.world)[self.rank]

    def all_gather(self, own: torch.Tensor, n: int) -> torch.Tensor:
        """What the processes found for their shares of n images, in the images' order; N or N×…, on the CPU."""
        if self.world == 1:
            return own
        whole = torch.zeros(n, *own.shape[1:], dtype=torch.float64)
        whole[self.shard(torch.arange(n))] = own.double()
        return self.all_reduce(whole).to(own.dtype)

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, on the CPU."""
        if self.world == 1:
            return values
        summed: torch.Tensor = self.fabric.all_reduce(values.to(self.device), reduce_op="sum")
        return summed.cpu()

    def average_gradients(self, net: nn.Module, value: float, weight: float) -> float:
        """Give every process the gradients of the whole batch, and the whole batch's loss back.

        value, weight: the loss of this process's share, and the sum of its images' weights.
        """
        if self.world == 1:
            return value
        moving = [p for p in net.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() * weight for p in moving])
        flat = torch.cat([flat, flat.new_tensor([value * weight, weight])])
        flat = self.fabric.all_reduce(flat, reduce_op="sum")
        flat, total = flat[:-1] / flat[-1].clamp_min(torch.finfo(flat.dtype).tiny), float(flat[-2] / flat[-1])
        at = 0
        for p in moving:
            p.grad = torch.empty_like(p).copy_(flat[at : at + p.numel()].view(p.shape))  # laid out as the weight is
            at += p.numel()
        return total

    def average_statistics(self, net: nn.Module) -> None:
        """Give every process the mean of what the processes' batch norms have seen."""
        if self.world == 1:
            return
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.fabric.all_reduce(buffer, reduce_op="mean"))


ONE_PROCESS = Compute()


def check_devices(params: Params, frozen: bool) -> None:
    """ValueError for devices that are asked for and are not here. frozen: the parameters are a round's own."""
    if params.accelerator == "cpu" or params.devices <= (there := torch.cuda.device_count()):
        return
    cure = "lower devices or set accelerator: cpu in params.yaml"
    if frozen:
        cure = f"go on where they are, or {cure}, commit that, and `dadc amend` has the round take it"
    asked = f"accelerator cuda with {params.devices} devices"
    raise ValueError(f"expected {asked}, and torch {torch.__version__} sees {there}; {cure}")


@contextmanager
def launched(params: Params) -> Iterator[Compute]:
    """The processes that params.yaml or torchrun asks for, each with its device; the others end with this one.

    ValueError for a device that is not here.
    """
    hosts = _torchrun()
    if params.accelerator == "cpu" and params.devices == 1 and hosts is None:
        yield ONE_PROCESS
        return
    check_devices(params, frozen=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    from lightning_fabric import Fabric

    devices, nodes = hosts or (params.devices, 1)
    several = devices * nodes > 1
    if several and nodes == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nothing leaves this machine
    fabric = Fabric(
        accelerator=params.accelerator, devices=devices, num_nodes=nodes, strategy="ddp" if several else "auto"
    )
    fabric.launch()
    try:
        yield Compute(fabric.device, fabric.global_rank, fabric.world_size, fabric)
    finally:
        if several and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def first_process() -> bool:
    """Whether this process is the first, before it has met the others."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def _torchrun() -> tuple[int, int] | None:
    """Processes on this machine and machines, where torchrun started us."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local
