"""The subcommands about the record of a campaign: what it says, whether it is sound, and where else it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.shell import CAMPAIGN, RECORD, command, meant, root

if TYPE_CHECKING:
    from data.layout import Workspace


@command(CAMPAIGN)
def decide(
    number: Annotated[int, typer.Argument(metavar="ROUND", help="a closed round")],
    promote: Annotated[bool, typer.Option("--promote/--refuse", help="make its challenger champion, or not")],
    why: Annotated[str, typer.Option(help="the reason, kept in decision.json")],
) -> None:
    """Decide by hand on a promotion, over the gate's verdict; MLflow's alias moves with it."""
    from data.layout import Workspace
    from tasks.promote import decide as write
    from tasks.services import find
    from tasks.track import check
    from tasks.workspace import State, WorkspaceError, check_branch, commit, lock, state

    workspace = Workspace(root())
    round_ = workspace.round(number)
    if state(round_) is not State.CLOSED:
        raise WorkspaceError(f"a closed round is wanted, round {round_.name} is {state(round_)}")
    check_branch(workspace)
    check(find(workspace.root))
    with lock(workspace):
        write(round_, promote, why)
        commit(workspace, f"{'Promote' if promote else 'Refuse'} round {round_.name} by hand", round_.decision)
    print(f"round {round_.name} is {'promoted' if promote else 'refused'} by hand")
    _track(workspace)


@command(RECORD)
def track() -> None:
    """Write every closed round to MLflow again, from the rounds' own files."""
    from data.layout import Workspace

    _track(Workspace(root()))


def _track(workspace: Workspace) -> None:
    from tasks.promote import champion
    from tasks.services import find
    from tasks.track import rebuild
    from tasks.workspace import closed

    rebuild(workspace, find(workspace.root), champion(closed(workspace)))


@command(RECORD)
def verify(number: Annotated[int, typer.Argument(metavar="ROUND", help="a closed round")]) -> None:
    """Work every number of a round out again from its record, and say where it is told otherwise."""
    from flows.base import load
    from flows.verify import verify as compare

    seen, faults = compare(load(root()), number)
    print(f"round {number:03d}: worked out again: {'; '.join(seen)}")
    for fault in faults:
        print(f"round {number:03d}: {fault}")
    if faults:
        raise typer.Exit(1)
    print(f"round {number:03d}: all agree")


@command(RECORD)
def reconcile() -> None:
    """Count every annotation in Label Studio, and what became of it."""
    from flows.base import load
    from flows.reconcile import reconcile as account_for

    for line in account_for(load(root())):
        print(line)


@command(RECORD)
def backup(folder: Annotated[Path, typer.Argument(metavar="PATH", help="a folder that is not there yet")]) -> None:
    """Write the campaign, its Label Studio projects included, into a folder."""
    from flows.backup import backup as write

    write(root(), meant(folder))


@command(RECORD)
def restore(
    folder: Annotated[Path, typer.Argument(metavar="PATH", help="a folder made by `dadc backup`")],
    into: Annotated[
        Path | None, typer.Argument(metavar="WORKSPACE", help="a new folder [here: put its Label Studio projects back]")
    ] = None,
) -> None:
    """Make a workspace of a backup; then, within it, put its projects into the Label Studio that is up there."""
    from flows import backup

    if into is not None:
        backup.restore(meant(folder), meant(into))
    else:
        backup.restore_projects(root(), meant(folder))
