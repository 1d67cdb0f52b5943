"""The state of a round follows from real Git and DVC."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from data.files import write_whole
from data.layout import SPLITS, Round, Workspace, pointer
from data.records import ImageSpec
from flows.close import tag as put_tag
from tasks.workspace.checkout import check_initialised, find_workspace
from tasks.workspace.dvc import check_remote, dvc, dvc_remote
from tasks.workspace.git import WorkspaceError, check_branch, check_committed, commit, git
from tasks.workspace.lock import lock
from tasks.workspace.rounds import (
    State,
    check_elsewhere,
    check_tag,
    closing_commit,
    current,
    drop_from_index,
    opened_at,
    opening_commit,
    read_index,
    rounds,
    state,
    target,
    write_index,
)


@pytest.fixture
def workspace(make_workspace: Callable[..., Path]) -> Workspace:
    return Workspace(make_workspace())


def test_found_from_within_and_refused_elsewhere(workspace: Workspace, tmp_path: Path) -> None:
    assert find_workspace(workspace.root / "tasks").root == workspace.root.resolve()
    with pytest.raises(WorkspaceError, match="Clone the project first"):
        find_workspace(tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path / "other"], check=True)
    with pytest.raises(WorkspaceError, match="has no dvc.yaml"):
        find_workspace(tmp_path / "other")


def test_a_round_goes_through_its_states(workspace: Workspace) -> None:
    round_ = workspace.round(1)
    assert state(round_) is State.ABSENT
    assert rounds(workspace) == []
    round_.folder.mkdir(parents=True)
    assert state(round_) is State.ABSENT, "params.yaml is the first that opening writes"
    round_.params.write_text("seed: 0\n")
    assert state(round_) is State.OPENING
    stray(workspace)
    assert state(round_) is State.OPENING, "a commit opens nothing"
    round_.opened.write_text(AT)
    assert state(round_) is State.OPENING
    assert commit(workspace, "Open round 001", round_.params, round_.opened)
    assert not commit(workspace, "Open round 001", round_.params), "nothing new, no second commit"
    assert state(round_) is State.OPEN
    assert current(workspace) == round_
    round_.candidates.write_bytes(b"shard")
    assert state(round_) is State.OPEN, "half frozen is not frozen"
    round_.lineage.write_text("{}")
    round_.challenger.metrics.write_text("{}")
    stray(workspace)
    git(workspace, "tag", round_.tag)
    assert state(round_) is State.CLOSING, "neither a commit nor a tag closes a round"
    round_.closed.write_text(AT)
    assert state(round_) is State.CLOSING
    stray(workspace)
    assert state(round_) is State.CLOSED
    assert current(workspace) is None
    round_.aborted.write_text("{}")
    assert state(round_) is State.ABORTED


AT = '{"at": "2026-01-01T00:00:00+00:00"}\n'


def stray(workspace: Workspace) -> None:
    """`git add -A && git commit`, as a user types it at any moment."""
    git(workspace, "add", "-A")
    git(workspace, "commit", "--quiet", "--allow-empty", "--message", "work in progress")


def test_rounds_from_before_opened_json_and_closed_json(workspace: Workspace) -> None:
    """They are known by the messages of the commits that opened and closed them, and by their tags."""
    round_ = workspace.round(0)
    round_.folder.mkdir(parents=True)
    round_.params.write_text("seed: 0\n")
    stray(workspace)
    assert state(round_) is State.OPENING
    git(workspace, "commit", "--quiet", "--amend", "--message", "Open round 000")
    assert state(round_) is State.OPEN
    assert opened_at(round_) > 0
    round_.lineage.write_text("{}")
    round_.challenger.metrics.write_text("{}")
    stray(workspace)
    assert state(round_) is State.CLOSING
    where = git(workspace, "rev-parse", "HEAD")
    git(workspace, "tag", round_.tag)
    assert (state(round_), closing_commit(round_)) == (State.CLOSED, where)
    git(workspace, "tag", "--delete", round_.tag)
    git(workspace, "commit", "--quiet", "--amend", "--message", "Close round 000")
    assert state(round_) is State.CLOSED
    assert closing_commit(round_) == git(workspace, "rev-parse", "HEAD")


def opened(workspace: Workspace, number: int) -> Round:
    round_ = workspace.round(number)
    round_.folder.mkdir(parents=True, exist_ok=True)
    round_.params.write_text(f"seed: {number}\n")
    round_.opened.write_text(AT)
    commit(workspace, f"Open round {round_.name}", round_.params, round_.opened)
    return round_


def closed(workspace: Workspace, number: int) -> Round:
    round_ = opened(workspace, number)
    round_.lineage.write_text("{}")
    round_.closed.write_text(AT)
    commit(workspace, f"Close round {round_.name}", round_.lineage, round_.closed)
    git(workspace, "tag", round_.tag)
    return round_


def test_another_branch_closes_and_opens_nothing_here(workspace: Workspace) -> None:
    main = git(workspace, "symbolic-ref", "--short", "HEAD")
    first = closed(workspace, 0)
    git(workspace, "switch", "--quiet", "--create", "theirs")
    theirs = closed(workspace, 1)
    theirs.candidates.write_bytes(b"Git does not keep it")
    git(workspace, "switch", "--quiet", main)
    assert (state(first), state(theirs)) == (State.CLOSED, State.ABSENT), "its files alone are no round of this branch"
    assert current(workspace) is None
    with pytest.raises(WorkspaceError, match="data/rounds/001 holds files of a round 001 that another branch has"):
        check_elsewhere(workspace.round(2))
    theirs.candidates.unlink()
    theirs.folder.rmdir()
    with pytest.raises(WorkspaceError, match=r"round 001 was opened on another branch \(theirs, round-001\)"):
        check_elsewhere(theirs)
    check_elsewhere(workspace.round(2))

    mine = opened(workspace, 1)
    assert state(mine) is State.OPEN, "whatever tags somebody pushes"
    with pytest.raises(WorkspaceError, match="`git tag --delete round-001` if it is none of the campaign"):
        check_tag(mine)
    git(workspace, "tag", "--delete", "round-001")
    check_tag(mine)
    git(workspace, "switch", "--quiet", "--create", "feature", first.tag)
    mine.folder.mkdir(exist_ok=True)
    mine.annotations.write_text("")
    with pytest.raises(WorkspaceError, match="data/rounds/001 holds files of a round 001 that another branch has"):
        check_elsewhere(mine)


def test_a_clone_without_tags_gets_them_back_where_they_were(workspace: Workspace) -> None:
    round_ = closed(workspace, 0)
    where = git(workspace, "rev-parse", round_.tag)
    (workspace.root / "params.yaml").write_text("seed: 7\n")
    commit(workspace, "later", workspace.root / "params.yaml")
    git(workspace, "tag", "--delete", round_.tag)
    assert state(round_) is State.CLOSED, "a tag is a name for people"
    assert closing_commit(round_) == where
    git(workspace, "config", "tag.gpgSign", "true")
    git(workspace, "config", "core.editor", "sleep 60; false")
    put_tag(round_)
    assert git(workspace, "rev-parse", round_.tag) == where
    assert closing_commit(opened(workspace, 1)) == ""


def test_an_old_commit_shows_the_rounds_of_its_time(workspace: Workspace) -> None:
    first = closed(workspace, 0)
    now_open = opened(workspace, 1)
    now_open.annotations.write_text("{}\n")  # Git does not keep it, so that it stays
    git(workspace, "checkout", "--quiet", first.tag)
    assert (state(first), state(now_open)) == (State.CLOSED, State.ABSENT)
    assert current(workspace) is None


def test_a_shallow_clone_knows_no_beginnings(workspace: Workspace, tmp_path: Path) -> None:
    """Its oldest commit seems to have added all there was: the wrong one for a tag, a deadline, MLflow's runs."""
    round_ = closed(workspace, 0)
    git(workspace, "commit", "--quiet", "--allow-empty", "--message", "later")
    subprocess.run(["git", "clone", "-q", "--depth=1", workspace.root.as_uri(), tmp_path / "shallow"], check=True)
    shallow = Workspace(tmp_path / "shallow")
    assert state(shallow.round(0)) is State.CLOSED
    assert opened_at(shallow.round(0)) == opened_at(round_)
    for asked in (closing_commit, opening_commit):
        with pytest.raises(WorkspaceError, match="this clone is shallow; `git fetch --unshallow` brings it"):
            asked(shallow.round(0))
    git(shallow, "config", "user.name", "test")
    git(shallow, "config", "user.email", "test@localhost")
    assert opening_commit(opened(shallow, 1)), "what was begun here is known"
    git(shallow, "fetch", "--quiet", "--unshallow")
    assert closing_commit(shallow.round(0)) == closing_commit(round_)


