"""When a campaign needs a person, and how that person is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from data.files import write_whole
from data.layout import Round
from flows.campaign import Campaign, say
from flows.schedule.due import HOUR
from flows.schedule.events import ALERT, emit
from tasks.config.params import read
from tasks.promote import promoted
from tasks.quality.progress import Progress
from tasks.workspace.rounds import opened_at


def notify(campaign: Campaign, call: Alert) -> None:
    """Call a person, once for each round and reason: an event, and a notification where a block is named. One that
    cannot be sent is tried again at the next look; nothing waits for it."""
    done = campaign.workspace.local / "told" / f"{call.round.name}-{call.name}"
    sent = done.with_name(f"{done.name}-sent")
    text = f"campaign {campaign.params.campaign}, round {call.round.name}: {call.text}"
    done.parent.mkdir(parents=True, exist_ok=True)
    if not done.exists():
        say(text)
        emit(campaign, ALERT, call.round, call.text)
        write_whole(done, text + "\n")
    if campaign.params.schedule.notify is not None and not sent.exists():
        try:
            block = notification(campaign.params.schedule.notify)
            block.notify(text, subject=f"dadc: {campaign.params.campaign} needs a person")
        except Exception as error:  # whatever a block of anybody's raises
            say(f"schedule.notify: {campaign.params.schedule.notify} could not be sent ({error}); tried again")
            return
        write_whole(sent, text + "\n")


def notification(name: str) -> Any:
    """The block through which a person is called; ValueError if Prefect has none of this name."""
    from prefect.blocks.core import Block

    try:
        return Block.load(name)
    except ValueError as error:
        raise ValueError(
            f"schedule.notify: expected a notification block of Prefect's, got {name!r} ({error}); make it on its page "
            "Blocks, or set schedule.notify to null"
        ) from error


@dataclass(frozen=True)
class Alert:
    """Something only a person can see to; `name` is what it is told under, once for a round."""

    name: Literal["idle", "short", "disagreement", "refused"]
    round: Round
    text: str


def alerts(campaign: Campaign, now: float, tally: Progress | None = None) -> Iterator[Alert]:
    """Why a person is wanted. now: seconds since the epoch; tally: of the open round, if it was just collected."""
    round_ = campaign.current
    if round_ is not None and tally is not None:
        rules = read(round_.params)
        half = (rules.collect.deadline or 0) * HOUR / 2
        if half and not tally.collected and now >= opened_at(round_) + half:
            yield Alert("idle", round_, f"half of its deadline is over and nobody has drawn: {half / HOUR:g} hours")
        wanted = rules.validate_.consensus
        if tally.pending and tally.aside and tally.voters < wanted:
            text = (
                f"candidates that wait for votes: {tally.pending}, set aside: {tally.aside}, others who vote: "
                f"{tally.voters}, of whom {wanted} must agree; ask more people (`dadc leaderboard` says why)"
            )
            yield Alert("short", round_, text)
        bound = campaign.params.schedule.alpha
        if bound is not None and tally.alpha is not None and tally.alpha < bound:
            text = f"validators disagree: Krippendorff's alpha is {tally.alpha:.2f}, under {bound:g}"
            yield Alert("disagreement", round_, text)
    last = campaign.closed[-1] if campaign.closed else None
    if last is not None and not promoted(last):
        text = f"its challenger was refused; `dadc decide {last.name} --promote --why …` overrules the gate"
        yield Alert("refused", last, text)
