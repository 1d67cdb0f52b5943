"""What the stage commands share: one at a time, the same bytes, nothing but what was frozen."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from data.files import write_json
from data.layout import Workspace
from tasks.config.params import read
from tasks.engine import stage
from tasks.workspace import inputs

PARAMS = read(Path(__file__).parents[3] / "params.yaml")


def test_a_stage_waits_for_its_other_self(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    round_, order = Workspace(tmp_path).round(1), []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with stage.locked("train", round_.challenger):
            entered.set()
            leave.wait(10)
            order.append("first")

    def second() -> None:
        with stage.locked("train", round_.challenger):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(10)
    with stage.locked("train", round_.workspace.round(2).challenger), stage.locked("train", round_.arm("reference")):
        pass  # another round's, and another arm's, is free
    threads[1].start()
    deadline = time.monotonic() + 10
    while "train 001 still runs in another process" not in capsys.readouterr().out:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]


def test_a_failed_stage_leaves_the_lock(tmp_path: Path) -> None:
    round_ = Workspace(tmp_path).round(1)
    with pytest.raises(ValueError, match="broken"), stage.locked("rift", round_.challenger):
        raise ValueError("broken")
    with stage.locked("rift", round_.challenger):
        pass


def test_the_same_names_give_the_same_draws_and_nothing_is_left_behind() -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    drawn = []
    for names in (("train", "001"), ("train", "001"), ("train", "002")):
        with stage.reproducible(PARAMS, *names):
            assert torch.get_deterministic_debug_mode() == 2
            assert torch.get_num_threads() == PARAMS.threads
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_deterministic_debug_mode() == 0
    assert torch.get_num_threads() == threads


def test_only_the_frozen_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError, match="dvc pull"):
        inputs.with_digest(path, "")
    path.write_bytes(b"a")
    assert inputs.with_digest(path, "0cc175b9c0f1b6a831c399e269772661") == path
    path.write_bytes(b"b")
    with pytest.raises(ValueError, match="expected md5 0cc175"):
        inputs.with_digest(path, "0cc175b9c0f1b6a831c399e269772661")


def test_json_is_sorted_and_refuses_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": {"d": None, "c": "ä"}})
    assert path.read_text() == '{\n  "a": {\n    "c": "ä",\n    "d": null\n  },\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert "ä" in path.read_text(), "what was there is left"