@pytest.mark.parametrize("left", ["{", '{"write": {"%s/x": {"pid": %d, "cmd": "dvc add"}}, "read": {}}'])
def test_files_that_a_killed_dvc_held_are_free_again(workspace: Workspace, left: str) -> None:
    """A list that a kill tore; and a process that is dead and not buried, or another program under its number."""
    other = subprocess.Popen(["sleep", "60"])
    held = workspace.root / ".dvc" / "tmp" / "rwlock"
    held.parent.mkdir(parents=True, exist_ok=True)
    try:
        for state_of in ("another program", "a zombie"):
            held.write_text(left % (workspace.root, other.pid) if "%" in left else left)
            (workspace.root / "x").write_text(state_of)
            dvc(workspace, "add", "x", quiet=True)
            os.kill(other.pid, signal.SIGKILL)
            while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
    finally:
        other.kill()
        other.wait()


def test_a_workspace_that_was_moved_takes_its_store_along(workspace: Workspace, tmp_path: Path) -> None:
    said: list[str] = []
    store = tmp_path / "old" / ".dadc" / "remote"
    store.mkdir(parents=True)
    dvc(workspace, "remote", "add", "--default", "store", str(store), say=said.append, quiet=True)
    check_remote(workspace, said.append)
    assert said == []
    store.rmdir()
    with pytest.raises(WorkspaceError, match="expected the folder of the DVC remote store at .*, and there is none"):
        check_remote(workspace, said.append)
    own = workspace.local / "remote"
    own.mkdir(parents=True)
    check_remote(workspace, said.append)
    assert dvc_remote(workspace) == ("store", str(own))
    assert len(said) == 1
    check_remote(workspace, said.append)
    assert len(said) == 1


