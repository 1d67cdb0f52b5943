"""Groups that vote for each other's wrong labels, and honest accounts that only seem to."""

from __future__ import annotations

import math
import random

from tasks.quality.account_stats import AccountStats
from tasks.quality.collusion import find_group


def stats(pairs: dict[tuple[str, str], tuple[int, int]]) -> dict[str, AccountStats]:
    found: dict[str, AccountStats] = {}
    for (who, whose), counts in pairs.items():
        found[who] = found.get(who, AccountStats()) + AccountStats(sided_with={whose: counts})
    return found


def crowd(seed: int, honest_rate: float, gang: int = 0) -> dict[str, AccountStats]:
    """Twenty accounts, the first `gang` of which side with each other; one to three votes a pair."""
    rng = random.Random(seed)
    names, pairs = [f"{n:02d}" for n in range(20)], {}
    for i, who in enumerate(names):
        for j, whose in enumerate(names):
            rate = 1.0 if i < gang and j < gang else honest_rate
            cases = rng.randrange(1, 4)
            if i != j:
                pairs[who, whose] = (sum(rng.random() < rate for _ in range(cases)), cases)
    return stats(pairs)


def test_a_group_is_found_whole_and_alone() -> None:
    for seed in range(5):
        group = find_group(crowd(seed, 0.05, gang=6), 0.2)
        assert group is not None
        assert group.accounts == tuple(f"{n:02d}" for n in range(6))
        assert group.sidings == group.against, "its members side with each other always"
        assert group.log_evidence > math.log(100)


def test_honest_accounts_that_err_are_no_group() -> None:
    for rate in (0.05, 0.2):
        for seed in range(20):
            group = find_group(crowd(seed, rate), 0.2)
            assert group is None or group.log_evidence < 0, (rate, seed)


def test_the_choice_among_many_groups_is_paid_for() -> None:
    """Two accounts that sided with each other five times of five: among them alone that is something, among a hundred
    that voted it happens."""
    two = {("a", "b"): (3, 3), ("b", "a"): (2, 2)}
    others = {(f"{n}", f"{n + 1}"): (0, 1) for n in range(100)}
    alone, among = find_group(stats(two), 0.2), find_group(stats(two | others), 0.2)
    assert alone is not None
    assert among is not None
    assert alone.accounts == among.accounts == ("a", "b")
    assert alone.log_evidence > among.log_evidence + math.log(1000)


def test_whom_somebody_only_sided_with_is_no_member() -> None:
    """Eve sides with everybody, and two of them with her: the others have done nothing."""
    eve = {("eve", f"{n}"): (2, 2) for n in range(6)}
    both = {(f"{n}", "eve"): (3, 3) for n in range(2)}
    group = find_group(stats(eve | both), 0.2)
    assert group is not None
    assert group.accounts == ("0", "1", "eve")
    assert find_group(stats(eve), 0.2) is None


def test_nobody_is_a_group_where_nobody_sided() -> None:
    assert find_group({}, 0.2) is None
    assert find_group(stats({("a", "b"): (0, 9)}), 0.2) is None


def test_most_accounts_are_no_group() -> None:
    """Where colluders win labels, the honest majority seems to vote for each other's wrong ones."""
    names = [f"{n}" for n in range(12)]
    group = find_group(stats({(one, other): (3, 3) for one in names for other in names if one != other}), 0.1)
    assert group is None or len(group.accounts) <= 6
