"""What a campaign needs next: from its files, its tags and what was collected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from data.layout import Round
from flows.campaign import Campaign
from tasks.config.params import read
from tasks.quality.progress import Progress
from tasks.workspace.rounds import State, opened_at, state

HOUR = 3600


@dataclass(frozen=True)
class Due:
    """The next thing to do, the round it is about, and why."""

    what: Literal["open", "collect", "close", "stop"]
    round: Round
    why: str


def due(campaign: Campaign, now: float, tally: Progress | None = None) -> Due:
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


def _ended(campaign: Campaign) -> Due | None:
    """The last closed round, if params.yaml says that the campaign ends with it."""
    rules = campaign.params.schedule
    last = campaign.closed[-1] if campaign.closed else None
    if last is None:
        return None
    if rules.rounds is not None and last.number >= rules.rounds:
        return Due("stop", last, f"round {last.name} is closed, and schedule.rounds is {rules.rounds}")
    vmer = json.loads(last.challenger.metrics.read_text())["vmer"]["low"]
    if rules.vmer is not None and vmer is not None and vmer < rules.vmer:
        return Due("stop", last, f"its vMER is {vmer:.1%}, under schedule.vmer, {rules.vmer:.1%}")
    return None
