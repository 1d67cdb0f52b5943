"""Rounds as far as their state hangs on them, without any of the work behind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from data.layout import Round, Workspace
from tasks.workspace.git import commit, git
from tasks.workspace.rounds import write_index

OPENED_AT, CLOSED_AT = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"


def begin(workspace: Workspace, number: int) -> Round:
    """A round of which there is only its folder, with params.yaml frozen in it."""
    round_ = workspace.round(number)
    round_.folder.mkdir(parents=True)
    shutil.copyfile(workspace.params, round_.params)
    return round_


def mark_opened(round_: Round) -> None:
    """Commit that the round is open: the last that opening does."""
    round_.opened.write_text(f'{{"at": "{OPENED_AT}"}}\n')
    _commit(round_, f"Open round {round_.name}", round_.params, round_.opened)


def mark_closed(round_: Round) -> None:
    """Commit that the round is closed, and tag it: the last that closing does."""
    round_.closed.write_text(f'{{"at": "{CLOSED_AT}"}}\n')
    _commit(
        round_, f"Close round {round_.name}", round_.params, round_.lineage, round_.challenger.metrics, round_.closed
    )
    git(round_.workspace, "tag", round_.tag)


def _commit(round_: Round, message: str, *paths: Path) -> None:
    """Even where nobody told Git a name, and where what DVC keeps is ignored."""
    names = [str(path) for path in paths if path.exists()]
    for command in (["add", "--force", "--", *names], ["commit", "--quiet", "--message", message, "--", *names]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *identity, *command], cwd=round_.workspace.root, check=True)


def opened(root: Path, number: int = 0) -> Round:
    """A round that was opened, with a file that Git does not keep, and stands in the index."""
    round_ = Workspace(root).round(number)
    round_.folder.mkdir()
    shutil.copyfile(round_.workspace.params, round_.params)
    round_.challenger.trained.write_bytes(b"half")
    write_index(round_, "rounds", {"start": "data/base/splits.json"})
    commit(round_.workspace, f"Index of round {round_.name}", round_.workspace.index)
    mark_opened(round_)
    return round_


def closed(root: Path) -> Round:
    """Round 000, as far as its state hangs on it."""
    round_ = opened(root)
    round_.challenger.metrics.write_text('{"promoted": true}')
    round_.lineage.write_text("{}")
    mark_closed(round_)
    return round_
