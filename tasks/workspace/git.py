"""Git at a workspace's root."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from data.layout import Workspace
from tasks.workspace.environment import git_environment

LOCK_EXISTS = re.compile(r"'(.*\.lock)': File exists")  # what git says of another git's lock file
PATIENCE = 10.0  # seconds that another git is waited for
CODE = ("flows", "tasks", "models", "data/*.py", "data/sets", "dvc.yaml", "params.yaml", "pyproject.toml")


class WorkspaceError(RuntimeError):
    """The workspace is not as the command needs it; the message says what to do."""


def git(workspace: Workspace, *arguments: str, ignore_files: bool = True) -> str:
    """Run git at the workspace's root; its output, or WorkspaceError with what it said.

    While another git holds a lock file, this one waits; a lock file that stays is named and left to its owner. The
    output is parsed here, so git is asked for English, and settings of the user's that would change it do not count.
    ignore_files: whether the user's own list of ignored files counts.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["git", *arguments],
            cwd=workspace.root,
            env=git_environment(ignore_files=ignore_files),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.strip()
        lines = (done.stderr or done.stdout).strip().splitlines()
        lock_file = next((match[1] for line in lines if (match := LOCK_EXISTS.search(line))), None)
        if lock_file is None:
            errors = [line for line in lines if line.startswith(("fatal:", "error:", "The following"))] or lines[-1:]
            raise WorkspaceError(f"git {' '.join(arguments[:2])} failed: {errors[0] if errors else done.returncode}")
        if time.monotonic() > deadline:
            raise WorkspaceError(
                f"git {' '.join(arguments[:2])} waited {PATIENCE:.0f} s for {lock_file}, which another git holds or a "
                "killed one left; if no git runs in this workspace, remove that file and run the command again"
            )
        time.sleep(0.2)


def commit(workspace: Workspace, message: str, *paths: Path, gone: Sequence[Path] = ()) -> bool:
    """Commit these paths and nothing else; False when there was nothing new. gone: what was removed on purpose."""
    names = [str(path.relative_to(workspace.root)) for path in paths if path.exists()]
    removed = [str(path.relative_to(workspace.root)) for path in gone]
    names += [name for name in removed if git(workspace, "ls-files", "--", name)]
    git(workspace, "add", "--", *names, ignore_files=False)
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
            "this needs the campaign's whole history, and this clone is shallow; `git fetch --unshallow` brings it"
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
