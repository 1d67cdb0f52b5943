"""Git at a workspace's root."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from data.layout import Workspace

LOCK_LEFT = re.compile(r"'(.*\.lock)': File exists")  # what git says of a lock that it finds
PATIENCE = 10.0  # seconds that a file which Git left when it was killed is waited for
CODE = ("flows", "tasks", "models", "data/*.py", "data/sets", "dvc.yaml", "params.yaml", "pyproject.toml")


class WorkspaceError(RuntimeError):
    """The workspace is not as the command needs it; the message says what to do."""


def git(workspace: Workspace, *arguments: str) -> str:
    """Run git at the workspace's root; its output, or WorkspaceError with what it said.

    A lock that a killed git left in .git is removed, once no git works there any more. What git says is read here, so
    it is asked to say it in English.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["git", *arguments],
            cwd=workspace.root,
            env={**os.environ, "LANGUAGE": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.strip()
        said = (done.stderr or done.stdout).strip().splitlines()
        left = next((Path(found[1]) for line in said if (found := LOCK_LEFT.search(line))), None)
        if left is None or time.monotonic() > deadline:
            told = [line for line in said if line.startswith(("fatal:", "error:", "The following"))] or said[-1:]
            raise WorkspaceError(f"git {' '.join(arguments[:2])} failed: {told[0] if told else done.returncode}")
        if not _git_works_in(workspace.root):
            left.unlink(missing_ok=True)
        time.sleep(0.2)


def _git_works_in(root: Path) -> bool:
    import psutil

    for process in psutil.process_iter():
        try:
            if process.name() == "git" and Path(process.cwd()).is_relative_to(root.resolve()):
                return True
        except (psutil.Error, OSError):
            continue
    return False


def commit(workspace: Workspace, message: str, *paths: Path, gone: Sequence[Path] = ()) -> bool:
    """Commit these paths and nothing else; False when there was nothing new. gone: what was removed on purpose."""
    names = [str(path.relative_to(workspace.root)) for path in paths if path.exists()]
    removed = [str(path.relative_to(workspace.root)) for path in gone]
    names += [name for name in removed if git(workspace, "ls-files", "--", name)]
    git(workspace, "add", "--", *names)
    changed = git(workspace, "diff", "--cached", "--name-only", "--", *names)
    if not changed:
        return False
    identity: list[str] = []
    asked = subprocess.run(
        ["git", "var", "GIT_COMMITTER_IDENT"], cwd=workspace.root, capture_output=True, text=True, check=False
    )
    if asked.returncode != 0:  # a machine on which nobody has told Git a name
        identity = ["-c", "user.name=dadc", "-c", "user.email=dadc@localhost"]
    git(workspace, *identity, "commit", "--quiet", "--message", message, "--only", "--", *names)
    return True


def tracked(path: Path, workspace: Workspace) -> bool:
    """Whether the last commit holds the file or folder."""
    return bool(git(workspace, "ls-tree", "--name-only", "HEAD", "--", str(path.relative_to(workspace.root))))


def round_tags(workspace: Workspace, *, everywhere: bool = False) -> set[str]:
    """The tags of rounds in the history of HEAD, or all there are: two branches may have a round of one number."""
    merged = [] if everywhere else ["--merged", "HEAD"]
    return set(git(workspace, "tag", *merged, "--list", "round-*").splitlines())


def latest_if_subject(path: Path, subject: str, workspace: Workspace) -> str:
    """The latest commit that added the file, if it has that subject; else nothing."""
    latest = commits_adding(path, workspace)[0]
    return latest if git(workspace, "show", "--no-patch", "--format=%s", latest) == subject else ""


def commits_adding(path: Path, workspace: Workspace) -> list[str]:
    """The commits in the history of HEAD that added the file, the latest first. WorkspaceError where that is the oldest
    of a shallow clone, which seems to have added all there was."""
    found = git(
        workspace, "log", "--diff-filter=A", "--format=%H", "--", str(path.relative_to(workspace.root))
    ).splitlines()
    ends = workspace.root / git(workspace, "rev-parse", "--git-path", "shallow")
    if ends.exists() and set(found) & set(ends.read_text().split()):
        raise WorkspaceError(
            "the campaign's whole history is wanted, and this clone is a shallow one; `git fetch --unshallow` brings it"
        )
    return found


def check_branch(workspace: Workspace) -> None:
    """Refuse a detached HEAD: a round's commit would belong to no branch."""
    on = subprocess.run(["git", "symbolic-ref", "-q", "HEAD"], cwd=workspace.root, capture_output=True, check=False)
    if on.returncode != 0:
        raise WorkspaceError("a branch must be checked out, HEAD is detached; `git switch -c NAME` first")


def check_committed(workspace: Workspace) -> None:
    """Refuse uncommitted code or params.yaml: the round's commit must say what made it."""
    changed = git(workspace, "status", "--porcelain", "--", *CODE)
    if changed:
        names = ", ".join(line.split(maxsplit=1)[1] for line in changed.splitlines()[:5])
        raise WorkspaceError(f"code and params.yaml must be committed, changed: {names}; `git commit` first")
