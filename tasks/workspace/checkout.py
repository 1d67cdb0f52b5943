"""The checkout that a command works in, whether `dadc init` has frozen its data, and what its images are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from data.layout import GATE, SPLITS, Workspace, pointer
from data.names import printable
from data.records import ImageSpec
from tasks.workspace.environment import git_environment
from tasks.workspace.git import WorkspaceError, git

REWRITTEN = "{}?%"  # characters of a path that DVC, SQLAlchemy or MLflow take for their own


def find_workspace(start: Path) -> Workspace:
    """The workspace that holds the folder `start`; WorkspaceError if there is none."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"],
            cwd=start,
            env=git_environment(),
            capture_output=True,
            text=True,
            check=True,
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


def check_place(workspace: Workspace) -> None:
    """WorkspaceError for a folder whose path other programs change on the way to a file.

    DVC takes braces for a template, SQLAlchemy ends a database's path at a question mark, and MLflow decodes per cent
    signs.
    """
    path = str(workspace.root.resolve())
    changed = [character for character in path if character in REWRITTEN or not character.isprintable()]
    if changed:
        named = " ".join(sorted({printable(character) for character in changed}))
        raise WorkspaceError(
            f"the workspace lies in {printable(path)}; DVC, MLflow or Prefect would take {named} in its path for "
            "something else. Move the workspace to a folder without it"
        )


def initialised(workspace: Workspace) -> bool:
    """Whether `dadc init` came to its end. Its commit is the last it does: the files alone say only that it began."""
    needed = [workspace.splits, *(pointer(workspace.split(name)) for name in SPLITS)]
    committed = git(workspace, "ls-tree", "--name-only", "HEAD", "--", f"{workspace.base.relative_to(workspace.root)}/")
    return {str(path.relative_to(workspace.root)) for path in needed} <= set(committed.splitlines())


def check_initialised(workspace: Workspace) -> ImageSpec:
    """What the campaign's images are. WorkspaceError if `dadc init` has not come to its end or a split is missing."""
    exists = workspace.splits.exists()
    if not initialised(workspace):
        what_to_do = "`dadc init` was cut short; run it again" if exists else "run `dadc init`"
        raise WorkspaceError(f"the campaign's data are not frozen yet; {what_to_do}")
    if not exists:
        raise WorkspaceError(f"{workspace.splits} is committed but missing; `git restore data/base` brings it back")
    missing = [name for name in read_splits(workspace)["splits"] if not workspace.split(name).exists()]
    if missing:
        raise WorkspaceError(f"data/base/{missing[0]}.parquet is missing; `dvc pull` brings it")
    return image_spec(workspace)


def image_spec(workspace: Workspace) -> ImageSpec:
    """Classes, channels and size of the campaign's images, from splits.json."""
    content = read_splits(workspace)
    return ImageSpec(tuple(content["classes"]), content["channels"], content["size"])


def pool_size(workspace: Workspace) -> int:
    """How many images the pool holds, from which rounds take their seed images."""
    return int(read_splits(workspace)["splits"]["pool"]["n"])


def gate_split(workspace: Workspace) -> str:
    """The split that the gate compares networks on: its own, or validation where the campaign froze none."""
    return GATE if GATE in read_splits(workspace)["splits"] else "validation"


def read_splits(workspace: Workspace) -> dict[str, Any]:
    """splits.json: what was frozen, and the digest of each split. FileNotFoundError if nothing was."""
    if not workspace.splits.exists():
        raise FileNotFoundError(f"{workspace.splits} is missing; `dadc init` freezes the data set")
    content: dict[str, Any] = json.loads(workspace.splits.read_text(encoding="utf-8"))
    return content
