"""Give a round up: what was made stays on disk and in Git, and the next round takes the next number."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from data.files import write_whole
from data.layout import Workspace
from flows.base import say
from tasks.workspace import WorkspaceError, check_branch, commit, current, drop_from_index, dvc, lock


def abort(root: Path, why: str) -> None:
    """Abort the round that is open, half opened or half closed."""
    workspace = Workspace(root)
    with lock(workspace):
        check_branch(workspace)
        round_ = current(workspace)
        if round_ is None:
            raise WorkspaceError("no round is open, so none can be aborted")
        if round_.annotations.exists():
            dvc(workspace, "add", "--no-relink", str(round_.annotations), say=say)
        drop_from_index(round_)
        told = {"why": why, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        write_whole(round_.aborted, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        kept = [p for p in round_.folder.iterdir() if p.suffix in (".json", ".dvc", ".yaml")]
        commit(workspace, f"Abort round {round_.name}", *sorted(kept), workspace.index, workspace.root / "dvc.lock")
        say(f"round {round_.name} is aborted; what was collected stays in {round_.folder.relative_to(root)}")
