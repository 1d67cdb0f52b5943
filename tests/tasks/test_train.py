"""The train stage, for real, on a few hundred digits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import frozen

from data.layout import Round
from data.records import Candidate, Verdict
from data.shards import encode_png, write_candidates
from tasks.attacks._validation import clean_and_robust
from tasks.config.params import read
from tasks.engine import checkpoint, stage, train_state
from tasks.freeze import freeze
from tasks.rift import rift
from tasks.train import candidates_of, train
from tasks.workspace import inputs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def closing(make_workspace: Callable[..., Path]) -> Callable[..., Round]:
    """Round 000, frozen and ready to be trained; keyword arguments change sections of params.yaml."""

    def make(**changes: object) -> Round:
        return frozen(make_workspace(data={"size": 20, "gate": 0}, **changes))

    return make


def test_it_learns_keeps_the_best_epoch_and_makes_the_same_bytes_again(closing: Callable[..., Round]) -> None:
    round_ = closing(train={"epochs": 4, "batch": 16})
    stage.run("train", train, round_.challenger)
    weights, history = round_.challenger.trained.read_bytes(), round_.challenger.history.read_bytes()
    told = json.loads(history)
    assert [epoch["epoch"] for epoch in told["epochs"]] == [1, 2, 3, 4]
    assert told["loss"] == "plain", "round 000 trains with first.loss"
    kept = told["epochs"][told["kept"] - 1]
    assert kept == max(told["epochs"], key=lambda epoch: (epoch["robust"] + epoch["clean"], epoch["robust"]))
    assert told["epochs"][-1]["clean"] > 0.6
    assert told["epochs"][-1]["loss"] < told["epochs"][0]["loss"]

    params, validation = read(round_.params), inputs.images(round_.workspace, "validation")
    net, card = checkpoint.load(round_.challenger.trained)
    reached = clean_and_robust(net, validation, threat=params.threat, seed=params.seed)
    assert reached == (kept["clean"], kept["robust"])
    assert (card.round, card.model, card.classes) == (0, "nsl_cnn", validation.classes)

    stage.run("train", train, round_.challenger)
    assert round_.challenger.trained.read_bytes() == weights
    assert round_.challenger.history.read_bytes() == history


def test_going_on_from_the_target(closing: Callable[..., Round]) -> None:
    """With next to no learning rate the target's weights come out, and another network is refused."""
    first = closing(train={"epochs": 1, "init": "target", "optimizer": "sgd", "learning_rate": 1e-12})
    stage.run("train", train, first.challenger)
    shutil.copyfile(first.challenger.trained, first.challenger.model)
    second = first.workspace.round(1)
    second.folder.mkdir()
    shutil.copyfile(first.params, second.params)
    params = read(second.params)
    freeze(second, [], params, first)
    stage.run("train", train, second.challenger)
    (before, _), (after, card) = checkpoint.load(first.challenger.model), checkpoint.load(second.challenger.trained)
    for name, weight in before.state_dict().items():
        assert torch.allclose(weight, after.state_dict()[name], atol=1e-6)
    assert card.round == 1

    second.params.write_text(second.params.read_text().replace("name: nsl_cnn", "name: space_cnn"))
    with pytest.raises(ValueError, match=r"set train\.init to scratch"):
        stage.run("train", train, second.challenger)


def test_a_reference_is_trained_without_this_rounds_candidates_and_by_another_seed(
    closing: Callable[..., Round], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = closing(train={"epochs": 1, "batch": 16}, first={"rift": True}, rift={"attack": {"steps": 1}})
    stage.run("train", train, first.challenger)
    shutil.copyfile(first.challenger.trained, first.challenger.model)
    second = first.workspace.round(1)
    second.folder.mkdir()
    shutil.copyfile(first.params, second.params)
    pixels = torch.full((1, 20, 20), 7, dtype=torch.uint8)
    own = Candidate("own", 1, "simulated", encode_png(pixels), 1, answer=0, verdict=Verdict.VERIFIED, split="train")
    freeze(second, [own], read(second.params), first)
    monkeypatch.chdir(second.workspace.root)
    for arguments in (["001"], ["001", "--arm", "reference"]):
        stage.main("train", train, arguments)
    lineage = inputs.lineage(second)
    assert [len(list(candidates_of(arm, lineage))) for arm in (second.challenger, second.arm("reference"))] == [1, 0]
    reference = second.arm("reference")
    assert reference.trained == second.folder / "reference" / "train.safetensors"
    assert json.loads(reference.history.read_text())["epochs"]
    one, other = (checkpoint.load(arm.trained)[0].state_dict() for arm in (second.challenger, reference))
    assert not any(torch.allclose(weight, other[name]) for name, weight in one.items())
    said = capsys.readouterr().out
    assert "train 001/reference: epoch 1/1" in said

    stage.main("rift", rift, ["001", "--arm", "reference"])
    assert reference.model.exists()
    assert not second.challenger.model.exists()
    with pytest.raises(SystemExit) as ended:
        stage.main("train", train, ["001", "--arm", "best"])
    assert ended.value.code == 2
    usage = "usage: python -m tasks.train NNN [--arm challenger|reference|control], a round of three digits"
    assert usage in capsys.readouterr().err
    with pytest.raises(ValueError, match="an arm must be one of challenger, reference, control, got 'best'"):
        second.arm("best")


def test_a_shard_that_was_changed_is_an_error(closing: Callable[..., Round]) -> None:
    round_ = closing()
    blob = encode_png(torch.full((1, 20, 20), 7, dtype=torch.uint8))
    write_candidates(round_.candidates, [Candidate("late", 1, "simulated", blob, 1, answer=0)])
    with pytest.raises(ValueError, match=r"candidates.parquet is not what was frozen: expected md5"):
        stage.run("train", train, round_.challenger)
    assert not round_.challenger.trained.exists()


def test_a_killed_training_ends_with_the_bytes_of_an_unharmed_one(
    closing: Callable[..., Round], capfd: pytest.CaptureFixture[str]
) -> None:
    round_ = closing(train={"epochs": 6, "batch": 16})
    stage.run("train", train, round_.challenger)
    wanted = round_.challenger.trained.read_bytes(), round_.challenger.history.read_bytes()
    kept = train_state.store(round_.challenger, "train").path
    assert not kept.exists(), "it goes away at the end"
    round_.challenger.trained.unlink()
    round_.challenger.history.unlink()

    command = [sys.executable, "-m", "tasks.train", round_.name]
    process = subprocess.Popen(command, cwd=round_.workspace.root, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert kept.exists()
    assert not round_.challenger.trained.exists(), "it was killed under way"
    stage.run("train", train, round_.challenger)
    assert "goes on after epoch" in capfd.readouterr().out
    assert (round_.challenger.trained.read_bytes(), round_.challenger.history.read_bytes()) == wanted
    assert not kept.exists()