def test_the_index_is_derived_and_repeatable(workspace: Workspace) -> None:
    first, second = workspace.round(8), workspace.round(1)
    write_index(first, "collected", {"target": "data/rounds/000/model.safetensors"})
    write_index(second, "collected", {"target": "data/rounds/000/model.safetensors"})
    before = workspace.index.read_bytes()
    write_index(first, "collected", {"target": "data/rounds/000/model.safetensors"})
    assert workspace.index.read_bytes() == before
    assert list(read_index(workspace)["collected"]) == ["001", "008"]
    found = target(first)
    assert found is not None
    assert found.number == 0
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=workspace.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split() == ["attack@001", "attack@008"], "008 is a name, not a number"
    drop_from_index(first)
    assert list(read_index(workspace)["collected"]) == ["001"]


def test_a_detached_head_is_refused(workspace: Workspace) -> None:
    check_branch(workspace)
    git(workspace, "checkout", "--quiet", "--detach")
    with pytest.raises(WorkspaceError, match="git switch"):
        check_branch(workspace)


@pytest.mark.parametrize("name", ["params.yaml", "tasks/config/params.py", "flows/new.py"])
def test_uncommitted_code_is_refused_and_named(workspace: Workspace, name: str) -> None:
    check_committed(workspace)
    path = workspace.root / name
    path.write_text((path.read_text() if path.exists() else "") + "# changed\n")
    with pytest.raises(WorkspaceError, match=Path(name).name):
        check_committed(workspace)


