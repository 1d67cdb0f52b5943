"""Collect: pull what people made, judge it on the frozen target, have others validate it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.layout import Round
from data.records import Candidate
from flows.candidates import candidates_now
from flows.context import Campaign, campaign_flow, load, say, step
from flows.reports.progress import keep as keep_progress
from tasks.quality.consensus import reasons_aside, votes_missing
from tasks.quality.progress import Progress
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import State, state
from tasks.workspace.services import ServiceDown, renew_secret

if TYPE_CHECKING:
    from tasks.record.record import Record


def check_collect(campaign: Campaign) -> None:
    """The errors of what collecting lacks."""
    the_open_round(campaign)
    campaign.check_studio()


@campaign_flow("collect", requires=check_collect)
def collect(root: Path) -> Progress:
    """Bring the open round up to date; as often as one likes."""
    campaign = load(root)
    round_ = campaign.current
    assert round_ is not None  # which check_collect saw to
    record = pull(campaign, round_)
    candidates = validate(record)
    publish_votes(campaign, record, candidates)
    progress = Progress.of(candidates)
    aside = reasons_aside(candidates)
    keep_progress(round_, progress, _votes_missing(record, candidates), aside)
    say(f"round {round_.name}: {progress}")
    for account, reason in aside.items():
        say(f"set aside: {account}: {reason}")
    return progress


def the_open_round(campaign: Campaign) -> Round:
    """The open round; WorkspaceError if there is none."""
    round_ = campaign.current
    if round_ is None:
        raise WorkspaceError("no round is open; `dadc open` opens one")
    if state(round_) is State.OPENING:
        raise WorkspaceError(f"round {round_.name} is half opened; `dadc open` goes on with it")
    if state(round_) is State.CLOSING:
        raise WorkspaceError(f"round {round_.name} is frozen; `dadc close` goes on with it")
    return round_


def _votes_missing(record: Record, candidates: list[Candidate]) -> int:
    """On all candidates about which validators are asked."""
    from tasks.publish import due

    rules = record.params.validate_
    return sum(votes_missing(c, rules) for c in candidates if due(c, record.params))


@step("pull")
def pull(campaign: Campaign, round_: Round) -> Record:
    """What is new in Label Studio → annotations.jsonl; the whole record."""
    from tasks.pull import pull as pull_new
    from tasks.record.record import Record

    before = Record.read(round_)
    record = pull_new(campaign.studio, before, say)
    new = len(record.lines) - len(before.lines)
    if new:
        say(f"pulled {new} new")
    return record


@step("judge and validate")
def validate(record: Record) -> list[Candidate]:
    """The record → candidates with the target's answers and the verdicts that they have by now."""
    return candidates_now(record)


@step("publish votes")
def publish_votes(campaign: Campaign, record: Record, candidates: list[Candidate]) -> None:
    """Validation tasks for candidates that still need votes, on pages as they were published."""
    from tasks.publish import attach_model, publish_validation, reopen_spoiled
    from tasks.restore import restore

    restored = restore(campaign.studio, record, campaign.services, say)
    if restored.leaked_to:
        renew_model_log_in(campaign, restored.leaked_to)
    if restored.detached:
        try:
            attach_model(campaign.studio, record.round, record.params, campaign.services)
            say("the model server, and no other, is attached to the round's projects again")
        except ServiceDown as error:  # people go on without it
            say(f"{error}; the next `dadc collect` attaches it")
    reopened = reopen_spoiled(campaign.studio, record)
    if reopened:
        say(f"opened {reopened} tasks again: what was submitted in them is no drawing, such as one without ink")
    new = publish_validation(campaign.studio, record, candidates, say)
    if new:
        say(f"published {new} validation tasks")


def renew_model_log_in(campaign: Campaign, sent_to: Sequence[str]) -> None:
    """Make the model server's password anew, for Label Studio has sent the old one to others."""
    where = ", ".join(sent_to)
    say(f"somebody had attached another model server ({where}); Label Studio has sent it our model server's log-in")
    if renew_secret(campaign.workspace.root, "model", "password", "DADC_MODEL_PASSWORD"):
        say("the model server's password is made anew")
    else:
        say("change DADC_MODEL_PASSWORD, which the environment gives, at the model server and here")
    say("it was sent the token of Label Studio's administrator too; reset that in Label Studio (docs/security.md)")
