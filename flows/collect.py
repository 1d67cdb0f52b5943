"""Collect: pull what people made, judge it on the frozen target, have others validate it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data.layout import Round
from data.records import Candidate, Vote
from flows.context import Campaign, campaign_flow, load, say, step
from flows.reports.progress import keep as keep_progress
from tasks import judge as judging
from tasks import validate as validating
from tasks.config.params import Params, read
from tasks.quality.consensus import votes_missing
from tasks.quality.progress import Progress
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import State, state, target


@campaign_flow("collect")
def collect(root: Path) -> Progress:
    """Bring the open round up to date; as often as one likes."""
    campaign = load(root)
    round_ = the_open_round(campaign)
    candidates = candidates_now(campaign, round_)
    publish_votes(campaign, round_, candidates)
    tally = Progress.of(candidates)
    keep_progress(round_, tally, _votes_missing(round_, candidates))
    say(f"round {round_.name}: {tally}")
    return tally


def candidates_now(campaign: Campaign, round_: Round) -> list[Candidate]:
    """Pull, judge, validate: every candidate of the round with the verdict it has by now."""
    params = read(round_.params)
    pull(campaign, round_)
    candidates, votes = decode(campaign, round_, params)
    return validate(judge(round_, candidates), votes, round_)


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


def _votes_missing(round_: Round, candidates: list[Candidate]) -> int:
    """On all candidates about which validators are asked."""
    from tasks.publish import due

    params = read(round_.params)
    return sum(votes_missing(c, params.validate_) for c in candidates if due(c, params))


@step("pull")
def pull(campaign: Campaign, round_: Round) -> None:
    """What is new in Label Studio → annotations.jsonl."""
    from tasks.pull import pull as pull_new

    new = pull_new(campaign.studio, round_)
    if new:
        say(f"pulled {new} new")


@step("decode")
def decode(campaign: Campaign, round_: Round, params: Params) -> tuple[list[Candidate], Mapping[str, list[Vote]]]:
    """annotations.jsonl and attack.parquet → candidates and votes."""
    from tasks.record.candidates import candidates
    from tasks.record.votes import cast_votes

    return candidates(round_, params, campaign.splits), cast_votes(round_)


@step("judge")
def judge(round_: Round, candidates: list[Candidate]) -> list[Candidate]:
    """The frozen target's own answer to each."""
    attacked = target(round_)
    assert attacked is not None  # round 000 collects nothing
    return judging.judge(candidates, attacked.challenger.model)


@step("validate")
def validate(candidates: list[Candidate], votes: Mapping[str, list[Vote]], round_: Round) -> list[Candidate]:
    """Votes → verdicts, without those of accounts that the campaign's record says not to trust."""
    from tasks.record.history import stats_before

    return validating.validate(candidates, votes, read(round_.params).validate_, stats_before(round_))


@step("publish votes")
def publish_votes(campaign: Campaign, round_: Round, candidates: list[Candidate]) -> None:
    """Validation tasks for candidates that still need votes, on pages as they were published."""
    from tasks.publish import publish_validation, restore_projects

    params = read(round_.params)
    for line in restore_projects(campaign.studio, round_, params, campaign.splits):
        say(line)
    new = publish_validation(campaign.studio, round_, candidates, params, say)
    if new:
        say(f"published {new} validation tasks")
