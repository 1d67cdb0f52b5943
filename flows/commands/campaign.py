"""The commands about a whole campaign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shell import CAMPAIGN, command, prefect, resolve_cli_path, root

if TYPE_CHECKING:
    pass
from flows.commands.record import log_all_rounds


@command(CAMPAIGN)
def init(
    remote: Annotated[
        str | None, typer.Option(help="DVC remote: a folder, or an address such as s3://… [.dadc/remote]")
    ] = None,
) -> None:
    """Check the workspace, freeze the data set and its splits under DVC, commit."""
    from data.layout import Workspace
    from tasks.config.params import read
    from tasks.prepare import init as freeze
    from tasks.workspace.git import check_branch, check_committed
    from tasks.workspace.lock import lock

    if remote and ":" not in remote:  # no address
        remote = str(resolve_cli_path(Path(remote)))
    workspace = Workspace(root())
    params = read(workspace.params)
    check_branch(workspace)
    check_committed(workspace)
    with lock(workspace):
        freeze(workspace, params, remote, say=print)
    from flows.stack.access import missing

    print(f"campaign {params.campaign} is ready in {workspace.root}")
    for line in missing(workspace.root):
        print(f"still missing: {line}")


@command(CAMPAIGN)
def run(
    rounds: Annotated[int, typer.Option(min=0, help="go on until this round is closed; 0 is the first target")],
    simulate: Annotated[bool, typer.Option(help="simulated people draw and vote; without, wait for real ones")] = False,
) -> None:
    """Run rounds, from wherever the campaign stands, until round N is closed."""
    at = root()
    prefect(at)
    from flows.context import load
    from flows.reports.status import show
    from flows.run import campaign, check_run

    check_run(load(at), rounds)
    campaign(at, rounds, simulate)
    show(at)


@command(CAMPAIGN)
def schedule(
    every: Annotated[int | None, typer.Option(min=1, help="seconds between two looks [collect.every]")] = None,
    cron: Annotated[str | None, typer.Option(help='instead, such as "*/10 8-18 * * mon-fri"')] = None,
    timezone: Annotated[str | None, typer.Option(help="of --cron, such as Europe/Berlin [this machine's]")] = None,
) -> None:
    """Run rounds by themselves: collect, close at the threshold or deadline, open the next. Ctrl-C stops it.

    params.yaml says when: collect.threshold, collect.deadline, and in `schedule` when the campaign has ended.
    """
    from data.layout import Workspace
    from tasks.config.params import read
    from tasks.workspace.services import ServiceDown, find_services

    at = root()
    url = find_services(at).prefect_url
    if not prefect(at) or url is None:
        raise ServiceDown("prefect", url)
    from flows.context import load
    from flows.schedule.deployments import serve as serve_deployments
    from flows.schedule.deployments import time_zone

    here = load(at)
    here.check_studio()
    here.check_mlflow()
    seconds = every or read(Workspace(at).params).collect.every
    zone = time_zone(timezone)
    when = f"at {cron}, {zone} time" if cron else f"every {seconds} s"
    print(f"looking {when}; the runs are at {url.removesuffix('/api')}/runs")
    if serve_deployments(at, seconds, cron, zone) is None:
        print("stopped; `dadc schedule` goes on from here")


@command(CAMPAIGN)
def status() -> None:
    """Print the rounds, a row each, and what the campaign waits for."""
    at = root()
    from flows.reports.status import advice, show

    show(at)
    print(advice(at))


@command(CAMPAIGN)
def leaderboard(
    number: Annotated[int | None, typer.Option("--round", metavar="NNN", help="one round [all that collect]")] = None,
    file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="write the rows there too")] = None,
) -> None:
    """Print what each annotator and validator did, and who is set aside."""
    at = root()
    from flows.reports.leaderboard import show

    show(at, number, resolve_cli_path(file) if file else None)


@command(CAMPAIGN)
def decide(
    number: Annotated[int, typer.Argument(metavar="ROUND", help="a closed round")],
    promote: Annotated[bool, typer.Option("--promote/--refuse", help="make its challenger champion, or not")],
    why: Annotated[str, typer.Option(help="the reason, kept in decision.json")],
) -> None:
    """Decide by hand on a promotion, over the gate's verdict; MLflow's alias moves with it."""
    from data.layout import Workspace
    from tasks.promote import decide as write
    from tasks.track import check
    from tasks.workspace.git import WorkspaceError, check_branch, commit
    from tasks.workspace.lock import lock
    from tasks.workspace.rounds import State, state
    from tasks.workspace.services import find_services

    workspace = Workspace(root())
    round_ = workspace.round(number)
    if state(round_) is not State.CLOSED:
        raise WorkspaceError(f"a closed round is wanted, round {round_.name} is {state(round_)}")
    check_branch(workspace)
    check(find_services(workspace.root))
    with lock(workspace):
        write(round_, promote, why)
        commit(workspace, f"{'Promote' if promote else 'Refuse'} round {round_.name} by hand", round_.decision)
    print(f"round {round_.name} is {'promoted' if promote else 'refused'} by hand")
    log_all_rounds(workspace)
