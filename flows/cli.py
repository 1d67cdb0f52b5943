"""The command `dadc`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

P = ParamSpec("P")
T = TypeVar("T")

QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # what matters is said in a line of its own
    "PREFECT_CLI_PROMPT": "false",
}

app = typer.Typer(
    name="dadc",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # its frames would show secrets
    help="""Harden an image classifier in rounds of dynamic adversarial data collection.

A **round** freezes a target model, attacks it, asks people to fool it through Label Studio, has other people
validate the labels blind, freezes what they made as one DVC version, retrains with an adversarial loss,
fine-tunes with RiFT, measures clean, robust and OOD accuracy, promotes the challenger or not, and logs it all
in MLflow. Run `dadc` in a checkout of the project: one checkout holds one campaign, `params.yaml` says how.

The first time:  `dadc init` · `dadc up` · `dadc run --rounds 1 --simulate` · `dadc status`

With people:  `dadc open`, then `dadc collect` as often as you like, then `dadc close`.
Every command may be run twice: the second time changes nothing, and one that was cut short goes on.
""",
    epilog="A round is a folder, `data/rounds/NNN`; once closed it is a commit and the tag `round-NNN`.",
)
CAMPAIGN, ROUND, STACK = "The campaign", "A round", "The local services"


def _root() -> Path:
    from tasks.workspace import find

    return find(Path.cwd()).root


def command(panel: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A subcommand whose faults are one clear line and exit code 1."""

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            from tasks.labelling import LabellingError
            from tasks.params import ParamsError
            from tasks.services import StackError
            from tasks.workspace import WorkspaceError

            try:
                return function(*args, **kwargs)
            except (ParamsError, StackError, LabellingError, WorkspaceError, ValueError, FileNotFoundError) as error:
                for line in str(error).splitlines():
                    print(f"dadc: {line}", file=sys.stderr)
                raise typer.Exit(1) from error
            except KeyboardInterrupt:
                print("dadc: stopped; the same command goes on from here", file=sys.stderr)
                raise typer.Exit(130) from None

        name = function.__name__.rstrip("_")
        app.command(name, rich_help_panel=panel)(guarded)
        return guarded

    return wrap


def _prefect(root: Path) -> None:
    """Point Prefect at the campaign's server if it is up; else a flow runs on a server of its own.

    What can be refused is refused before a flow is started: at once, and without a failed run.
    """
    from tasks.services import find

    address = find(root).prefect_url
    if address:
        os.environ["PREFECT_API_URL"] = address
    home = Path(os.environ.setdefault("PREFECT_HOME", str(root / ".dadc" / "prefect")))
    home.mkdir(parents=True, exist_ok=True)


@command(CAMPAIGN)
def init(
    remote: Annotated[
        str | None, typer.Option(help="DVC remote: an absolute path, or an address such as s3://… [.dadc/remote]")
    ] = None,
) -> None:
    """Check the workspace, freeze the data set and its splits under DVC, commit."""
    from data.layout import Workspace
    from tasks.init import init as freeze
    from tasks.params import read
    from tasks.workspace import check_branch, check_committed, lock

    workspace = Workspace(_root())
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
    root = _root()
    _prefect(root)
    from flows.base import load
    from flows.campaign import campaign
    from flows.report import show

    here = load(root)
    if rounds > 0:
        here.studio.check()
    campaign(root, rounds, simulate)
    show(root)


@command(CAMPAIGN)
def schedule(
    every: Annotated[int | None, typer.Option(min=1, help="seconds between two looks [collect.every]")] = None,
    cron: Annotated[str | None, typer.Option(help='instead, such as "*/10 8-18 * * mon-fri"')] = None,
) -> None:
    """Run rounds by themselves: collect, close at the threshold or deadline, open the next. Ctrl-C stops it.

    params.yaml says when: collect.threshold, collect.deadline, and in `schedule` when the campaign has ended.
    """
    from data.layout import Workspace
    from tasks.params import read
    from tasks.services import ServiceDown, find

    root = _root()
    url = find(root).prefect_url
    if url is None:
        raise ServiceDown("prefect")
    _prefect(root)
    from flows.base import load
    from flows.deploy import serve as serve_deployments

    load(root).studio.check()
    seconds = every or read(Workspace(root).params).collect.every
    print(f"looking {f'at {cron}' if cron else f'every {seconds} s'}; the runs are at {url.removesuffix('/api')}/runs")
    if serve_deployments(root, seconds, cron) is None:
        print("stopped; `dadc schedule` goes on from here")


@command(CAMPAIGN)
def status() -> None:
    """Print the rounds, a row each, and what the campaign waits for."""
    root = _root()
    from flows.report import advice, show

    show(root)
    print(advice(root))


@command(CAMPAIGN)
def leaderboard(
    number: Annotated[int | None, typer.Option("--round", metavar="NNN", help="one round [all that collect]")] = None,
    file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="write the rows there too")] = None,
) -> None:
    """Print what each annotator and validator did, and who is set aside."""
    root = _root()
    from flows.board import show

    show(root, number, file.absolute() if file else None)


