"""Rounds in order, until round N is closed."""

from __future__ import annotations

import time
from pathlib import Path

from flows.close import close_round, round_to_close
from flows.collect import check_collect, collect
from flows.context import Campaign, campaign_flow, load, say, step
from flows.open import open_round, round_to_open
from tasks.config.params import read
from tasks.workspace.rounds import State, state


def done(here: Campaign, rounds: int) -> bool:
    """Whether nothing is open and round `rounds` is closed."""
    return here.current is None and bool(here.closed) and here.closed[-1].number >= rounds


def check_run(here: Campaign, rounds: int, simulate: bool = False) -> None:
    """The errors of what running until round `rounds` is closed lacks, now or in the end; none where it is closed."""
    del simulate  # people and simulated ones need the same
    if done(here, rounds):
        return
    begun = here.current is not None and state(here.current) is not State.OPENING
    round_ = round_to_close(here) if begun else round_to_open(here)
    if max(rounds, round_.number) > 0:
        here.check_studio()
    here.check_mlflow()


@campaign_flow("campaign", requires=check_run)
def campaign(root: Path, rounds: int, simulate: bool = False) -> None:
    """Go on until round `rounds` is closed, round 000 included, from wherever the campaign stands."""
    while True:
        here = load(root)
        current = here.current
        if done(here, rounds):
            return
        if current is None or state(current) is State.OPENING:
            open_round(root)
            continue
        if state(current) is State.OPEN and current.number > 0:
            play_simulated(root) if simulate else wait(root)
        close_round(root)


@campaign_flow("simulate", requires=check_collect)
def play_simulated(root: Path) -> None:
    """Simulated annotators and validators, until nothing more is asked of them."""
    draw(root)
    collect(root)
    round_ = load(root).current
    assert round_ is not None
    for _ in range(read(round_.params).validate_.max_votes):
        if not vote(root):
            break
        collect(root)


def wait(root: Path) -> None:
    """Collect until people have done all that the round asks of them."""
    from tasks.publish import unfinished

    while True:
        collect(root)
        here = load(root)
        round_ = here.current
        assert round_ is not None
        left = unfinished(here.studio, round_)
        if not left:
            return
        say(f"round {round_.name}: {left} tasks are still open; next look in {here.params.collect.every} s")
        time.sleep(here.params.collect.every)


@step("draw")
def draw(root: Path) -> int:
    """Simulated annotators draw what is still to be drawn."""
    from tasks.simulation import people as simulate

    here = load(root)
    round_ = here.current
    assert round_ is not None
    made = simulate.draw(here.studio, here.services, round_, read(round_.params), here.spec)
    say(f"simulated annotators submitted {made} drawings")
    return made


@step("vote")
def vote(root: Path) -> int:
    """Simulated validators vote on what is still to be voted on."""
    from tasks.record.record import Record
    from tasks.simulation import people as simulate

    here = load(root)
    round_ = here.current
    assert round_ is not None
    made = simulate.vote(here.studio, here.services, Record.read(round_))
    say(f"simulated validators cast {made} votes")
    return made
