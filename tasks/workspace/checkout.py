"""The checkout that a command works in, and whether `dadc init` has frozen its data."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from data.layout import SPLITS, Workspace, pointer
from tasks.workspace.git import WorkspaceError, git


def find_workspace(start: Path) -> Workspace:
    """The workspace `start` lies in."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], cwd=start, capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise WorkspaceError("git is not installed; install it") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split())
        raise WorkspaceError(
            f"run this in a Git checkout of the project; {start} is in none, says git ({said}). Clone the project first"
        ) from error
    root = Path(done.stdout.strip())
    if not (root / "dvc.yaml").exists() or not (root / "data" / "rounds").is_dir():
        raise WorkspaceError(f"run this in a Git checkout of the project; {root} has no dvc.yaml and data/rounds")
    return Workspace(root)


def initialised(workspace: Workspace) -> bool:
    """Whether `dadc init` came to its end. Its commit is the last it does: the files alone say only that it began."""
    wanted = [workspace.splits, *(pointer(workspace.split(name)) for name in SPLITS)]
    known = git(workspace, "ls-tree", "--name-only", "HEAD", "--", f"{workspace.base.relative_to(workspace.root)}/")
    return {str(path.relative_to(workspace.root)) for path in wanted} <= set(known.splitlines())


def check_initialised(workspace: Workspace) -> dict[str, Any]:
    """The campaign's splits, or WorkspaceError if `dadc init` has not been run to its end or its data are not here."""
    there = workspace.splits.exists()
    if not initialised(workspace):
        begun = "`dadc init` was cut short; run it again" if there else "run `dadc init`"
        raise WorkspaceError(f"the campaign's data are not frozen yet; {begun}")
    if not there:
        raise WorkspaceError(f"{workspace.splits} is committed and is not here; `git restore data/base` brings it back")
    splits: dict[str, Any] = json.loads(workspace.splits.read_text())
    missing = [name for name in splits["splits"] if not workspace.split(name).exists()]
    if missing:
        raise WorkspaceError(f"data/base/{missing[0]}.parquet is not here; `dvc pull` brings it")
    return splits
