"""A workspace's Git, DVC and state. The state of a round follows from what is there: nothing is counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data.files import write_whole
from data.layout import SPLITS, Round, Workspace, pointer

LEFT = re.compile(r"'(.*\.lock)': File exists")  # what git says of a lock that it finds
PATIENCE = 10.0  # seconds that a file which Git left when it was killed is waited for
CODE = ("flows", "tasks", "models", "data/*.py", "data/sets", "dvc.yaml", "params.yaml", "pyproject.toml")


class WorkspaceError(RuntimeError):
    """The workspace is not as the command needs it; the message says what to do."""


MOMENT = 1.0  # seconds that a command waits for another before it says so


class Busy(WorkspaceError):
    """Another command works on the campaign."""


class State(StrEnum):
    """How far a round has come."""

    ABSENT = "absent"
    OPENING = "opening"  # begun; `open` goes on
    OPEN = "open"  # people can work on it
    CLOSING = "closing"  # frozen; `close` goes on
    CLOSED = "closed"  # closed.json is committed
    ABORTED = "aborted"


def find(start: Path) -> Workspace:
    """The workspace `start` lies in."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], cwd=start, capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise WorkspaceError("git is wanted and is not there; install it") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split())
        raise WorkspaceError(
            f"a Git checkout of the project is wanted, git takes {start} for none ({said}); without one, clone it first"
        ) from error
    root = Path(done.stdout.strip())
    if not (root / "dvc.yaml").exists() or not (root / "data" / "rounds").is_dir():
        raise WorkspaceError(f"{root} is a Git checkout, but not of this project: dvc.yaml and data/rounds are wanted")
    return Workspace(root)


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
        left = next((Path(found[1]) for line in said if (found := LEFT.search(line))), None)
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


def tags(workspace: Workspace, *, everywhere: bool = False) -> set[str]:
    """The tags of rounds in the history of HEAD, or all there are: two branches may have a round of one number."""
    merged = [] if everywhere else ["--merged", "HEAD"]
    return set(git(workspace, "tag", *merged, "--list", "round-*").splitlines())


def closing_commit(round_: Round) -> str:
    """The commit in the history of HEAD that closed the round; empty if none did.

    It is the one that added closed.json, the last file that closing writes. Rounds closed before there was that file
    are known by their tag or by the message of the commit that added their metrics.json.
    """
    workspace = round_.workspace
    if tracked(round_.closed, workspace):
        return added(round_.closed, workspace)[0]
    if tracked(round_.opened, workspace) or not tracked(round_.metrics, workspace):
        return ""
    if round_.tag in tags(workspace):
        return git(workspace, "rev-parse", f"{round_.tag}^{{commit}}")
    return _added_by(round_.metrics, f"Close round {round_.name}", workspace)


def opening_commit(round_: Round) -> str:
    """The commit in the history of HEAD that opened the round; empty if none did.

    It is the one that added opened.json, the last file that opening writes. Rounds opened before there was that file
    are known by the message of the commit that added their params.yaml.
    """
    workspace = round_.workspace
    if tracked(round_.opened, workspace):
        return added(round_.opened, workspace)[0]
    if not tracked(round_.params, workspace):
        return ""
    return _added_by(round_.params, f"Open round {round_.name}", workspace)


def _added_by(path: Path, subject: str, workspace: Workspace) -> str:
    """The latest commit that added the file, if it has that subject; else nothing."""
    latest = added(path, workspace)[0]
    return latest if git(workspace, "show", "--no-patch", "--format=%s", latest) == subject else ""


def added(path: Path, workspace: Workspace) -> list[str]:
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


def check_elsewhere(round_: Round) -> None:
    """Refuse to open a round that another branch has opened, or beside one that another branch left here."""
    workspace = round_.workspace
    left = [r for r, how in states(workspace).items() if how is State.ABSENT and _holds_files(r)]
    if left:
        raise WorkspaceError(
            f"{left[0].folder.relative_to(workspace.root)} holds files of a round {left[0].name} that another branch "
            "has; go on in a clone of your own"
        )
    name = str(round_.params.relative_to(workspace.root))
    other = git(workspace, "rev-list", "--all", "-1", "^HEAD", "--", name)
    if other:
        where = git(workspace, "for-each-ref", "--contains", other, "--format=%(refname:short)").splitlines()
        raise WorkspaceError(
            f"round {round_.name} was opened on another branch ({', '.join(where[:3])}), and not on this one; "
            "`git switch` to that, or merge it first"
        )


