"""Which precision steps are taken in where params.yaml says `auto`: what the processor has, and a short trial.

bf16 takes half the time of fp32 or less where a processor has instructions for it, and several times as long where it
has none. Verdicts are in fp32 either way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch.nn import functional as F

from data.records import ImageSpec
from tasks.config.params import Params
from tasks.engine import networks
from tasks.engine.bf16 import bf16_copy
from tasks.engine.inference import channels_last, evaluating

GAIN = 1.1  # times as fast as fp32 that bf16 must be to be chosen
IMAGES, TURNS = 32, 3  # of the trial
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")  # names that torch.cpu.get_capabilities has for them


@dataclass(frozen=True)
class Trial:
    """How a gradient on some images compares: gain is fp32's time over bf16's; None where it was not tried."""

    processor: str
    native: bool  # whether the processor has instructions for bf16
    gain: float | None

    @property
    def chosen(self) -> str:
        """What `auto` comes to."""
        return "bf16" if self.native and self.gain is not None and self.gain >= GAIN else "fp32"

    def lines(self, params: Params) -> list[str]:
        """What to tell the user: what `auto` came to, and a warning where bf16 is asked for and costs time."""
        asked = {"train.precision": params.train.precision, "evaluate.precision": params.evaluate.precision}
        by_itself = [key for key, value in asked.items() if value == "auto"]
        told = []
        if by_itself:
            why = f"no instructions for bf16 on {self.processor}"
            if self.gain is not None and self.native:
                why = f"bf16 takes {1 / self.gain:.2f} times as long as fp32 on {self.processor}"
            told.append(f"{' and '.join(by_itself)}: auto is {self.chosen} here, {why}")
        costly = [key for key, value in asked.items() if value == "bf16"]
        if costly and self.gain is not None and self.gain < 1:
            told.append(
                f"warning: {' and '.join(costly)}: bf16 takes {1 / self.gain:.1f} times as long as fp32 on "
                f"{self.processor}; auto would be {self.chosen}"
            )
        return told


def processor(accelerator: str = "cpu") -> tuple[str, bool]:
    """The processor's name with its class, and whether it has instructions for bf16."""
    if accelerator == "cuda":
        native = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return torch.cuda.get_device_name(), native
    found = torch.cpu.get_capabilities()
    has = [name for name in INSTRUCTIONS if found.get(name)]
    name = f"{found.get('cpu_name') or found.get('architecture')} ({torch.backends.cpu.get_cpu_capability()}"
    return name + (f", {has[0]})" if has else ", no bf16)"), bool(has)


def trial(params: Params, spec: ImageSpec) -> Trial:
    """What params.yaml's precisions come to here; bf16 is tried where the processor has it, or where it is asked."""
    asked = {params.train.precision, params.evaluate.precision}
    name, native = processor(params.accelerator)
    gain = measured_gain(params, spec) if native or "bf16" in asked else None
    return Trial(name, native, gain)


def measured_gain(params: Params, spec: ImageSpec) -> float:
    """fp32's seconds over bf16's for one gradient on images, of params.yaml's network, untrained."""
    device = torch.device(params.accelerator)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(params.threads)
    torch.manual_seed(0)
    try:
        net = networks.build(params.model.name, len(spec.classes), spec.channels, spec.size).to(device)
        images_BCHW = torch.rand(IMAGES, spec.channels, spec.size, spec.size, device=device)
        labels_B = torch.zeros(IMAGES, dtype=torch.int64, device=device)
        with evaluating(net):
            quick = bf16_copy(net, images_BCHW)

            def gradient(network: torch.nn.Module, *, bf16: bool) -> Callable[[], float]:
                def once() -> float:
                    began = time.perf_counter()
                    asked_BCHW = channels_last(images_BCHW).requires_grad_()
                    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                        value = F.cross_entropy(network(asked_BCHW).float(), labels_B)
                    torch.autograd.grad(value, asked_BCHW)[0].sum().item()  # waits for a GPU
                    return time.perf_counter() - began

                return once

            ways = gradient(net, bf16=False), gradient(quick, bf16=True)
            for way in ways:  # the first turn builds kernels
                way()
            turns = [[way() for way in ways] for _ in range(TURNS)]
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    fp32, bf16 = (median(times) for times in zip(*turns, strict=True))
    return float(fp32 / bf16)
