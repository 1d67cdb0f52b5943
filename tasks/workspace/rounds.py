"""A campaign's rounds: how far each has come, which is open, and the index over which DVC repeats its stages.

The state of a round follows from its files and from what Git has committed of them: nothing is counted.
"""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from data.files import write_whole
from data.layout import Round, Workspace
from tasks.workspace.git import WorkspaceError, commits_adding, git, latest_if_subject, round_tags, tracked


class State(StrEnum):
    """How far a round has come."""

    ABSENT = "absent"
    OPENING = "opening"  # begun; `open` goes on
    OPEN = "open"  # people can work on it
    CLOSING = "closing"  # frozen; `close` goes on
    CLOSED = "closed"  # closed.json is committed
    ABORTED = "aborted"


def closing_commit(round_: Round) -> str:
    """The commit in the history of HEAD that closed the round; empty if none did.

    It is the one that added closed.json, the last file that closing writes. Rounds closed before there was that file
    are known by their tag or by the message of the commit that added their metrics.json.
    """
    workspace = round_.workspace
    if tracked(round_.closed, workspace):
        return commits_adding(round_.closed, workspace)[0]
    if tracked(round_.opened, workspace) or not tracked(round_.challenger.metrics, workspace):
        return ""
    if round_.tag in round_tags(workspace):
        return git(workspace, "rev-parse", f"{round_.tag}^{{commit}}")
    return latest_if_subject(round_.challenger.metrics, f"Close round {round_.name}", workspace)


def opening_commit(round_: Round) -> str:
    """The commit in the history of HEAD that opened the round; empty if none did.

    It is the one that added opened.json, the last file that opening writes. Rounds opened before there was that file
    are known by the message of the commit that added their params.yaml.
    """
    workspace = round_.workspace
    if tracked(round_.opened, workspace):
        return commits_adding(round_.opened, workspace)[0]
    if not tracked(round_.params, workspace):
        return ""
    return latest_if_subject(round_.params, f"Open round {round_.name}", workspace)


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
    if round_.tag in round_tags(round_.workspace, everywhere=True) - round_tags(round_.workspace):
        raise WorkspaceError(
            f"the tag {round_.tag} is there and names a commit of another history: somebody else closed a round of "
            f"this number; `dadc abort` this one, or `git tag --delete {round_.tag}` if it is none of the campaign"
        )


def _holds_files(round_: Round) -> bool:
    """Whether anything lies in the round's folder besides what a killed command had begun to write."""
    return any(path.suffix != ".tmp" for path in round_.folder.iterdir())


def read_index(workspace: Workspace) -> dict[str, dict[str, dict[str, str]]]:
    """data/rounds/index.json, over which dvc.yaml repeats its stages."""
    index: dict[str, dict[str, dict[str, str]]] = json.loads(workspace.index.read_text())
    return index


def write_index(round_: Round, part: str, entry: dict[str, str]) -> None:
    """Put the round's entry into one part of the index, `rounds` or `collected`; twice is once."""
    index = read_index(round_.workspace)
    entries = index.get(part, {})  # an index of before has fewer parts
    if entries.get(round_.name) == entry:
        return
    index[part] = dict(sorted({**entries, round_.name: entry}.items()))
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


def closed_at(round_: Round) -> float | None:
    """When the round was closed, in seconds since the epoch; None as long as it is not."""
    if round_.closed.exists():
        return datetime.fromisoformat(json.loads(round_.closed.read_text(encoding="utf-8"))["at"]).timestamp()
    closed_by = closing_commit(round_)
    return float(git(round_.workspace, "show", "--no-patch", "--format=%ct", closed_by)) if closed_by else None


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