def test_notes_beside_the_code_are_nobodys_business(workspace: Workspace) -> None:
    (workspace.root / "notes.txt").write_text("mine")
    check_committed(workspace)


def test_what_init_has_not_done_is_said(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="dadc init"):
        check_initialised(workspace)


def test_only_a_commit_says_that_init_has_come_to_its_end(workspace: Workspace) -> None:
    content = {"splits": {}, "classes": ["a", "b"], "channels": 1, "size": 8}
    write_whole(workspace.splits, json.dumps(content))
    assert commit(workspace, "by hand", workspace.splits)
    with pytest.raises(WorkspaceError, match="`dadc init` was cut short; run it again"):
        check_initialised(workspace)
    pointers = [pointer(workspace.split(name)) for name in SPLITS]
    for path in pointers:
        path.touch()
    with pytest.raises(WorkspaceError, match="cut short"):
        check_initialised(workspace)
    commit(workspace, "Freeze the campaign's data", *pointers)
    assert check_initialised(workspace) == ImageSpec(("a", "b"), 1, 8)
    workspace.splits.unlink()
    with pytest.raises(WorkspaceError, match=r"splits\.json is committed but missing; `git restore data/base`"):
        check_initialised(workspace)


def test_one_writer(workspace: Workspace) -> None:
    code = (
        "from pathlib import Path; from data.layout import Workspace; from tasks.workspace.lock import lock\n"
        "with lock(Workspace(Path('.').resolve())): pass"
    )
    with lock(workspace), lock(workspace):
        other = subprocess.run(
            [sys.executable, "-c", code], cwd=workspace.root, capture_output=True, text=True, check=False
        )
    assert other.returncode != 0
    assert "another dadc command works on this campaign" in other.stderr
    assert subprocess.run([sys.executable, "-c", code], cwd=workspace.root, check=False).returncode == 0


def test_a_commit_needs_no_name_told_to_git(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key in ("user.name", "user.email"):
        git(workspace, "config", "--unset", key)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git(workspace, "config", "user.useConfigOnly", "true")
    note = workspace.root / "note.txt"
    note.write_text("x")
    assert commit(workspace, "note", note)
    assert git(workspace, "log", "-1", "--format=%an") == "dadc"


def test_a_failing_dvc_says_why(workspace: Workspace) -> None:
    said: list[str] = []
    with pytest.raises(WorkspaceError, match="dvc repro"):
        dvc(workspace, "repro", "-s", "attack@777", say=said.append)
    assert said


def test_a_dvc_that_is_to_be_quiet_says_why_it_failed(workspace: Workspace) -> None:
    said: list[str] = []
    with pytest.raises(WorkspaceError, match="dvc remote add .* failed: ERROR: .*Unsupported URL type s4://"):
        dvc(workspace, "remote", "add", "x", "s4://bucket", say=said.append, quiet=True)
    dvc(workspace, "remote", "add", "--default", "x", str(workspace.root / "x"), say=said.append, quiet=True)
    assert said == []


@pytest.mark.services
def test_what_a_killed_dvc_left_in_its_run_cache_stops_no_later_one(tmp_path: Path) -> None:
    """Killed between making the folder of a run and writing the run into it."""
    (tmp_path / "dvc.yaml").write_text("stages: {copy: {cmd: cp a b, deps: [a], outs: [b]}}")
    (tmp_path / "a").write_text("a")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    bare = [sys.executable, "-m", "dvc"]
    subprocess.run([*bare, "init", "--quiet"], cwd=tmp_path, check=True)
    dvc(Workspace(tmp_path), "repro")
    (known,) = (tmp_path / ".dvc" / "cache" / "runs").glob("*/*/*")
    for gone in (known, tmp_path / "dvc.lock", tmp_path / "b"):
        gone.unlink()
    assert subprocess.run([*bare, "repro"], cwd=tmp_path, check=False).returncode != 0, (
        "DVC has learnt to; sweep no more"
    )
    dvc(Workspace(tmp_path), "repro")
    assert (tmp_path / "b").read_text() == "a"
