"""The commands about a round, in the order in which a round needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shell import ROUND, command, prefect, root

if TYPE_CHECKING:
    from data.layout import Round


@command(ROUND, "dadc open")
def open_() -> None:
    """Open the next round: attack the champion, publish tasks. Trains round 000 first if there is none."""
    at = root()
    prefect(at)
    from flows.context import load, start
    from flows.open import open_round
    from flows.run import campaign, check_run

    if not load(at).closed:
        check_run(load(at), 1)  # what round 001 needs is missed before round 000 is trained
        start(campaign, at, 0)
    start(open_round, at)


@command(ROUND, "dadc invite")
def invite() -> None:
    """Print where annotators make an account, and the pages of the open round to send them to."""
    at = root()
    from flows.reports.invitation import invitation

    print(invitation(at))


@command(ROUND, "dadc play", "dadc play --host 0.0.0.0 --port 8080")
def play(
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="of the page")] = 7860,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="0.0.0.0 opens it to other machines")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(metavar="N", min=1, max=16, help="processes")] = 1,
) -> None:
    """Serve a page on which anybody can draw, see the model's answer after every stroke, and flag what fools it."""
    from flows.play import play as run_page

    run_page(root(), port, host, workers)


@command(ROUND, "dadc simulate")
def simulate() -> None:
    """Have simulated people draw and vote in the open round until nothing more is asked of them."""
    at = root()
    prefect(at)
    from flows.context import start
    from flows.run import play_simulated

    start(play_simulated, at)


@command(ROUND, "dadc collect")
def collect() -> None:
    """Pull what people made, judge it on the frozen target, and ask for the votes that it needs."""
    at = root()
    prefect(at)
    from flows.collect import collect as flow
    from flows.context import start

    start(flow, at)


@command(ROUND, "dadc close")
def close() -> None:
    """Freeze what was collected, train, fine-tune, evaluate, promote or not, commit, tag, log."""
    at = root()
    prefect(at)
    from flows.close import close_round
    from flows.context import start

    start(close_round, at)


@command(
    ROUND,
    'dadc decide 2 --promote --why "the gate compares too few images"',
    'dadc decide 2 --refuse --why "it learned a watermark"',
)
def decide(
    number: Annotated[int, typer.Argument(metavar="ROUND", help="a closed round")],
    promote: Annotated[bool, typer.Option("--promote/--refuse", help="make its challenger champion, or not")],
    why: Annotated[str, typer.Option(metavar="REASON", help="kept in decision.json")],
) -> None:
    """Promote or refuse a round's challenger by hand, over the gate's verdict; MLflow's alias moves with it."""
    from data.layout import Workspace
    from flows.commands.record import commit_decisions, log_all_rounds
    from tasks.promote import decide as write
    from tasks.workspace.git import WorkspaceError
    from tasks.workspace.rounds import State, state

    workspace = Workspace(root())
    round_ = workspace.round(number)
    if state(round_) is not State.CLOSED:
        raise WorkspaceError(f"only a closed round can be decided on, round {round_.name} is {state(round_)}")

    def decide_one() -> list[Round]:
        write(round_, promote, why)
        return [round_]

    commit_decisions(workspace, f"{'Promote' if promote else 'Refuse'} round {round_.name} by hand", decide_one)
    print(f"round {round_.name} is {'promoted' if promote else 'refused'} by hand")
    log_all_rounds(workspace)


@command(ROUND, "dadc amend")
def amend() -> None:
    """Take params.yaml's `train`, `rift`, devices and `evaluate.precision` into the open round, for its training."""
    at = root()
    from flows.amend import amend as take

    take(at)


@command(ROUND, 'dadc abort --why "the class names were wrong"')
def abort(why: Annotated[str, typer.Option(metavar="REASON", help="kept in aborted.json")] = "") -> None:
    """Give the open round up; what was collected is kept. Round 000 can then be opened anew."""
    at = root()
    from flows.abort import abort as give_up

    give_up(at, why)
