"""Dawid–Skene with gold and the one-coin model, against the truth that made the votes."""

from __future__ import annotations

import random

import pytest

from data.records import HUMAN, Candidate, Vote
from tasks.quality.account_stats import ProbeAnswer
from tasks.quality.dawid_skene import MANY, SOME, Ballot, ballots, dawid_skene, one_coin, skill


def test_gold_turns_a_crowd_of_which_most_are_wrong() -> None:
    """One who sees right and three who take every 1 for a 2: without probes the three are believed, with ten they are
    not."""
    rng = random.Random(0)
    truth = {f"{n:02d}": rng.randrange(3) for n in range(60)}
    seen: dict[str, dict[int, int]] = {"ann": {}, "lax1": {1: 2}, "lax2": {1: 2}, "lax3": {1: 2}}
    cast = [Ballot(item, who, errors.get(true, true)) for item, true in truth.items() for who, errors in seen.items()]
    probes = {f"probe{n}": n % 3 for n in range(10)}
    on_probes = [Ballot(p, who, errors.get(true, true)) for p, true in probes.items() for who, errors in seen.items()]
    blind, knowing = dawid_skene(cast), dawid_skene([*cast, *on_probes], gold=probes)
    assert blind is not None
    assert knowing is not None
    right = [sum(found.labels[item] == true for item, true in truth.items()) for found in (blind, knowing)]
    assert right[0] < 45
    assert right[1] == 60
    assert all(knowing.labels[probe] == class_ for probe, class_ in probes.items())
    assert knowing.skill["ann"] > 0.98 > 0.8 > knowing.skill["lax1"]


def test_a_gold_class_that_nobody_chose_is_known_all_the_same() -> None:
    cast = [Ballot("probe", who, 1) for who in "abc"] + [Ballot(f"{n}", who, n % 2) for n in range(9) for who in "abc"]
    found = one_coin(cast, gold={"probe": 7})
    assert found is not None
    assert found.labels["probe"] == 7
    everything = dawid_skene([Ballot("p", who, 1) for who in "abc"], gold={"p": 1})
    assert everything is not None
    assert everything.labels == {"p": 1}, "gold alone says how frequent classes are"


def test_one_coin_tells_the_careless_from_few_votes() -> None:
    """Ten votes each on a pool of candidates with three votes: the careless one's chance is the lowest of eight in
    nearly every campaign."""
    lowest, error = 0, 0.0
    for seed in range(40):
        rng = random.Random(seed)
        cast, left = [], {f"v{n}": 12 for n in range(8)}
        for item in range(32):
            true = rng.randrange(10)
            voters = sorted(left, key=lambda who: (-left[who], rng.random()))[:3]
            for who in voters:
                left[who] -= 1
                wrong = rng.random() < (0.6 if who == "v0" else 0.05)
                cast.append(Ballot(f"{item:02d}", who, (true + rng.randrange(1, 10)) % 10 if wrong else true))
        found = one_coin(cast)
        assert found is not None
        lowest += min(found.skill, key=lambda who: found.skill[who]) == "v0"
        error += abs(found.skill["v1"] - 0.95) / 40
    assert lowest >= 36
    assert error < 0.06
    assert one_coin([Ballot("a", "v", 1), Ballot("a", "w", 2)]) is None, "two are no crowd"


def test_skill_is_dawid_skene_s_where_votes_are_many_and_one_coin_s_where_they_are_few() -> None:
    votes = [tuple(Vote(who, class_, n, "") for n, who in enumerate("vwx")) for class_ in (0, 1)]
    made = [Candidate(f"{n:02d}", 1, HUMAN, b"", n % 2, annotator="a", votes=votes[n % 2]) for n in range(MANY)]
    few = [ProbeAnswer("new", f"p{n}", int(n == 0), 1) for n in range(SOME)]
    found = skill(made, few)
    assert set(found) == set("vwx") | {"new"}
    full = dawid_skene(ballots(made, few), gold={answer.probe: 1 for answer in few})
    assert full is not None
    assert found["v"] == full.skill["v"]
    assert "new" not in full.skill
    assert found["new"] == pytest.approx((1 + 4 * (3 * MANY + 1) / (3 * MANY + SOME)) / (SOME + 4), abs=0.01)
    assert skill(made[:1], few[:1]) == {}
