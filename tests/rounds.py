"""Rounds as far as their state hangs on them, without any of the work behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from data.layout import Round, Workspace
from tasks.workspace import commit, git, write_index


def opened(root: Path, number: int = 0) -> Round:
    """A round that was opened, with a file that Git does not keep, and stands in the index."""
    round_ = Workspace(root).round(number)
    round_.folder.mkdir()
    shutil.copyfile(round_.workspace.params, round_.params)
    round_.trained.write_bytes(b"half")
    write_index(round_, "rounds", {"start": "data/base/splits.json"})
    commit(round_.workspace, f"Open round {round_.name}", round_.params, round_.workspace.index)
    return round_


def closed(root: Path) -> Round:
    """Round 000, as far as its state hangs on it."""
    round_ = opened(root)
    round_.metrics.write_text('{"promoted": true}')
    git(round_.workspace, "tag", round_.tag)
    return round_
