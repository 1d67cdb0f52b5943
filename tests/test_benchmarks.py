"""Every benchmark runs quickly, prints its table and writes its figures in the promised form."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import _nets, _packed, gpu, rift
from benchmarks._frame import Measured, apart, interleaved, table
from tasks.config.kinds import check_kinds
from tasks.engine.devices import Compute

ROOT = Path(__file__).parent.parent
LONG = ("growth", "overhead", "rift")  # minutes, even when quick: with DADC_BENCHMARKS=all
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("services")  # those that need servers use the session's instead of their own
def test_a_benchmark_runs_and_writes_its_figures(name: str, tmp_path: Path) -> None:
    if name in LONG and os.environ.get("DADC_BENCHMARKS") != "all":
        pytest.skip("takes minutes; DADC_BENCHMARKS=all runs it")
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    figures = json.loads(file.read_text())
    assert figures, "a benchmark measures something"
    for figure in figures:
        assert set(figure) == {"name", "value", "unit", "target", "better", "met"}
        assert figure["better"] in ("higher", "lower")
        assert figure["value"] > 0 or figure["unit"] == "points" or (figure["value"] == 0 and figure["unit"] == "%")
        assert (figure["met"] is None) == (figure["target"] is None)
        assert figure["name"] in done.stdout
    assert done.returncode == int(any(figure["met"] is False for figure in figures))


def test_networks_are_trained_where_the_benchmark_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fitted(net: nn.Module, *_: object, compute: Compute) -> tuple[nn.Module, dict[str, object]]:
        asked.append(compute)
        return net, {}

    monkeypatch.setattr(_nets.train, "fitted", fitted)
    digits, there = _nets.some(_nets.images(None, "train"), 20), Compute(torch.device("meta"))
    _nets.fitted("net", digits, digits, _nets.settings({}), there)
    assert asked == [there]


def test_every_row_of_rifts_paper_has_a_recipe_that_holds() -> None:
    rows = [(*row, "pgd_at") for row in rift.PUBLISHED] + [("cifar10", "resnet18", loss) for loss in rift.GAINED]
    assert len(rows) == 13
    for row in rows:
        given = rift.options(row)
        params = rift.settings(given, 3)
        check_kinds(params)
        assert (params.model.name, params.train.epochs, params.seed) == (row[1], 110, 3)
        assert params.threat.epsilon == pytest.approx(8 / 255)
        assert (params.train.awp is not None) == (row[2] == "awp")
        assert "published" in rift.published(given, 0)


def test_official_corrupted_files_are_read(tmp_path: Path) -> None:
    """Two kinds of two images: a network that answers by the red channel is right on three of the four."""
    np.save(tmp_path / "labels.npy", np.array([0, 1]))
    for name, second in (("fog", 255), ("snow", 0)):
        np.save(tmp_path / f"{name}.npy", np.stack([np.zeros((8, 8, 3), "u1"), np.full((8, 8, 3), second, "u1")]))

    class Red(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            red = images[:, 0].mean((1, 2))
            return torch.stack([1 - red, red], dim=1)

    assert rift.official(Red(), tmp_path).mean() == 0.75
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected labels\.npy and a file for each kind, such as fog\.npy"):
        rift.official(Red(), tmp_path)


def test_a_packed_set_is_read_to_the_last_bit(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    drawn: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]] = {"train": [], "test": []}
    for split, n in (("train", 5), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
                drawn[split] += [pixels] if i < 3 else []
    _packed.pack(tmp_path, tmp_path / "packed.zip", train=6)
    for split, labels in (("train", [0, 0, 0, 1, 1, 1]), ("test", [0, 0, 1, 1])):
        images = _packed.read(tmp_path / "packed.zip", split)
        assert images.labels_N.tolist() == labels
        assert images.classes == ("cat", "dog")
        assert np.array_equal(images.pixels_NCHW.permute(0, 2, 3, 1).numpy(), np.stack(drawn[split]))
    (tmp_path / "train" / "dog" / "0.png").unlink()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "train" / "dog" / "0.png")
    with pytest.raises(ValueError, match="square pictures of one size, 8 pixels"):
        _packed.pack(tmp_path, tmp_path / "packed.zip", train=6)


def test_the_gpus_table_keeps_to_its_minutes(tmp_path: Path) -> None:
    """Of no time at all the base is what remains, and the files say what was left out."""
    gpu.measure(gpu.options(["--quick", "--minutes", "0", "--out", str(tmp_path), "--accelerator", "cpu"]))
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["arm"] for row in found["rows"]] == ["base"]
    assert found["left out for want of time"] == [
        "statistics alone",
        "middle of the main path, weight",
        "middle of the main path, weight + statistics",
    ]
    assert (tmp_path / "gpu.md").read_text().splitlines()[2] == "| arm | tuned | α | clean | OOD | PGD-4 |"


def test_a_target_is_met_on_its_better_side() -> None:
    assert Measured("a", 2, "s", 2, "lower").met
    assert not Measured("a", 2.1, "s", 2, "lower").met
    assert Measured("a", 2, "1/s", 2, "higher").met
    assert not Measured("a", 1.9, "1/s", 2, "higher").met
    assert Measured("a", 1.9, "1/s", None, "higher").met is None
    shown = table([Measured("slow", 2.5, "s", 2, "lower"), Measured("beside", 1234.5, "1/s", None, "higher")])
    slow, beside = shown.splitlines()[1:]
    assert slow.split() == ["slow", "2.5", "s", "≤", "2", "s", "MISSED"]
    assert beside.split() == ["beside", "1,234", "1/s"]


def test_variants_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []
    now = iter(range(1000))

    def clock() -> float:
        return float(next(now)) ** 2

    found = interleaved({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 3, clock)
    assert turns == ["a", "b"] * 4
    # a is timed from 4 to 5, 8 to 9 and 12 to 13 of a clock that runs ever faster: 9, 17 and 25, and b: 13, 21 and 29
    assert found == {"a": 17, "b": 21}
    with pytest.raises(ValueError, match="repeats must be >= 1, got 0"):
        interleaved({}, 0)


def busy(turns: int) -> Callable[[], object]:
    """Work that grows with `turns`, which knows how often it was done in its process; none at all fails."""
    done: list[int] = []

    def run() -> None:
        done.append(len(done))
        if turns == 0 or len(done) > 4:
            raise ValueError(f"{turns} turns in process {os.getpid()}, the {len(done)}th time")
        sum(range(turns))

    return run


def test_variants_in_processes_of_their_own_take_turns(capfd: pytest.CaptureFixture[str]) -> None:
    found = apart({"short": partial(busy, 100_000), "long": partial(busy, 5_000_000)}, 3)
    assert 0 < found["short"] < found["long"]
    assert not multiprocessing.active_children()
    with pytest.raises(RuntimeError, match="none has failed in its process, whose own words are above"):
        apart({"short": partial(busy, 1), "none": partial(busy, 0)}, 1)
    assert "ValueError: 0 turns in process" in capfd.readouterr().err
    assert not multiprocessing.active_children()
