"""Devices and processes: two gloo processes come to what one does, within its intervals; a word for what is missing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import frozen, run

from data.files import md5
from data.layout import Arm, Round
from data.shards import read_candidates
from tasks.attack import attack
from tasks.config.params import Params, read
from tasks.engine import stage
from tasks.engine.devices import ONE_PROCESS, Compute, first_process, launched
from tasks.evaluate import evaluate
from tasks.rift import rift
from tasks.train import train
from tasks.workspace.rounds import write_index

PGD = {"steps": 4, "step_size": 0.02, "restarts": 1}


@pytest.fixture
def ready(make_workspace: Callable[..., Path]) -> Callable[..., Round]:
    """Round 000, frozen and ready to be trained; keyword arguments change sections of params.yaml."""

    def make(name: str = "workspace", **changes: object) -> Round:
        given = {"data": {"size": 16, "limit": 700}, "train": {"epochs": 8, "batch": 32}, **changes}
        evaluate = {"attacks": {"fgsm": {}, "pgd": PGD}, "battery": {"apgd_ce": {"steps": 4}}, "epsilons": [0.05]}
        return frozen(make_workspace(name, evaluate=evaluate, threat={"epsilon": 0.05}, **given))

    return make


def in_processes(round_: Round, stages: str, launcher: tuple[str, ...] = ()) -> str:
    """Run stages as DVC does."""
    said = ""
    for name in stages.split():
        said += run(round_.workspace.root, sys.executable, *launcher, "-m", f"tasks.{name}", round_.name).stdout
    return said


def test_two_processes_come_to_what_one_does(ready: Callable[..., Round]) -> None:
    """NSL, whose backward runs through the images too."""
    common: dict[str, object] = {"first": {"loss": {"name": "nsl", "params": {"step_size": 0.05}}}}
    alone = ready("one", **common)
    for name, work in (("train", train), ("rift", rift), ("evaluate", evaluate)):
        stage.run(name, work, alone.challenger)
    both = ready("two", devices=2, **common)
    said = in_processes(both, "train rift evaluate")
    assert said.count("epoch 8/8") == 1, "one of them speaks"

    one, two = (json.loads(r.challenger.metrics.read_text()) for r in (alone, both))
    for path in (
        ("clean",),
        ("robust", "fgsm"),
        ("robust", "pgd"),
        ("robust", "worst"),
        ("ood", "mean"),
        ("curve", "0.05"),
    ):
        a, b = one, two
        for key in path:
            a, b = a[key], b[key]
        assert a["n"] == b["n"]
        assert a["low"] <= b["high"], (path, a, b)
        assert b["low"] <= a["high"], (path, a, b)
    assert two["clean"]["accuracy"] > 0.6, "it learned"
    tried = two["battery"]["apgd_ce"]
    assert tried["tried"] - tried["broken"] == round(two["robust"]["worst"]["accuracy"] * two["clean"]["n"])
    assert json.loads(both.challenger.history.read_text())["processes"] == 2
    assert json.loads(both.lineage.read_text())["environment"]["devices"] == 2
    assert "processes" not in json.loads(alone.challenger.history.read_text())

    # the attack stage, in a round that attacks this network
    second = both.workspace.round(1)
    second.folder.mkdir()
    shutil.copyfile(both.params, second.params)
    write_index(second, "collected", {"target": "data/rounds/000/model.safetensors"})
    in_processes(second, "attack")
    made = read_candidates(second.attack)
    second.params.write_text(second.params.read_text().replace("devices: 2", "devices: 1"))
    stage.run("attack", stage.of_round(attack), second.challenger)
    assert [c.key for c in read_candidates(second.attack)] == [c.key for c in made]
    # and torchrun in the place of our own launcher
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    before = md5(both.challenger.predictions)
    both.params.write_text(both.params.read_text().replace("devices: 2", "devices: 1"))
    in_processes(both, "evaluate", launcher)
    assert md5(both.challenger.predictions) == before, "the same processes, the same answers"


def test_a_gpu_that_is_not_there_has_a_word(ready: Callable[..., Round]) -> None:
    round_ = ready(accelerator="cuda", devices=torch.cuda.device_count() + 1)
    done = run(round_.workspace.root, sys.executable, "-m", "tasks.train", "000", check=False)
    assert done.returncode == 1
    assert "error: train 000: expected accelerator cuda with" in done.stderr
    assert "go on where they are, or lower devices or set accelerator: cpu in params.yaml" in done.stderr
    assert "`dadc amend`" in done.stderr


def test_one_process_on_the_cpu_needs_no_fabric() -> None:
    code = (
        "import sys; from pathlib import Path; from tasks.config.params import read\n"
        "from tasks.engine.devices import launched\n"
        "with launched(read(Path('params.yaml'))) as here: assert here.first and here.world == 1\n"
        "assert not any(name.startswith('lightning') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


def test_alone_nothing_is_shared_out_or_added() -> None:
    values = torch.arange(5)
    assert ONE_PROCESS.shard(values) is values
    assert ONE_PROCESS.all_gather(values, 5) is values
    assert ONE_PROCESS.all_reduce(values) is values
    assert Compute(rank=1, world=2).shard(values).tolist() == [3, 4]
    assert Compute(rank=0, world=2).shard(values).tolist() == [0, 1, 2]


class Twin:
    """The sum over two processes that found the same."""

    def all_reduce(self, values: torch.Tensor, reduce_op: str) -> torch.Tensor:
        return values * 2 if reduce_op == "sum" else values


def test_gradients_of_equals_are_what_they_were_and_laid_out_as_the_weights() -> None:
    """Fused Adam goes through memory in order: a gradient laid out otherwise would move other weights."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    net = net.to(memory_format=torch.channels_last)
    net(torch.rand(2, 3, 3, 3)).square().sum().backward()
    wanted = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    assert Compute(world=2, fabric=Twin()).average_gradients(net, 1.5, 3.0) == pytest.approx(1.5)
    for p, before in zip(net.parameters(), wanted, strict=True):
        assert p.grad is not None
        assert torch.allclose(p.grad, before)
        assert p.grad.stride() == p.stride()


