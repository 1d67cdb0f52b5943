"""What a campaign needs next, and when it needs a person: from its files, its tags and what was collected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from data.layout import Round
from flows.base import Campaign
from flows.collect import Tally
from tasks.params import read
from tasks.promote import promoted
from tasks.workspace import State, opened_at, state

HOUR = 3600


def time_zone(asked: str | None) -> str:
    """The IANA name of a time zone, this machine's if none is asked for; ValueError for one that there is not."""
    import tzlocal

    name = asked or tzlocal.get_localzone_name()
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"--timezone: wanted a zone such as Europe/Berlin, got {name!r}") from error
    return name


@dataclass(frozen=True)
class Due:
    """The next thing to do, the round it is about, and why."""

    what: Literal["open", "collect", "close", "stop"]
    round: Round
    why: str


@dataclass(frozen=True)
class Call:
    """Something only a person can see to; `name` is what it is told under, once for a round."""

    name: Literal["idle", "short", "disagreement", "refused"]
    round: Round
    text: str


def due(campaign: Campaign, now: float, tally: Tally | None = None) -> Due:
    """What comes next. now: seconds since the epoch; tally: of the open round, if it was just collected."""
    round_ = campaign.current
    if round_ is None:
        return _ended(campaign) or Due("open", campaign.next, "no round is open")
    how = state(round_)
    if how is State.OPENING:
        return Due("open", round_, "it is half opened")
    if how is State.CLOSING:
        return Due("close", round_, "it is half closed")
    if round_.number == 0:
        return Due("close", round_, "the first target collects nothing")
    rules = read(round_.params).collect
    if tally is not None and tally.verified_fooling >= rules.threshold:
        return Due("close", round_, f"{tally.verified_fooling} verified fooling candidates, {rules.threshold} wanted")
    if rules.deadline is not None and now >= opened_at(round_) + rules.deadline * HOUR:
        return Due("close", round_, f"its deadline of {rules.deadline:g} hours has come")
    return Due("collect", round_, "people work on it")


def calls(campaign: Campaign, now: float, tally: Tally | None = None) -> Iterator[Call]:
    """Why a person is wanted. now: seconds since the epoch; tally: of the open round, if it was just collected."""
    round_ = campaign.current
    if round_ is not None and tally is not None:
        rules = read(round_.params)
        half = (rules.collect.deadline or 0) * HOUR / 2
        if half and not tally.collected and now >= opened_at(round_) + half:
            yield Call("idle", round_, f"half of its deadline is over and nobody has drawn: {half / HOUR:g} hours")
        wanted = rules.validate_.consensus
        if tally.pending and tally.aside and tally.voters < wanted:
            text = (
                f"candidates that wait for votes: {tally.pending}, set aside: {tally.aside}, others who vote: "
                f"{tally.voters}, of whom {wanted} must agree; ask more people (`dadc leaderboard` says why)"
            )
            yield Call("short", round_, text)
        bound = campaign.params.schedule.alpha
        if bound is not None and tally.alpha is not None and tally.alpha < bound:
            text = f"validators disagree: Krippendorff's alpha is {tally.alpha:.2f}, under {bound:g}"
            yield Call("disagreement", round_, text)
    last = campaign.closed[-1] if campaign.closed else None
    if last is not None and not promoted(last):
        text = f"its challenger was refused; `dadc decide {last.name} --promote --why …` overrules the gate"
        yield Call("refused", last, text)


def _ended(campaign: Campaign) -> Due | None:
    """The last closed round, if params.yaml says that the campaign ends with it."""
    rules = campaign.params.schedule
    last = campaign.closed[-1] if campaign.closed else None
    if last is None:
        return None
    if rules.rounds is not None and last.number >= rules.rounds:
        return Due("stop", last, f"round {last.name} is closed, and schedule.rounds is {rules.rounds}")
    vmer = json.loads(last.metrics.read_text())["vmer"]["low"]
    if rules.vmer is not None and vmer is not None and vmer < rules.vmer:
        return Due("stop", last, f"its vMER is {vmer:.1%}, under schedule.vmer, {rules.vmer:.1%}")
    return None
