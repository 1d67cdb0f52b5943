"""Poisoning: the share of wrong labels among the verified, with a part of the accounts colluding to push them.

Thirty accounts draw 20 candidates each and vote, as Label Studio would ask them to, until nothing more is asked; the
votes, verdicts and who is set aside come from the code that a campaign runs. Honest people mean another class than they
draw in 5% of their candidates and misread 5% of what they see. Colluders recognise each other's candidates and vote for
the labels these claim, which no validator is shown; they differ in how careful they are (STRATEGIES). Nobody is kept
from voting on by being set aside: the votes are cast and do not count.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._frame import Measured, main
from data.records import HUMAN, Candidate, Vote
from tasks.config.params import Validate, read
from tasks.quality.consensus import people_wanted
from tasks.quality.trust import ProbeAnswer, account_stats, set_aside
from tasks.validate import validate

ACCOUNTS, DRAWN, CLASSES = 30, 20, 10
ALONE = ("consensus", "max_votes", "non_fooling_share", "unsettled")
ERROR = 0.05  # of honest people, when they label and when they vote


@dataclass(frozen=True)
class Strategy:
    """What colluders do. mislabelled: share of their candidates with a wrong label; probes: whether they tell a probe
    from a candidate and answer it honestly; others: how they vote on what is not theirs."""

    mislabelled: float
    probes: bool
    others: str  # honest, or wrong: the next class


STRATEGIES = {
    "always wrong": Strategy(1.0, probes=False, others="wrong"),
    "wrong but on probes": Strategy(1.0, probes=True, others="wrong"),
    "for each other only": Strategy(1.0, probes=True, others="honest"),
    "half wrong": Strategy(0.5, probes=True, others="honest"),
    "a third wrong": Strategy(0.33, probes=True, others="honest"),
}


@dataclass(frozen=True)
class Outcome:
    """What came of a campaign, in counts."""

    wrong: int  # candidates verified with a wrong label
    verified: int
    mistaken: int  # honest accounts set aside
    honest: int


def play(strategy: Strategy, colluding: int, rules: Validate, seed: int) -> Outcome:
    """One campaign's worth of candidates, voted on to the end."""
    rng = random.Random(seed)
    accounts = [f"{number:02d}@localhost" for number in range(ACCOUNTS)]
    gang = set(accounts[:colluding])

    def other(klass: int) -> int:
        return (klass + rng.randrange(1, CLASSES)) % CLASSES

    truths: dict[str, int] = {}
    candidates = []
    for account in accounts:
        for number in range(DRAWN):
            key, truth = f"{account}/{number}", rng.randrange(CLASSES)
            wrong = rng.random() < (strategy.mislabelled if account in gang else ERROR)
            # Colluders agree on the wrong label, so that wrong votes on anything are of one mind.
            intended = truth if not wrong else (truth + 1) % CLASSES if account in gang else other(truth)
            truths[key] = truth
            candidates.append(Candidate(key, 1, HUMAN, b"", intended, annotator=account, answer=(intended + 1) % 10))

    def sees(voter: str, candidate: Candidate) -> int:
        truth = truths[candidate.key]
        if voter in gang and candidate.annotator in gang:
            return candidate.intended
        if voter in gang and strategy.others == "wrong":
            return (truth + 1) % CLASSES
        return other(truth) if rng.random() < ERROR else truth

    def knows(voter: str) -> bool:
        return strategy.probes if voter in gang else rng.random() >= ERROR

    past = account_stats((), [ProbeAnswer(voter, knows(voter)) for voter in accounts for _ in range(rules.probes)])
    votes: dict[str, list[Vote]] = {c.key: [] for c in candidates}
    number = 0
    while True:
        done = validate(candidates, votes, rules, past)
        asked = 0
        for candidate in rng.sample(done, len(done)):
            there = {vote.validator for vote in candidate.votes} | {candidate.annotator}
            free = rng.sample([account for account in accounts if account not in there], ACCOUNTS - len(there))
            for voter in free[: people_wanted(candidate, rules) - len(candidate.votes)]:
                number += 1
                votes[candidate.key].append(Vote(voter, sees(voter, candidate), number, ""))
                asked += 1
        if not asked:
            verified = [c for c in done if c.verified]
            aside = set(set_aside(done, votes, rules, past))
            mislabelled = sum(c.intended != truths[c.key] for c in verified)
            return Outcome(mislabelled, len(verified), len(aside - gang), ACCOUNTS - len(gang))


def played(strategy: Strategy, colluding: int, rules: Validate, seeds: int) -> Sequence[float]:
    """Per cent of the verified labels that are wrong, and of the honest accounts that are set aside."""
    found = [play(strategy, colluding, rules, seed) for seed in range(seeds)]
    wrong, verified = sum(f.wrong for f in found), sum(f.verified for f in found)
    return 100 * wrong / max(1, verified), 100 * sum(f.mistaken for f in found) / sum(f.honest for f in found)


def measure(quick: bool) -> list[Measured]:
    """The rules of params.yaml, and beside them consensus alone."""
    rules = read(Path("params.yaml")).validate_
    alone = Validate.model_validate(rules.model_dump(include={*ALONE}))
    seeds = 1 if quick else 10
    found = []
    for accounts, colluding, target in (("1/5", ACCOUNTS // 5, 1.0), ("1/3", ACCOUNTS // 3, None)):
        for name, strategy in STRATEGIES.items():
            wrong, mistaken = played(strategy, colluding, rules, seeds)
            without, _ = played(strategy, colluding, alone, seeds)
            label = f"{accounts} {name}"
            found += [
                Measured(f"{label}: wrong labels", wrong, "%", target, "lower"),
                Measured(f"{label}: by consensus alone", without, "%", None, "lower"),
                Measured(f"{label}: honest set aside", mistaken, "%", None, "lower"),
            ]
    return found


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