def test_who_is_first_is_known_before_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not first_process()
    monkeypatch.setenv("RANK", "0")
    assert first_process()


def test_fp32_is_fp32(checkout: Path) -> None:
    params = read(checkout / "params.yaml")
    before = torch.backends.cudnn.conv.fp32_precision
    with launched(params), stage.reproducible(params, "x"):
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_too_little_memory_has_a_word_and_keeps_the_round(ready: Callable[..., Round]) -> None:
    """The machine's memory really ends: a limit on the process, and a batch that is larger."""
    round_ = ready(train={"epochs": 1, "batch": 1000}, model={"name": "wrn_34_10"})
    code = (
        "import resource, runpy, sys, torch, torchvision, pyarrow.parquet\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 900_000_000,) * 2)\n"
        "sys.argv = ['train', '000']; runpy.run_module('tasks.train', run_name='__main__')"
    )
    before = {p.name for p in round_.folder.iterdir()}
    done = run(round_.workspace.root, sys.executable, "-c", code, check=False)
    assert done.returncode == 1
    assert "error: train 000: the machine ran out of memory" in done.stderr, done.stderr[-500:]
    assert "lower train.batch in params.yaml, commit that, and `dadc amend`" in done.stderr
    assert "`dadc abort` it and take a smaller model.name in params.yaml" in done.stderr
    assert {p.name for p in round_.folder.iterdir()} == before


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),  # another process has it all
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_gpu_that_runs_out_of_memory_has_a_word(
    ready: Callable[..., Round],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: RuntimeError,
) -> None:
    """What torch raises on a GPU; there is none here."""
    round_ = ready()

    def work(arm: Arm, params: Params, compute: Compute) -> None:
        raise error

    monkeypatch.chdir(round_.workspace.root)
    with pytest.raises(SystemExit) as ended:
        stage.main("rift", work, ["000"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"the GPU ran out of memory ({str(error).splitlines()[0]})" in said
    assert "lower rift.batch" in said

    def broken(arm: Arm, params: Params, compute: Compute) -> None:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="ours"):
        stage.main("rift", broken, ["000"])


FAULTS = """
import resource, sys
import torch
from tasks.engine.devices import keep_memory

if sys.argv[1] == "kept":
    keep_memory()
first = torch.ones(4_000_000)
for _ in range(3):
    first = torch.ones(4_000_000) + first
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    first = torch.ones(4_000_000) + first
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_tensors_give_back_is_kept_for_the_next() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # else it hangs on chance what glibc gives back
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env=given).stdout)

    assert faults("kept") < faults("given back") / 4
