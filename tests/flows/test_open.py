"""What `dadc open` refuses before it freezes anything, and what it freezes anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from round_states import closed

from data.layout import Round, Workspace
from flows.campaign import load
from flows.open import freeze_params, round_to_open
from tasks.config.params import read
from tasks.labelling.client import connect
from tasks.labelling.projects import title
from tasks.workspace.git import commit
from tasks.workspace.services import find_services


def set_drawings(workspace: Workspace, count: int) -> None:
    """Change collect.drawings in params.yaml, and commit it as a user does."""
    before = read(workspace.params).collect.drawings
    text = workspace.params.read_text()
    workspace.params.write_text(text.replace(f"drawings: {before}\n", f"drawings: {count}\n"))
    commit(workspace, f"{count} drawings", workspace.params)


def drawings(round_: Round) -> int:
    return read(round_.params).collect.drawings


def freeze(root: Path) -> Round:
    """The first step of opening: freeze params.yaml."""
    campaign = load(root)
    round_ = round_to_open(campaign)
    freeze_params.fn(campaign, round_)  # type: ignore[attr-defined]
    return round_


def test_more_than_the_pool_holds_is_refused_before_anything_is_frozen(initialised: Path) -> None:
    closed(initialised).challenger.model.write_bytes(b"weights")
    workspace = Workspace(initialised)
    set_drawings(workspace, 3000)
    with pytest.raises(ValueError, match=r"3000 drawings, .*the pool holds 60; lower attack\.count, collect\.drawings"):
        round_to_open(load(initialised))
    assert not workspace.round(1).folder.exists()
    set_drawings(workspace, 5)
    assert drawings(freeze(initialised)) == 5


def test_round_000_is_refused_for_what_no_round_after_it_could_have(initialised: Path) -> None:
    set_drawings(Workspace(initialised), 3000)
    with pytest.raises(ValueError, match="the pool holds 60"):
        round_to_open(load(initialised))


@pytest.mark.usefixtures("services")
def test_what_a_failed_open_froze_is_frozen_anew_until_people_may_have_seen_it(
    initialised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed(initialised).challenger.model.write_bytes(b"weights")
    workspace = Workspace(initialised)
    assert drawings(freeze(initialised)) == 4
    commit(workspace, "work in progress", workspace.round(1).params, workspace.index)  # decides nothing
    set_drawings(workspace, 3)
    assert drawings(freeze(initialised)) == 3
    assert "params.yaml has changed since round 001 began to open; it is frozen as it is now" in capsys.readouterr().out

    studio = connect(find_services(initialised))
    name = title(read(workspace.params).campaign, workspace.round(1), "draw")
    studio.ensure_project(name, "<View></View>", instruction="")
    set_drawings(workspace, 2)
    assert drawings(freeze(initialised)) == 3
    assert "round 001 keeps the params.yaml by which its tasks were published" in capsys.readouterr().out
