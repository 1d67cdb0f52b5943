"""Who made and validated what: a row per annotator, per validator and per attack. Pure; for paying people.

Who is set aside is read off the candidates: by the reason for which they, or votes on them, do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.records import PEOPLE, Candidate
from tasks.config.params import Validate
from tasks.quality.account_stats import ProbeAnswer, account_stats
from tasks.quality.consensus import ASIDE, tally_votes
from tasks.quality.dawid_skene import skill
from tasks.quality.duplicates import duplicates, new_fools


@dataclass(frozen=True)
class Annotator:
    """An annotator's part. A rate of nothing is None."""

    account: str
    tries: int  # well-formed candidates
    malformed: int
    fools: int  # tries that fooled the target, without near-duplicates of earlier ones
    verified_fools: int  # of those, with a verified label
    duplicates: int  # fools that are near-duplicates of the author's earlier ones
    mer: float | None  # share of the tries that fooled the target, near-duplicates included; a player has none
    seconds: float  # over all tries
    seconds_per_verified_fool: float | None
    set_aside: str  # why; empty if not


@dataclass(frozen=True)
class Validator:
    """A validator's part. A share of nothing is None."""

    account: str
    votes: int
    counted: int
    verified_fools: int  # fools whose label a counted vote of theirs helped to verify; near-duplicates once
    seconds: float  # over all they were shown, probes too
    seconds_per_verified_fool: float | None
    agreement: float | None  # share of the votes for a class, on candidates settled on one, that match it
    skill: float | None  # chance of a right vote by Dawid–Skene; None where votes are few
    probes: int  # answered
    probe_accuracy: float | None
    set_aside: str  # why; empty if not


@dataclass(frozen=True)
class Attack:
    """An attack's part in a round, apart from people's. A share of nothing is None."""

    account: str  # the attack's name
    round: str
    tries: int
    fools: int
    verified_fools: int
    attack_success_rate: float | None  # share of the rightly classified seed images that it flipped
    verified_rate: float | None  # share of its settled candidates whose label was verified


def annotators(candidates: Sequence[Candidate]) -> list[Annotator]:
    """People who drew, the most verified fools first. candidates: judged, with verdicts."""
    by_author: dict[str, list[Candidate]] = {}
    for c in candidates:
        if c.by_people:
            by_author.setdefault(c.annotator, []).append(c)
    rows = []
    for account, own in by_author.items():
        tries = [c for c in own if c.wellformed]
        fools, rated = [c for c in tries if c.fooling], [c for c in tries if c.rated]
        again = duplicates(fools)
        new = [c for c in fools if c.key not in again]
        verified = sum(c.verified for c in new)
        seconds = sum(c.seconds for c in tries)
        rows.append(
            Annotator(
                account=account,
                tries=len(tries),
                malformed=len(own) - len(tries),
                fools=len(new),
                verified_fools=verified,
                duplicates=len(again),
                mer=sum(c.fooling for c in rated) / len(rated) if rated else None,
                seconds=round(seconds, 3),
                seconds_per_verified_fool=seconds / verified if verified else None,
                set_aside=_aside((c.at, c.reason) for c in tries),
            )
        )
    return sorted(rows, key=lambda row: (-row.verified_fools, -row.fools, row.tries, row.account))


def validators(
    candidates: Sequence[Candidate],
    probes: Iterable[ProbeAnswer],
    rules: Mapping[int, Validate],
    seconds: Mapping[str, float],
) -> list[Validator]:
    """People who voted, the most counted votes first. candidates: with their votes as counted; rules: by their round;
    seconds: account → the time it took."""
    probes = list(probes)
    found = account_stats([(c, tally_votes(c.votes, rules[c.round])) for c in candidates if c.wellformed], probes)
    cast = [vote for c in candidates for vote in c.votes]
    skills = skill(candidates, probes)
    fools = new_fools(c for c in candidates if c.verified)
    helped = Counter(v.validator for c in fools for v in c.votes if v.counted and v.choice == c.intended)
    rows = []
    for account in {vote.validator for vote in cast} | {account for account, did in found.items() if did.probes}:
        own = [vote for vote in cast if vote.validator == account]
        did = found.get(account)
        rows.append(
            Validator(
                account=account,
                votes=len(own),
                counted=sum(vote.counted for vote in own),
                verified_fools=helped[account],
                seconds=round(seconds.get(account, 0.0), 3),
                seconds_per_verified_fool=seconds.get(account, 0.0) / helped[account] if helped[account] else None,
                agreement=1 - did.dissents / did.votes if did and did.votes else None,
                skill=skills.get(account),
                probes=did.probes if did else 0,
                probe_accuracy=did.probes_right / did.probes if did and did.probes else None,
                set_aside=_aside((vote.at, vote.reason) for vote in own),
            )
        )
    return sorted(rows, key=lambda row: (-row.counted, row.account))


def attacks(round_name: str, by_source: Mapping[str, Mapping[str, Any]]) -> list[Attack]:
    """The attacks of a round, of whose sources metrics.json tells `by_source`."""
    return [
        Attack(
            account=name,
            round=round_name,
            tries=told["collected"],
            fools=told["fooling"],
            verified_fools=told["verified_fooling"],
            attack_success_rate=told["attack_success_rate"],
            verified_rate=told["verified_rate"],
        )
        for name, told in sorted(by_source.items())
        if name not in PEOPLE
    ]


def _aside(reasons: Iterable[tuple[str, str]]) -> str:
    """The latest reason why something of an account that is set aside does not count. reasons: each with its time."""
    latest = max(((at, reason) for at, reason in reasons if reason.startswith(ASIDE)), default=("", ""))
    return latest[1].removeprefix(ASIDE)