def check_tag(round_: Round) -> None:
    """Refuse to close a round whose tag is taken by another history."""
    if round_.tag in tags(round_.workspace, everywhere=True) - tags(round_.workspace):
        raise WorkspaceError(
            f"the tag {round_.tag} is there and names a commit of another history: somebody else closed a round of "
            f"this number; `dadc abort` this one, or `git tag --delete {round_.tag}` if it is none of the campaign"
        )


def _holds_files(round_: Round) -> bool:
    """Whether anything lies in the round's folder besides what a killed command had begun to write."""
    return any(path.suffix != ".tmp" for path in round_.folder.iterdir())


@contextmanager
def lock(workspace: Workspace, patience: float = MOMENT) -> Iterator[None]:
    """One writer per workspace; Busy if there is another after `patience` seconds. A flow within a flow shares it."""
    folder = workspace.local / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / "campaign.lock", is_singleton=True, thread_local=False)
    try:
        held.acquire(timeout=patience)
    except Timeout:
        raise Busy("another dadc command works on this campaign; wait until it has ended") from None
    try:
        yield
    finally:
        held.release()


def busy(workspace: Workspace) -> bool:
    """Whether another command works on the workspace; who asks holds it for less than the moment that others wait."""
    try:
        with lock(workspace, 0.0):
            return False
    except Busy:
        return True


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


def read_index(workspace: Workspace) -> dict[str, dict[str, dict[str, str]]]:
    """data/rounds/index.json, over which dvc.yaml repeats its stages."""
    index: dict[str, dict[str, dict[str, str]]] = json.loads(workspace.index.read_text())
    return index


def write_index(round_: Round, part: str, entry: dict[str, str]) -> None:
    """Put the round's entry into one part of the index, `rounds` or `collected`; twice is once."""
    index = read_index(round_.workspace)
    if index[part].get(round_.name) == entry:
        return
    index[part] = dict(sorted({**index[part], round_.name: entry}.items()))
    write_whole(round_.workspace.index, json.dumps(index, indent=2) + "\n")


def target(round_: Round) -> Round | None:
    """The round whose network this round attacks, as it was written down at opening; None for round 000."""
    entry = read_index(round_.workspace)["collected"].get(round_.name)
    return round_.workspace.round(int(Path(entry["target"]).parent.name)) if entry else None


def drop_from_index(round_: Round) -> None:
    """Take the round out of the index, so that DVC no longer knows its stages."""
    index = {part: {k: v for k, v in e.items() if k != round_.name} for part, e in read_index(round_.workspace).items()}
    write_whole(round_.workspace.index, json.dumps(index, indent=2) + "\n")


def state(round_: Round) -> State:
    """How far the round has come, from its files and what Git has committed of them.

    Opening and closing each write one file last, and only its commit counts: whatever else somebody commits meanwhile,
    the same command goes on.
    """
    if not round_.folder.exists():
        return State.ABSENT
    if round_.aborted.exists():
        return State.ABORTED
    if tracked(round_.closed, round_.workspace) or closing_commit(round_):
        return State.CLOSED
    if round_.lineage.exists():  # the last that freezing writes
        return State.CLOSING
    if tracked(round_.opened, round_.workspace) or opening_commit(round_):
        return State.OPEN
    # Without params.yaml, the first that opening writes, the files are another branch's.
    return State.OPENING if round_.params.exists() else State.ABSENT


def opened_at(round_: Round) -> float:
    """When the round was opened, in seconds since the epoch."""
    if round_.opened.exists():
        return datetime.fromisoformat(json.loads(round_.opened.read_text(encoding="utf-8"))["at"]).timestamp()
    opened_by = opening_commit(round_)
    if not opened_by:
        raise WorkspaceError(f"round {round_.name} is not open yet")
    return float(git(round_.workspace, "show", "--no-patch", "--format=%ct", opened_by))


def rounds(workspace: Workspace) -> list[Round]:
    """Every round there is, in order."""
    numbers = [int(p.name) for p in workspace.rounds.iterdir() if p.is_dir() and p.name.isdigit()]
    return [workspace.round(number) for number in sorted(numbers)]


def states(workspace: Workspace) -> dict[Round, State]:
    """How far every round has come, in order."""
    return {r: state(r) for r in rounds(workspace)}


def closed(workspace: Workspace) -> list[Round]:
    """The closed rounds, in order."""
    return [r for r, how in states(workspace).items() if how is State.CLOSED]


def current(workspace: Workspace) -> Round | None:
    """The round that is neither closed nor aborted, if there is one; it is the last."""
    live = [r for r, how in states(workspace).items() if how not in (State.CLOSED, State.ABORTED, State.ABSENT)]
    return live[-1] if live else None
