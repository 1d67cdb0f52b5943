"""The command `dadc`: the campaign, its rounds, the local services. What is about the record is in flows/record.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import flows.record  # noqa: F401  its subcommands
from flows.shell import CAMPAIGN, QUIET, ROUND, STACK, app, command, meant, prefect, root


@command(CAMPAIGN)
def init(
    remote: Annotated[
        str | None, typer.Option(help="DVC remote: a folder, or an address such as s3://… [.dadc/remote]")
    ] = None,
) -> None:
    """Check the workspace, freeze the data set and its splits under DVC, commit."""
    from data.layout import Workspace
    from tasks.init import init as freeze
    from tasks.params import read
    from tasks.workspace import check_branch, check_committed, lock

    if remote and ":" not in remote:  # no address
        remote = str(meant(Path(remote)))
    workspace = Workspace(root())
    params = read(workspace.params)
    check_branch(workspace)
    check_committed(workspace)
    with lock(workspace):
        freeze(workspace, params, remote, say=print)
    from flows.stack import missing

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
    from flows.base import load
    from flows.campaign import campaign, to_run
    from flows.report import show

    to_run(load(at), rounds)
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
    from tasks.params import read
    from tasks.services import ServiceDown, find

    at = root()
    url = find(at).prefect_url
    if not prefect(at) or url is None:
        raise ServiceDown("prefect", url)
    from flows.base import load
    from flows.deploy import serve as serve_deployments
    from flows.due import time_zone

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
    from flows.report import advice, show

    show(at)
    print(advice(at))


@command(CAMPAIGN)
def leaderboard(
    number: Annotated[int | None, typer.Option("--round", metavar="NNN", help="one round [all that collect]")] = None,
    file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="write the rows there too")] = None,
) -> None:
    """Print what each annotator and validator did, and who is set aside."""
    at = root()
    from flows.board import show

    show(at, number, meant(file) if file else None)


@command(ROUND)
def open_() -> None:
    """Open the next round: attack the champion, publish tasks. Trains round 000 first where there is none."""
    at = root()
    prefect(at)
    from flows.base import load
    from flows.campaign import campaign, to_run
    from flows.open import open_round, to_open

    here = load(at)
    if here.closed:
        to_open(here)
        here.check_studio()
    else:
        to_run(here, 1)
        campaign(at, 0)
    open_round(at)


@command(ROUND)
def invite() -> None:
    """Print where an annotator makes an account, and the pages of the open round to send them to."""
    at = root()
    from flows.report import invitation

    print(invitation(at))


@command(ROUND)
def collect() -> None:
    """Pull what people made, judge it on the frozen target, ask for the votes it needs."""
    at = root()
    prefect(at)
    from flows.base import load
    from flows.collect import collect as flow
    from flows.collect import open_one

    here = load(at)
    open_one(here)
    here.check_studio()
    flow(at)


@command(ROUND)
def close() -> None:
    """Freeze what was collected, train, fine-tune, evaluate, promote or not, commit, tag, log."""
    at = root()
    prefect(at)
    from flows.base import load
    from flows.close import close_round, to_close
    from tasks.workspace import State, state

    here = load(at)
    round_ = to_close(here)
    if round_.number > 0 and state(round_) is State.OPEN:
        here.check_studio()
    if state(round_) is not State.CLOSED:
        here.check_mlflow()
    close_round(at)


@command(ROUND)
def abort(why: Annotated[str, typer.Option(help="the reason, kept in aborted.json")] = "") -> None:
    """Give the open round up; what was collected is kept. Round 000 can then be opened anew."""
    at = root()
    from flows.abort import abort as give_up

    give_up(at, why)


@command(ROUND)
def amend() -> None:
    """Have the open round trained by params.yaml as it is now: its train, rift, accelerator and devices."""
    at = root()
    from flows.amend import amend as take

    take(at)


@command(ROUND)
def simulate() -> None:
    """Simulated people draw and vote in the open round until nothing more is asked of them."""
    at = root()
    prefect(at)
    from flows.base import load
    from flows.campaign import play
    from flows.collect import open_one

    here = load(at)
    open_one(here)
    here.check_studio()
    play(at)


@command(STACK)
def up(
    label_studio_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    prefect_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    mlflow_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    model_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
) -> None:
    """Start Label Studio, Prefect, MLflow and the model server on 127.0.0.1, and wait until they answer."""
    at = root()
    from flows.stack import login
    from flows.stack import up as start

    asked = {"label_studio": label_studio_port, "prefect": prefect_port, "mlflow": mlflow_port, "model": model_port}
    start(at, {name: port for name, port in asked.items() if port is not None})
    print(login(at))


@command(STACK)
def down() -> None:
    """Stop what `dadc up` started, and nothing else."""
    at = root()
    from flows.stack import down as stop

    stop(at)


@command(ROUND)
def play(
    port: Annotated[int, typer.Option(help="of the page")] = 7860,
    host: Annotated[str, typer.Option(help="0.0.0.0 opens it to other machines")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=16, help="processes")] = 1,
) -> None:
    """Serve a page on which everybody can draw, see the answer after every stroke, and flag what fools the model."""
    from flows.play import play as run_page

    run_page(root(), port, host, workers)


@command(STACK)
def serve(port: Annotated[int, typer.Option(help="on 127.0.0.1")]) -> None:
    """Serve the target's answer to an image; `dadc up` does it for you."""
    from tasks.serve import serve as run_server

    run_server(root(), port)


def main() -> Any:
    """Start again at the workspace's root, so that the code that runs is the code that lies there."""
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
    here = Path(__file__).resolve().parent.parent
    if not {"--help", "-h"} & set(sys.argv[1:]) and len(sys.argv) > 1:
        from tasks.workspace import WorkspaceError

        try:
            at = root().resolve()
        except WorkspaceError as error:
            print(f"dadc: {error}", file=sys.stderr)
            return 1
        if at != here:
            print(f"dadc: the code of {at} was wanted, {here} was imported; run `dadc` from within", file=sys.stderr)
            return 1
        os.chdir(at)
    return app(prog_name="dadc")


if __name__ == "__main__":
    sys.exit(main())
