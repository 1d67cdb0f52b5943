"""The commands about a round."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.shell import ROUND, command, prefect, root


@command(ROUND)
def open_() -> None:
    """Open the next round: attack the champion, publish tasks. Trains round 000 first where there is none."""
    at = root()
    prefect(at)
    from flows.context import load
    from flows.open import open_round, round_to_open
    from flows.run import campaign, check_run

    here = load(at)
    if here.closed:
        round_to_open(here)
        here.check_studio()
    else:
        check_run(here, 1)
        campaign(at, 0)
    open_round(at)


@command(ROUND)
def invite() -> None:
    """Print where an annotator makes an account, and the pages of the open round to send them to."""
    at = root()
    from flows.reports.status import invitation

    print(invitation(at))


@command(ROUND)
def collect() -> None:
    """Pull what people made, judge it on the frozen target, ask for the votes it needs."""
    at = root()
    prefect(at)
    from flows.collect import collect as flow
    from flows.collect import the_open_round
    from flows.context import load

    here = load(at)
    the_open_round(here)
    here.check_studio()
    flow(at)


@command(ROUND)
def close() -> None:
    """Freeze what was collected, train, fine-tune, evaluate, promote or not, commit, tag, log."""
    at = root()
    prefect(at)
    from flows.close import close_round, round_to_close
    from flows.context import load
    from tasks.workspace.rounds import State, state

    here = load(at)
    round_ = round_to_close(here)
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
    from flows.collect import the_open_round
    from flows.context import load
    from flows.run import play_simulated

    here = load(at)
    the_open_round(here)
    here.check_studio()
    play_simulated(at)


@command(ROUND)
def play(
    port: Annotated[int, typer.Option(help="of the page")] = 7860,
    host: Annotated[str, typer.Option(help="0.0.0.0 opens it to other machines")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=16, help="processes")] = 1,
) -> None:
    """Serve a page on which everybody can draw, see the answer after every stroke, and flag what fools the model."""
    from flows.play import play as run_page

    run_page(root(), port, host, workers)
