"""Give a round up: what was made stays on disk and in Git, and the next round takes the next number.

Round 000 collects nothing and every other round needs it: it is taken away, and opened anew as 000.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from data.files import write_whole
from data.layout import Round, Workspace, pointer
from flows.campaign import say
from tasks.workspace.dvc import check_remote, dvc
from tasks.workspace.git import WorkspaceError, check_branch, commit, tracked
from tasks.workspace.lock import lock
from tasks.workspace.rounds import closed, current, drop_from_index, rounds


def abort(root: Path, why: str) -> None:
    """Abort the round that is open, half opened or half closed; or go on with an abort that was cut short."""
    workspace = Workspace(root)
    with lock(workspace):
        check_branch(workspace)
        round_ = current(workspace) or half_aborted(workspace)
        if round_ is None:
            raise WorkspaceError("no round is open, so none can be aborted")
        if round_.number == 0:
            take_away(round_, why)
        else:
            keep(round_, why)


def half_aborted(workspace: Workspace) -> Round | None:
    """A round that was given up without its commit, or a round 000 that is not taken away."""
    last = (rounds(workspace) or [workspace.round(0)])[-1]
    if last.number > 0:
        return last if last.aborted.exists() and not tracked(last.aborted, workspace) else None
    return last if not closed(workspace) and tracked(last.folder, workspace) else None


def keep(round_: Round, why: str) -> None:
    """Commit that the round is aborted, with what was collected."""
    workspace = round_.workspace
    if round_.annotations.exists():
        check_remote(workspace, say)
        dvc(workspace, "add", "--no-relink", round_.annotations, say=say)
        dvc(workspace, "push", pointer(round_.annotations), quiet=True, say=say)
    drop_from_index(round_)
    tell(round_, why)
    kept = [p for p in round_.folder.rglob("*") if p.suffix in (".json", ".dvc", ".yaml")]
    commit(workspace, f"Abort round {round_.name}", *sorted(kept), workspace.index, workspace.root / "dvc.lock")
    say(f"round {round_.name} is aborted; what was collected stays in {round_.folder.relative_to(workspace.root)}")


def take_away(round_: Round, why: str) -> None:
    """The round's folder → .dadc/aborted, and out of what Git has checked out."""
    workspace = round_.workspace
    aside = workspace.local / "aborted"
    drop_from_index(round_)
    if round_.folder.exists():
        tell(round_, why)
        aside.mkdir(parents=True, exist_ok=True)
        round_.folder.rename(aside / f"{round_.name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
    message = f"Abort round {round_.name}" + (f": {why}" if why else "")
    commit(workspace, message, workspace.index, workspace.root / "dvc.lock", gone=[round_.folder])
    kept = aside.relative_to(workspace.root)
    say(f"round {round_.name} is aborted and can be opened anew; what it made lies in {kept}")


def tell(round_: Round, why: str) -> None:
    """aborted.json, once."""
    if not round_.aborted.exists():
        told = {"why": why, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        write_whole(round_.aborted, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
