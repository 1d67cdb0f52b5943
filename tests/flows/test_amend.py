"""Training an open round in another way: what may change, what may not, and that the round is closed so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import dadc
from round_states import closed, opened

from data.layout import Round, Workspace
from flows.amend import amend
from tasks.config.params import read
from tasks.engine import precision
from tasks.workspace.git import WorkspaceError, commit, git
from tasks.workspace.rounds import State, state


def say(root: Path, **values: Any) -> None:
    """Commit params.yaml with these values; `train__batch` is train.batch."""
    workspace = Workspace(root)
    content = yaml.safe_load(workspace.params.read_text())
    for key, value in values.items():
        *sections, last = key.split("__")
        section = content
        for each in sections:
            section = section[each]
        section[last] = value
    workspace.params.write_text(yaml.safe_dump(content, sort_keys=False))
    commit(workspace, "Train in another way", workspace.params)


RATE = {"train__learning_rate": 0.0005}


@pytest.fixture
def round_(initialised: Path) -> Round:
    """Round 001, open, after a closed one."""
    closed(initialised)
    return opened(initialised, 1)


def test_an_open_round_is_trained_by_what_params_yaml_says_now(round_: Round) -> None:
    root = round_.workspace.root
    say(root, **RATE, train__loss={"name": "trades", "params": {}})
    amend(root)
    assert round_.params.read_bytes() == round_.workspace.params.read_bytes()
    said = git(round_.workspace, "log", "-1", "--format=%B")
    assert said.startswith("Amend round 001\n\ntrain.learning_rate 0.002 → 0.0005\ntrain.loss.name nsl → trades\n")
    assert "train.loss.params.multiplier 2.0 → –" in said
    assert state(round_) is State.OPEN
    assert git(round_.workspace, "diff", "HEAD", "--name-only") == ""
    amend(root)
    assert git(round_.workspace, "log", "-1", "--format=%B") == said, "twice is once"


@pytest.mark.parametrize(
    ("key", "value"),
    [("threat__epsilon", 0.2), ("collect__drawings", 30), ("promote__alpha", 0.5), ("model__name", "space_cnn")],
)
def test_what_was_settled_at_opening_stays(round_: Round, key: str, value: object) -> None:
    before, named = round_.params.read_bytes(), key.replace("__", ".")
    say(round_.workspace.root, **RATE, **{key: value})
    with pytest.raises(WorkspaceError, match=rf"round 001's own in {named} too; put those back"):
        amend(round_.workspace.root)
    assert round_.params.read_bytes() == before


def test_an_amendment_that_was_cut_short_is_committed(round_: Round) -> None:
    say(round_.workspace.root, **RATE)
    round_.params.write_bytes(round_.workspace.params.read_bytes())  # killed before the commit
    amend(round_.workspace.root)
    assert "0.002 → 0.0005" in git(round_.workspace, "log", "-1", "--format=%B")
    assert git(round_.workspace, "diff", "HEAD", "--name-only") == ""


def test_parameters_that_are_none_are_refused(round_: Round) -> None:
    before = round_.params.read_bytes()
    say(round_.workspace.root, train__loss__name="magic")
    with pytest.raises(ValueError, match=r"train\.loss: expected a file of tasks/losses/"):
        amend(round_.workspace.root)
    say(round_.workspace.root, train__loss__name="nsl", devices=64, accelerator="cuda")
    with pytest.raises(ValueError, match=r"expected accelerator cuda with 64 devices"):
        amend(round_.workspace.root)
    round_.workspace.params.write_text(round_.workspace.params.read_text() + "\n")
    with pytest.raises(WorkspaceError, match="must be committed"):
        amend(round_.workspace.root)
    assert round_.params.read_bytes() == before


def test_only_an_open_round_is_amended(initialised: Path) -> None:
    with pytest.raises(WorkspaceError, match="no round is open, so none can be amended"):
        amend(initialised)
    round_ = closed(initialised)
    git(round_.workspace, "tag", "--delete", round_.tag)
    with pytest.raises(WorkspaceError, match="no round is open, so none can be amended"):
        amend(initialised)


def test_a_frozen_round_says_where_it_is_trained_now(round_: Round) -> None:
    told = {"round": 1, "shards": [], "environment": {"devices": 1}}
    round_.lineage.write_text(json.dumps(told))
    say(round_.workspace.root, **RATE)
    amend(round_.workspace.root)
    assert json.loads(round_.lineage.read_text()) == told, "what a stage hangs on is not touched without need"
    say(round_.workspace.root, devices=2)
    amend(round_.workspace.root)
    found = json.loads(round_.lineage.read_text())
    assert (found["shards"], found["environment"]["devices"]) == ([], 2)
    assert state(round_) is State.CLOSING


def test_the_precision_is_settled_anew_and_goes_into_the_lineage(
    round_: Round, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = round_.workspace.root
    round_.opened.write_text(json.dumps({"at": "2026-01-01T00:00:00+00:00"}) + "\n")
    commit(round_.workspace, "Opened by a clock", round_.opened)
    round_.lineage.write_text(json.dumps({"round": 1, "environment": {"devices": 1}}))
    monkeypatch.setattr(precision, "trial", lambda *_: precision.Trial("this processor", native=True, gain=2.0))
    say(root, train__precision="auto", evaluate__precision="auto")
    amend(root)
    said = "train.precision and evaluate.precision: auto is bf16 here, bf16 takes 0.50 times as long as fp32 on this"
    assert said in capsys.readouterr().out
    assert json.loads(round_.opened.read_text())["precision"] == "bf16"
    assert json.loads(round_.lineage.read_text())["environment"]["precision"] == "bf16"
    say(root, train__precision="fp32", evaluate__precision="fp32")
    amend(root)
    assert json.loads(round_.opened.read_text()) == {"at": "2026-01-01T00:00:00+00:00"}
    assert "precision" not in json.loads(round_.lineage.read_text())["environment"]
    assert git(round_.workspace, "diff", "HEAD", "--name-only", "--", str(round_.opened)) == ""


@pytest.mark.usefixtures("services")
def test_a_round_that_diverged_is_trained_anew_and_closed(initialised: Path) -> None:
    say(initialised, train__optimizer="sgd", train__learning_rate=1e30, train__precision="auto")
    done = dadc(initialised, "run", "--rounds", "0", check=False)
    assert (
        "training has diverged; lower train.learning_rate (now 1e+30) in params.yaml, commit that, and `dadc amend`"
        in done.stderr
    )
    assert "train.precision: auto is " in done.stdout
    say(initialised, train__learning_rate=0.05)
    assert "round 000 now has train.learning_rate 1e+30 → 0.05" in dadc(initialised, "amend").stdout
    assert "round 000 is closed" in dadc(initialised, "run", "--rounds", "0").stdout
    round_ = Workspace(initialised).round(0)
    assert read(round_.params).train.learning_rate == 0.05
    settled = json.loads(round_.opened.read_text())["precision"]
    assert json.loads(round_.lineage.read_text())["environment"]["precision"] == settled
    assert git(round_.workspace, "diff", "HEAD", "--name-only") == ""
