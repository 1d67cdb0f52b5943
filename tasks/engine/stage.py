"""What the stage commands share: `python -m tasks.<stage> NNN [--arm NAME]`, run at the workspace's root by DVC.

A stage makes the same bytes from the same inputs: threads, seeds and algorithms are fixed here. It holds a lock of its
own, because a stage whose DVC was killed may run on beside its retry.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from data.layout import ARMS, CHALLENGER, Arm, Round, Workspace
from tasks.config.params import Params, read
from tasks.config.seeds import derive
from tasks.engine import devices
from tasks.engine.devices import Compute
from tasks.workspace.reproduce import guard_closed_round

Work = Callable[[Arm, Params, Compute], None]
GPU_FULL = ("CUDA error: out of memory", "_ALLOC_FAILED")  # what the driver, cuBLAS and cuDNN say of it
LOWER = {"train": "train.batch", "rift": "rift.batch"}  # what a stage's memory hangs on, in params.yaml


def main(name: str, work: Work, arguments: Sequence[str] | None = None, *, arms: Sequence[str] = ARMS) -> None:
    """Run a stage for the round and the arm that the command line names.

    A fault of the input is one line and exit code 1. arms: those that the stage has.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    arm = CHALLENGER
    if len(given) == 3 and given[1] == "--arm" and given[2] in arms:
        arm = given[2]
        del given[1:]
    if len(given) != 1 or not (len(given[0]) == 3 and given[0].isdigit()):
        choice = f" [--arm {'|'.join(arms)}]" if len(arms) > 1 else ""
        print(f"usage: python -m tasks.{name} NNN{choice}, a round of three digits such as 001", file=sys.stderr)
        raise SystemExit(2)
    chosen = Workspace(Path.cwd()).round(int(given[0])).arm(arm)
    try:
        run(name, work, chosen)
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if not (message := out_of_memory(name, error)) and isinstance(error, RuntimeError):
            raise  # a fault of the code: its frames help
        print(f"error: {name} {chosen.label}: {message or error}", file=sys.stderr)
        raise SystemExit(1) from error


def of_round(work: Callable[[Round, Params, Compute], None]) -> Work:
    """The work of a stage that a round has once, whatever its arms."""
    return lambda arm, params, compute: work(arm.round, params, compute)


def out_of_memory(name: str, error: Exception) -> str:
    """What to do where a stage had too little memory, of a GPU or of the machine; nothing for any other error."""
    text = str(error).splitlines()[0] if str(error) else ""
    if isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in GPU_FULL):
        where = "the GPU ran out of memory"
    elif isinstance(error, MemoryError) or "can't allocate memory" in text:
        where = "the machine ran out of memory"
    else:
        return ""
    advice = "`dadc abort` it and take a smaller model.name in params.yaml"
    advice = f"{amended(f'lower {LOWER[name]}')}, or {advice}" if name in LOWER else advice
    return f"{where} ({text or 'MemoryError'}); what the round has is kept: go on where there is more, or {advice}"


def amended(what: str) -> str:
    """The cure for parameters with which a round cannot be finished: its own params.yaml is not read anew by itself."""
    return f"{what} in params.yaml, commit that, and `dadc amend` has the round take it"


def run(name: str, work: Work, arm: Arm) -> None:
    """Run a stage under its lock, by the parameters frozen in the round's folder, in as many processes as they say.

    A closed round stays what it is.
    """
    round_ = arm.round
    params = read(round_.params)
    devices.keep_memory()
    first = devices.first_process()
    with (
        locked(name, arm) if first else nullcontext(),
        devices.launched(params) as compute,
        reproducible(params, name, arm.label, strict=compute.device.type == "cpu"),
        guard_closed_round(dvc_stage(name, arm), round_, params, say) if first else nullcontext(),
    ):
        began = time.monotonic()
        work(arm, params, compute)
        compute.say(f"{name} {arm.label}: worked {time.monotonic() - began:.1f} s")


def dvc_stage(name: str, arm: Arm) -> str:
    """A stage's name in dvc.yaml: `train`, or of another arm than the challenger `train_reference`."""
    return name if arm.name == CHALLENGER else f"{name}_{arm.name}"


@contextmanager
def locked(name: str, arm: Arm) -> Iterator[None]:
    """No stage runs beside its retry: wait, and say so, until the other has ended."""
    path = arm.round.workspace.local / "locks" / f"stage-{name}-{arm.label.replace('/', '-')}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{name} {arm.label} still runs in another process; waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def reproducible(params: Params, *names: object, strict: bool = True) -> Iterator[None]:
    """Fix threads, algorithms, the precision of fp32 and torch's own generator; what was set before comes back.

    strict: refuse an operation that has no deterministic form, instead of warning of it; a GPU lacks some.
    """
    threads, before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    state = torch.get_rng_state()
    exact: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    precisions = [kind.fp32_precision for kind in exact]
    torch.set_num_threads(params.threads)
    # Not use_deterministic_algorithms: that imports torch's compiler, which takes as long as torch.
    torch.set_deterministic_debug_mode("error" if strict else "warn")
    for kind in exact:
        kind.fp32_precision = "ieee"  # no TF32: what is reported as fp32 is fp32
    torch.manual_seed(derive(params.seed, *names))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(before)
        for kind, precision in zip(exact, precisions, strict=True):
            kind.fp32_precision = precision
        torch.set_rng_state(state)


def say(line: str) -> None:
    """A line of progress, at once: DVC and Prefect pass it on."""
    print(line, flush=True)


def generator(params: Params, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for what `names` name, which draws on a device."""
    return torch.Generator(device).manual_seed(derive(params.seed, *names))