@command(CAMPAIGN)
def decide(
    number: Annotated[int, typer.Argument(metavar="ROUND", help="a closed round")],
    promote: Annotated[bool, typer.Option("--promote/--refuse", help="make its challenger champion, or not")],
    why: Annotated[str, typer.Option(help="the reason, kept in decision.json")],
) -> None:
    """Decide by hand on a promotion, over the gate's verdict."""
    from data.layout import Workspace
    from tasks.promote import decide as write
    from tasks.workspace import State, WorkspaceError, check_branch, commit, lock, state

    workspace = Workspace(_root())
    round_ = workspace.round(number)
    if state(round_) is not State.CLOSED:
        raise WorkspaceError(f"a closed round is wanted, round {round_.name} is {state(round_)}")
    check_branch(workspace)
    with lock(workspace):
        write(round_, promote, why)
        commit(workspace, f"{'Promote' if promote else 'Refuse'} round {round_.name} by hand", round_.decision)


@command(CAMPAIGN)
def track() -> None:
    """Write every closed round to MLflow again, from the rounds' own files."""
    from data.layout import Workspace
    from tasks.promote import champion
    from tasks.services import find
    from tasks.track import rebuild
    from tasks.workspace import closed

    workspace = Workspace(_root())
    rebuild(workspace, find(workspace.root), champion(closed(workspace)))


@command(ROUND)
def open_() -> None:
    """Open the next round: attack the champion, publish tasks. Trains round 000 first where there is none."""
    root = _root()
    _prefect(root)
    from flows.base import load
    from flows.campaign import campaign
    from flows.open import open_round, to_open

    here = load(root)
    to_open(here)
    here.studio.check()
    if not here.closed:
        campaign(root, 0)
    open_round(root)


@command(ROUND)
def invite() -> None:
    """Print where an annotator makes an account, and the pages of the open round to send them to."""
    root = _root()
    from flows.report import invitation

    print(invitation(root))


@command(ROUND)
def collect() -> None:
    """Pull what people made, judge it on the frozen target, ask for the votes it needs."""
    root = _root()
    _prefect(root)
    from flows.base import load
    from flows.collect import collect as flow
    from flows.collect import open_one

    here = load(root)
    open_one(here)
    here.studio.check()
    flow(root)


@command(ROUND)
def close() -> None:
    """Freeze what was collected, train, fine-tune, evaluate, promote or not, commit, tag, log."""
    root = _root()
    _prefect(root)
    from flows.base import load
    from flows.close import close_round, to_close

    to_close(load(root))
    close_round(root)


@command(ROUND)
def abort(why: Annotated[str, typer.Option(help="the reason, kept in aborted.json")] = "") -> None:
    """Give the open round up; what was collected is kept."""
    root = _root()
    from flows.abort import abort as give_up

    give_up(root, why)


@command(ROUND)
def simulate() -> None:
    """Simulated people draw and vote in the open round until nothing more is asked of them."""
    root = _root()
    _prefect(root)
    from flows.base import load
    from flows.campaign import play
    from flows.collect import open_one

    here = load(root)
    open_one(here)
    here.studio.check()
    play(root)


@command(STACK)
def up(
    label_studio_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    prefect_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    mlflow_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    model_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
) -> None:
    """Start Label Studio, Prefect, MLflow and the model server on 127.0.0.1, and wait until they answer."""
    root = _root()
    from flows.stack import login
    from flows.stack import up as start

    asked = {"label_studio": label_studio_port, "prefect": prefect_port, "mlflow": mlflow_port, "model": model_port}
    start(root, {name: port for name, port in asked.items() if port is not None})
    print(login(root))


@command(STACK)
def down() -> None:
    """Stop what `dadc up` started, and nothing else."""
    root = _root()
    from flows.stack import down as stop

    stop(root)


@command(ROUND)
def play(
    port: Annotated[int, typer.Option(help="of the page")] = 7860,
    host: Annotated[str, typer.Option(help="0.0.0.0 opens it to other machines")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=16, help="processes")] = 1,
) -> None:
    """Serve a page on which everybody can draw, see the answer after every stroke, and flag what fools the model."""
    from flows.play import play as run_page

    run_page(_root(), port, host, workers)


@command(STACK)
def serve(port: Annotated[int, typer.Option(help="on 127.0.0.1")]) -> None:
    """Serve the target's answer to an image; `dadc up` does it for you."""
    from tasks.serve import serve as run_server

    run_server(_root(), port)


def main() -> Any:
    """Start again at the workspace's root, so that the code that runs is the code that lies there."""
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
    here = Path(__file__).resolve().parent.parent
    if not {"--help", "-h"} & set(sys.argv[1:]) and len(sys.argv) > 1:
        from tasks.workspace import WorkspaceError

        try:
            root = _root().resolve()
        except WorkspaceError as error:
            print(f"dadc: {error}", file=sys.stderr)
            return 1
        if root != here:
            print(f"dadc: the code of {root} was wanted, {here} was imported; run `dadc` from within", file=sys.stderr)
            return 1
        os.chdir(root)
    return app()


if __name__ == "__main__":
    sys.exit(main())
