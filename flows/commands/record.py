"""The subcommands about the record of a campaign: what it says, whether it is sound, and where else it is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shell import RECORD, command, resolve_cli_path, root

if TYPE_CHECKING:
    from data.layout import Round, Workspace


@command(RECORD, "dadc verify 2")
def verify(number: Annotated[int, typer.Argument(metavar="ROUND", help="a closed round")]) -> None:
    """Work every number of a closed round out again from its record, and say where a file or MLflow differs."""
    from flows.audit.verify import verify as compare
    from flows.campaign import load

    seen, faults = compare(load(root()), number)
    print(f"round {number:03d}: worked out again: {'; '.join(seen)}")
    for fault in faults:
        print(f"round {number:03d}: {fault}")
    if faults:
        raise typer.Exit(1)
    print(f"round {number:03d}: all agree")


@command(RECORD, "dadc reconcile")
def reconcile() -> None:
    """Count every annotation in Label Studio, and what became of it."""
    from flows.audit.reconcile import reconcile as account_for
    from flows.campaign import load

    for line in account_for(load(root())):
        print(line)


@command(RECORD, "dadc track")
def track() -> None:
    """Log every closed round to MLflow again, from the rounds' own files."""
    from data.layout import Workspace

    log_all_rounds(Workspace(root()))


def commit_decisions(workspace: Workspace, message: str, decide: Callable[[], list[Round]]) -> list[Round]:
    """Decide by hand on promotions and commit the decision.json of each round that `decide` returns; those rounds."""
    from tasks.track import check
    from tasks.workspace.git import check_branch, commit
    from tasks.workspace.lock import lock
    from tasks.workspace.services import find_services

    check_branch(workspace)
    check(find_services(workspace.root))
    with lock(workspace):
        decided = decide()
        commit(workspace, message, *(round_.decision for round_ in decided))
    return decided


def log_all_rounds(workspace: Workspace) -> None:
    from tasks.promote import champion, outcome
    from tasks.track import rebuild
    from tasks.workspace.rounds import closed
    from tasks.workspace.services import find_services

    rebuild(workspace, find_services(workspace.root), champion(closed(workspace)), outcome)


@command(RECORD, "dadc backup /media/disk/digits")
def backup(folder: Annotated[Path, typer.Argument(metavar="PATH", help="a new folder")]) -> None:
    """Write the campaign, its Label Studio projects included, into a folder."""
    from flows.audit.backup import backup as write

    write(root(), resolve_cli_path(folder))


@command(RECORD, "dadc restore /media/disk/digits ~/digits", "dadc restore /media/disk/digits")
def restore(
    folder: Annotated[Path, typer.Argument(metavar="PATH", help="a folder made by `dadc backup`")],
    into: Annotated[
        Path | None, typer.Argument(metavar="WORKSPACE", help="a new folder [here: put its Label Studio projects back]")
    ] = None,
) -> None:
    """Make a workspace from a backup; then, inside it, put its projects into the Label Studio that runs there."""
    from flows.audit import backup

    if into is not None:
        backup.restore(resolve_cli_path(folder), resolve_cli_path(into))
    else:
        backup.restore_projects(root(), resolve_cli_path(folder))
