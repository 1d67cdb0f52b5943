"""Collect: pull what people made, judge it on the frozen target, have others validate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.layout import Round
from data.records import Candidate, Vote
from flows.base import Campaign, campaign_flow, load, say, step
from tasks import judge as judging
from tasks import validate as validating
from tasks.agreement import alpha, counted
from tasks.params import Params, read
from tasks.trust import ASIDE
from tasks.workspace import State, WorkspaceError, state, target

ENOUGH = 10  # candidates with two votes or more, from which agreement is spoken of


@dataclass(frozen=True)
class Tally:
    """Where a round stands, people's candidates alone."""

    collected: int
    fooling: int
    verified_fooling: int  # without near-duplicates of their author's
    pending: int  # fooling, without a verdict
    malformed: int
    alpha: float | None = None  # agreement of the validators; None where few candidates have two votes
    late: int = 0  # of the collected: made for an earlier round after it was frozen
    voters: int = 0  # accounts whose votes count
    aside: int = 0  # accounts whose votes do not, for they are set aside
    duplicates: int = 0  # fooling, and near-duplicates of their author's

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Tally:
        from tasks.leaderboard import new_fools

        people = [c for c in candidates if c.by_people]
        fooling, new = [c for c in people if c.fooling], new_fools(people)
        agreed = alpha(counted(people))
        votes = [vote for c in candidates for vote in c.votes]
        return cls(
            collected=sum(c.wellformed for c in people),
            fooling=len(fooling),
            verified_fooling=sum(c.verified for c in new),
            pending=sum(c.verdict == "pending" for c in fooling),
            malformed=sum(not c.wellformed for c in people),
            alpha=agreed["alpha"] if agreed["candidates"] >= ENOUGH else None,
            late=sum(c.wellformed and c.late for c in people),
            voters=len({vote.validator for vote in votes if vote.counted}),
            aside=len({vote.validator for vote in votes if vote.reason.startswith(ASIDE)}),
            duplicates=len(fooling) - len(new),
        )

    def __str__(self) -> str:
        return (
            f"{self.collected} collected, {self.fooling} fooling, {self.verified_fooling} of them verified, "
            f"{self.pending} pending, {self.malformed} malformed"
            + (f", {self.duplicates} near-duplicates" if self.duplicates else "")
            + (f", {self.late} late" if self.late else "")
        )


@campaign_flow("collect")
def collect(root: Path) -> Tally:
    """Bring the open round up to date; as often as one likes."""
    campaign = load(root)
    round_ = open_one(campaign)
    candidates = up_to_date(campaign, round_)
    publish_votes(campaign, round_, candidates)
    tally = Tally.of(candidates)
    say(f"round {round_.name}: {tally}")
    return tally


def up_to_date(campaign: Campaign, round_: Round) -> list[Candidate]:
    """Pull, judge, validate: every candidate of the round with the verdict it has by now."""
    params = read(round_.params)
    pull(campaign, round_)
    candidates, votes = decode(campaign, round_, params)
    return validate(judge(round_, candidates), votes, round_)


def open_one(campaign: Campaign) -> Round:
    """The open round; WorkspaceError if there is none."""
    round_ = campaign.current
    if round_ is None:
        raise WorkspaceError("no round is open; `dadc open` opens one")
    if state(round_) is State.OPENING:
        raise WorkspaceError(f"round {round_.name} is half opened; `dadc open` goes on with it")
    if state(round_) is State.CLOSING:
        raise WorkspaceError(f"round {round_.name} is frozen; `dadc close` goes on with it")
    return round_


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
    from tasks.pull import candidates, cast_votes

    return candidates(round_, params, campaign.splits), cast_votes(round_)


@step("judge")
def judge(round_: Round, candidates: list[Candidate]) -> list[Candidate]:
    """The frozen target's own answer to each."""
    attacked = target(round_)
    assert attacked is not None  # round 000 collects nothing
    return judging.judge(candidates, attacked.model)


@step("validate")
def validate(candidates: list[Candidate], votes: Mapping[str, list[Vote]], round_: Round) -> list[Candidate]:
    """Votes → verdicts, without those of accounts that the campaign's record says not to trust."""
    from tasks.pull import past

    return validating.validate(candidates, votes, read(round_.params).validate_, past(round_))


@step("publish votes")
def publish_votes(campaign: Campaign, round_: Round, candidates: list[Candidate]) -> None:
    """Validation tasks for candidates that still need votes, on pages as they were published."""
    from tasks.publish import publish_validation, put_back

    params = read(round_.params)
    for line in put_back(campaign.studio, round_, params, campaign.splits):
        say(line)
    new = publish_validation(campaign.studio, round_, candidates, params, say)
    if new:
        say(f"published {new} validation tasks")
