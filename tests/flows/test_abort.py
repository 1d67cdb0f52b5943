"""Giving a round up: what stays, what is taken away, and where the campaign goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import dadc
from round_states import closed, opened

from data.files import md5
from data.layout import Round
from flows.abort import abort
from flows.campaign import load
from flows.open import round_to_open
from tasks.workspace.dvc import dvc_remote
from tasks.workspace.git import WorkspaceError, commit, git
from tasks.workspace.rounds import State, read_index, rounds, state


def gone(round_: Round) -> None:
    """Nothing of the round is left in the record, and it is the next to be opened."""
    workspace = round_.workspace
    assert state(round_) is State.ABSENT
    assert rounds(workspace) == []
    assert read_index(workspace) == {"rounds": {}, "collected": {}}
    assert git(workspace, "status", "--porcelain") == ""
    assert git(workspace, "ls-files", str(round_.folder)) == ""
    assert round_to_open(load(workspace.root)) == round_


def test_round_000_is_taken_away_and_can_be_opened_anew(initialised: Path) -> None:
    round_ = opened(initialised)
    abort(initialised, "no GPU here")
    gone(round_)
    assert git(round_.workspace, "log", "-1", "--format=%s") == "Abort round 000: no GPU here"
    (kept,) = (round_.workspace.local / "aborted").iterdir()
    assert json.loads((kept / "aborted.json").read_text())["why"] == "no GPU here"
    assert (kept / round_.challenger.trained.name).read_bytes() == b"half"
    with pytest.raises(WorkspaceError, match="no round is open"):
        abort(initialised, "")
    abort_again = opened(initialised)
    abort(initialised, "")
    gone(abort_again)


def test_an_abort_of_round_000_that_was_cut_short_goes_on(initialised: Path) -> None:
    round_ = opened(initialised)
    round_.folder.rename(initialised / ".dadc" / "000")  # moved, and killed before the commit
    abort(initialised, "")
    gone(round_)
    round_ = opened(initialised)
    round_.aborted.write_text("{}")  # said, and killed before it was moved; older versions left it so, in a commit
    commit(round_.workspace, "Abort round 000", round_.aborted)
    with pytest.raises(WorkspaceError, match="`dadc abort` removes it, so that it can be opened again"):
        round_to_open(load(initialised))
    abort(initialised, "")
    gone(round_)


def test_a_closed_round_is_not_given_up(initialised: Path) -> None:
    round_ = closed(initialised)
    with pytest.raises(WorkspaceError, match="no round is open"):
        abort(initialised, "")
    assert state(round_) is State.CLOSED


def test_nor_is_one_whose_tag_was_not_given_to_this_clone(initialised: Path) -> None:
    round_ = closed(initialised)
    git(round_.workspace, "tag", "--delete", round_.tag)
    with pytest.raises(WorkspaceError, match="no round is open"):
        abort(initialised, "")
    assert state(round_) is State.CLOSED


def test_any_other_round_stays_and_its_number_is_spent(initialised: Path) -> None:
    closed(initialised).challenger.model.write_bytes(b"weights")
    round_ = opened(initialised, 1)
    round_.aborted.write_text("{}")  # killed before the commit
    round_.annotations.write_text('{"drawn": 1}\n')
    abort(initialised, "")
    assert state(round_) is State.ABORTED
    digest = md5(round_.annotations)
    store = Path(dvc_remote(round_.workspace)[1])
    assert (store / "files" / "md5" / digest[:2] / digest[2:]).exists(), "a clone gets what was collected"
    assert git(round_.workspace, "ls-files", str(round_.aborted))
    assert round_to_open(load(initialised)).number == 2
    with pytest.raises(WorkspaceError, match="no round is open"):
        abort(initialised, "")


def test_a_campaign_whose_champion_was_refused_says_what_to_do(initialised: Path) -> None:
    closed(initialised).challenger.metrics.write_text('{"promoted": false}')
    with pytest.raises(WorkspaceError, match="refused; `dadc decide NNN --promote"):
        round_to_open(load(initialised))


@pytest.mark.usefixtures("services")
def test_a_campaign_goes_on_from_an_aborted_round_000(initialised: Path) -> None:
    """Aborted when all was frozen for a machine that had another GPU."""
    round_ = opened(initialised)
    text = round_.params.read_text().replace("accelerator: cpu", "accelerator: cuda")
    round_.params.write_text(text.replace("devices: 1", "devices: 64"))
    commit(round_.workspace, "as opened elsewhere", round_.params)
    said = dadc(initialised, "run", "--rounds", "0", check=False).stderr
    assert "go on where they are, or lower devices or set accelerator: cpu in params.yaml" in said
    dadc(initialised, "abort", "--why", "no such GPUs")
    assert "round 000 is closed" in dadc(initialised, "run", "--rounds", "0").stdout
