"""Whom the rules of validate.aside set aside: honest accounts that err, and colluders that push wrong labels.

Thirty accounts draw candidates and vote, as Label Studio would ask them to, until nothing more is asked; the votes,
verdicts and who is set aside come from the code that a campaign runs. Honest people mean another class than they draw,
and misread what they see, at a rate of their own: `at random`, any other class, or `alike`, where everybody's errors go
to the same one. Colluders recognise each other's candidates and vote for the labels these claim, which no validator is
shown; they differ in how careful they are (STRATEGIES). Nobody is kept from voting on by being set aside: the votes are
cast and do not count. Beside the rules stand those that a campaign had before them, BEFORE, and consensus alone.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._frame import Measured, main
from data.records import HUMAN, Candidate, Vote
from tasks.config.params import Validate, read
from tasks.quality.account_stats import ProbeAnswer, account_stats
from tasks.quality.consensus import people_wanted, reasons_aside
from tasks.validate import validate

ACCOUNTS, DRAWN, CLASSES = 30, 20, 10
LOOKS = 10  # parts in which honest people's votes are asked for, with a look at everybody after each
ALONE = ("consensus", "max_votes", "non_fooling_share", "unsettled")
BEFORE = {
    "probe_votes": 4,
    "probe_accuracy": 0.6,
    "judged_from": 6,
    "annotator_rejected": 0.4,
    "validator_dissent": 0.4,
    "validator_siding": 0.4,
}
ERROR = 0.05  # of honest people among colluders
TARGET = 1.0  # per cent


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
Errors = Callable[[int], float]  # the number of an honest account → its rate
HONEST: dict[str, Errors] = {
    "5% errors": lambda _: 0.05,
    "10% errors": lambda _: 0.1,
    "20% errors": lambda _: 0.2,
    "30% errors": lambda _: 0.3,
    "5 to 30% errors": lambda number: 0.05 + 0.25 * number / (ACCOUNTS - 1),
    "30% errors where 27 of 30 have 5%": lambda number: 0.3 if number < 3 else 0.05,
}


@dataclass(frozen=True)
class Outcome:
    """What came of a campaign, in counts."""

    wrong: int  # colluders' candidates verified with a wrong label
    verified: int
    mistaken: int  # honest accounts ever set aside
    honest: int
    found: int  # colluders set aside in the end


@dataclass
class Campaign:
    """Candidates, and votes on them as they are cast."""

    rules: Validate
    seed: int
    errors: Errors = lambda _: ERROR
    alike: bool = False  # whether everybody's errors go to the next class
    strategy: Strategy = STRATEGIES["for each other only"]
    colluding: int = 0
    drawn: int = DRAWN
    truths: dict[str, int] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    votes: dict[str, list[Vote]] = field(default_factory=dict)
    ever: set[str] = field(default_factory=set)  # accounts set aside at some look
    aside: set[str] = field(default_factory=set)  # at the last

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.accounts = [f"{number:02d}@localhost" for number in range(ACCOUNTS)]
        self.gang = set(self.accounts[: self.colluding])
        self.rates = {account: self.errors(number) for number, account in enumerate(self.accounts)}
        for account in self.accounts:
            for number in range(self.drawn):
                key, truth = f"{account}/{number}", self.rng.randrange(CLASSES)
                wrong = self.rng.random() < (self.strategy.mislabelled if account in self.gang else self.rates[account])
                # Colluders agree on the wrong label, so that wrong votes on anything are of one mind.
                next_one = account in self.gang or self.alike
                intended = truth if not wrong else (truth + 1) % CLASSES if next_one else self.other(truth)
                self.truths[key] = truth
                answer = (intended + 1) % CLASSES
                self.candidates.append(Candidate(key, 1, HUMAN, b"", intended, annotator=account, answer=answer))
        self.votes = {candidate.key: [] for candidate in self.candidates}
        probes = range(self.rules.probes)
        answers = [ProbeAnswer(who, f"{n}", 0 if self.knows(who) else 1, 0) for who in self.accounts for n in probes]
        self.past = account_stats((), answers)

    def other(self, truth: int) -> int:
        return (truth + (1 if self.alike else self.rng.randrange(1, CLASSES))) % CLASSES

    def sees(self, voter: str, candidate: Candidate) -> int:
        truth = self.truths[candidate.key]
        if voter in self.gang and candidate.annotator in self.gang:
            return candidate.intended
        if voter in self.gang and self.strategy.others == "wrong":
            return (truth + 1) % CLASSES
        return self.other(truth) if self.rng.random() < self.rates[voter] else truth

    def knows(self, voter: str) -> bool:
        return self.strategy.probes if voter in self.gang else self.rng.random() >= self.rates[voter]

    def free(self, candidate: Candidate) -> int:
        """How many accounts have not voted on it yet and may."""
        return ACCOUNTS - 1 - len(candidate.votes)

    def look(self) -> list[Candidate]:
        """The candidates with their verdicts by now; who is set aside by now is remembered."""
        now = validate(self.candidates, self.votes, self.rules, self.past)
        self.aside = set(reasons_aside(now))
        self.ever |= self.aside
        return now

    def play(self, share: float = 1.0) -> Outcome:
        """Ask for votes until none is wanted. share: of the candidates that are asked about between two looks."""
        cast = 0
        while True:
            now = self.look()
            missing = {c.key: min(self.free(c), people_wanted(c, self.rules) - len(c.votes)) for c in now}
            wanting = [c for c in now if missing[c.key] > 0]
            if not wanting:
                break
            for candidate in self.rng.sample(wanting, min(len(wanting), round(share * len(now)))):
                voters = {vote.validator for vote in candidate.votes} | {candidate.annotator}
                free = [account for account in self.accounts if account not in voters]
                for voter in self.rng.sample(free, missing[candidate.key]):
                    cast += 1
                    self.votes[candidate.key].append(Vote(voter, self.sees(voter, candidate), cast, ""))
        verified = [c for c in now if c.verified]
        wrong = sum(c.intended != self.truths[c.key] and c.annotator in self.gang for c in verified)
        honest = ACCOUNTS - self.colluding
        return Outcome(wrong, len(verified), len(self.ever - self.gang), honest, len(self.aside & self.gang))


def honest(rules: Validate, seeds: int) -> Iterator[Measured]:
    """The share of honest accounts that are ever set aside, at their rates of error."""
    before = rules_before(rules)
    for name, errors in HONEST.items():
        for alike in (False, True):
            shares = []
            for each in (rules, before):
                games = [Campaign(each, seed, errors, alike, drawn=2 * DRAWN).play(1 / LOOKS) for seed in range(seeds)]
                shares.append(100 * sum(game.mistaken for game in games) / sum(game.honest for game in games))
            label = f"honest, {name}{', alike' if alike else ', at random'}, {ACCOUNTS * seeds} accounts"
            yield Measured(f"{label}: ever set aside", shares[0], "%", TARGET, "lower")
            yield Measured(f"{label}: by the rules before", shares[1], "%", None, "lower")
            print(f"{label}: {shares[0]:.2f}, before {shares[1]:.2f}", file=sys.stderr, flush=True)


def colluders(rules: Validate, seeds: int) -> Iterator[Measured]:
    """Per cent of the verified labels that are wrong, and whose the accounts are that were set aside."""
    variants = {"rules": rules, "before": rules_before(rules), "alone": alone(rules)}
    for share, colluding in (("1/5", ACCOUNTS // 5), ("1/3", ACCOUNTS // 3)):
        for name, strategy in STRATEGIES.items():
            games = {
                variant: [Campaign(each, seed, strategy=strategy, colluding=colluding).play() for seed in range(seeds)]
                for variant, each in variants.items()
            }
            wrong = {v: 100 * sum(g.wrong for g in all_) / sum(g.verified for g in all_) for v, all_ in games.items()}
            ours, label = games["rules"], f"{share} {name}"
            mistaken = 100 * sum(game.mistaken for game in ours) / sum(game.honest for game in ours)
            found = 100 * sum(game.found for game in ours) / (colluding * seeds)
            yield Measured(f"{label}: wrong labels", wrong["rules"], "%", TARGET, "lower")
            yield Measured(f"{label}: by the rules before", wrong["before"], "%", None, "lower")
            yield Measured(f"{label}: by consensus alone", wrong["alone"], "%", None, "lower")
            yield Measured(f"{label}: honest set aside", mistaken, "%", TARGET, "lower")
            yield Measured(f"{label}: colluders set aside", found, "%", None, "higher")
            print(f"{label}: {wrong}, honest {mistaken:.2f}, found {found:.0f}", file=sys.stderr, flush=True)


def rules_before(rules: Validate) -> Validate:
    """The shares that a campaign was held to before validate.aside."""
    return Validate.model_validate(alone(rules).model_dump(include={*ALONE}) | {"probes": rules.probes} | BEFORE)


def alone(rules: Validate) -> Validate:
    """Consensus, and nobody set aside."""
    return Validate.model_validate(rules.model_dump(include={*ALONE}))


def measure(quick: bool) -> list[Measured]:
    """The rules of params.yaml."""
    rules = read(Path("params.yaml")).validate_
    seeds = 1 if quick else 5
    return [*honest(rules, seeds), *colluders(rules, seeds)]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
