"""Who is set aside, for what, and what becomes of their votes and candidates."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from data.records import SIMULATED_DOMAIN, UNREADABLE, Candidate, Verdict, Vote
from tasks.config.params import Aside, Validate
from tasks.quality.account_stats import AccountStats, ProbeAnswer, account_stats, add_stats, closed_round_stats
from tasks.quality.consensus import people_wanted, reasons_aside, tally_votes
from tasks.quality.trust import set_aside
from tasks.validate import validate

RULES = Validate(
    consensus=2,
    max_votes=5,
    non_fooling_share=0.0,
    unsettled="pending",
    probes=4,
    aside=Aside(alpha=0.01, excess=0.3, siding=0.15),
)


def drawn(number: int, intended: int = 3, annotator: str = "ann@x", **changes: object) -> Candidate:
    made = Candidate(f"001/draw/{number:04d}", 1, "human", b"png", intended, annotator=annotator, answer=9)
    return replace(made, **changes)  # type: ignore[arg-type]


def cast(number: int, **choices: int) -> list[Vote]:
    """Votes by name; the later the candidate and the word, the later the vote."""
    return [Vote(f"{who}@x", choice, 10 * number + i, "") for i, (who, choice) in enumerate(choices.items())]


def probed(who: str, right: int, wrong: int) -> dict[str, AccountStats]:
    return account_stats((), [ProbeAnswer(who, f"p{n}", int(n < right), 1) for n in range(right + wrong)])


def crowd(*others: dict[str, AccountStats]) -> dict[str, AccountStats]:
    """Three accounts that answer every probe, and others."""
    return add_stats([*(probed(f"{n}@x", 20, 0) for n in range(3)), *others])


@pytest.mark.parametrize(("right", "wrong", "aside"), [(0, 4, False), (0, 6, True), (6, 6, False), (2, 12, True)])
def test_probes_show_who_does_not_look(right: int, wrong: int, aside: bool) -> None:
    found = set_aside([], {}, RULES, crowd(probed("bob@x", right, wrong)))
    assert set(found) == ({"bob@x"} if aside else set())


def test_the_reason_says_what_was_counted_and_what_passes() -> None:
    found = set_aside([], {}, RULES, crowd(probed("bob@x", 1, 9)))
    assert found["bob@x"].reason == "9 of 10 probes answered wrongly; up to 30% is tolerated (evidence 472 to 1)"
    assert not found["bob@x"].candidates


def test_everybody_who_clicks_at_random_is_set_aside_though_the_median_is_one_of_them() -> None:
    past = add_stats([probed(f"{n}@x", 2, 18) for n in range(3)])
    assert set(set_aside([], {}, RULES, past)) == set(past)


def test_an_honest_person_may_err_more_than_others_do() -> None:
    """Ten careful validators and one who misreads three in ten: never set aside in a hundred looks."""
    rng, made, votes = random.Random(0), [], {}
    for n in range(400):
        made.append(drawn(n, annotator=f"a{n % 9}@x"))
        voters = ["lax@x", *rng.sample([f"v{i}@x" for i in range(10)], 2)]
        seen = [5 if who == "lax@x" and rng.random() < 0.3 else 3 for who in voters]
        votes[made[-1].key] = [
            Vote(who, choice, 10 * n + i, "") for i, (who, choice) in enumerate(zip(voters, seen, strict=True))
        ]
        if n % 4 == 0:
            assert set_aside(made, votes, RULES, {}) == {}


def test_who_sees_another_class_than_the_others_is_set_aside_and_others_are_asked_instead() -> None:
    made = [drawn(n, annotator=f"a{n}@x") for n in range(9)]
    votes = {c.key: cast(n, eve=5, v=3, w=3) for n, c in enumerate(made)}
    now = validate([*made, drawn(9)], {**votes, drawn(9).key: cast(9, eve=3, v=3)}, RULES)
    assert all(c.verified for c in now[:9])
    assert (now[9].verdict, [vote.counted for vote in now[9].votes]) == (Verdict.PENDING, [False, True])
    assert people_wanted(now[9], RULES) == 3, "one more person"
    assert reasons_aside(now) == {"eve@x": now[9].votes[0].reason.removeprefix("set aside: ")}
    said = "9 of 10 votes differ from what the others saw; up to 30% is tolerated"
    assert reasons_aside(now)["eve@x"].startswith(said)


def test_a_vote_is_held_against_the_others_and_not_against_itself() -> None:
    """Of two votes on a label neither makes itself right: the first 3 of [3, 5, 3] stands beside a 5 and a 3."""
    made = [(drawn(0), tally_votes(cast(0, v=3, w=5, x=3), RULES)), (drawn(1), tally_votes(cast(1, v=3, w=3), RULES))]
    found = account_stats(made, ())
    assert (found["v@x"].judged, found["v@x"].odd) == (2, 0)
    assert (found["w@x"].judged, found["w@x"].odd) == (2, 1)
    assert (found["x@x"].judged, found["x@x"].odd) == (1, 0)
    outvoted = tally_votes(cast(0, v=5, w=5, x=3, y=3, z=3), RULES)
    assert outvoted.settled == 5, "the first two agreed"
    found = account_stats([(drawn(0, intended=5), outvoted)], ())
    assert [found[f"{who}@x"].odd for who in "vwxyz"] == [1, 1, 0, 0, 0], "the consensus' own votes do not carry it"


def test_an_annotator_whose_labels_are_wrong_is_set_aside_with_all_they_drew() -> None:
    wrong, right = [drawn(n) for n in range(11)], [drawn(n) for n in range(11, 13)]
    votes = {c.key: cast(n, v=5, w=5) for n, c in enumerate(wrong)}
    votes |= {c.key: cast(11 + n, v=3, w=3) for n, c in enumerate(right)}
    others = [drawn(n, annotator=f"a{n % 3}@x") for n in range(20, 40)]
    votes |= {c.key: cast(20 + n, v=3, w=3) for n, c in enumerate(others)}
    now = validate([*wrong, *right, *others], votes, RULES)
    assert all(c.verdict is Verdict.REJECTED for c in now[:13])
    assert all(c.reason.startswith("set aside: 11 of 13 settled candidates show another class") for c in now[:13])
    assert all(c.verified for c in now[13:])


def test_hard_pictures_set_nobody_aside() -> None:
    """Where everybody's drawings are seen as another class in half of the cases, that is how things are."""
    made = [drawn(n, annotator=f"a{n % 4}@x") for n in range(80)]
    votes = {c.key: cast(n, v=3 if n % 8 < 4 else 5, w=3 if n % 8 < 4 else 5) for n, c in enumerate(made)}
    assert set_aside(made, votes, RULES, {}) == {}


def test_unreadable_is_no_wrong_label_and_a_machine_s_label_sets_no_annotator_aside() -> None:
    blank = [drawn(n) for n in range(20)]
    votes = {c.key: cast(n, v=UNREADABLE, w=UNREADABLE) for n, c in enumerate(blank)}
    assert set_aside(blank, votes, RULES, {}) == {}
    machine = [drawn(n, annotator="", source="pgd") for n in range(20)]
    votes = {c.key: cast(n, v=5, w=5, x=3) for n, c in enumerate(machine)}
    assert set(set_aside(machine, votes, RULES, {})) == {"x@x"}


def test_who_sees_what_only_the_annotator_can_know_is_set_aside() -> None:
    """Eve agrees with everybody on everything but on what others mislabel: there she sees what they claim."""
    wrong = [drawn(n, annotator=f"a{n}@x") for n in range(8)]
    fine = [drawn(n, annotator=f"a{n % 8}@x") for n in range(8, 60)]
    votes = {c.key: cast(n, eve=3, v=5, w=5) for n, c in enumerate(wrong)}
    votes |= {c.key: cast(n, eve=3, v=3) for n, c in enumerate(fine, 8)}
    found = set_aside([*wrong, *fine], votes, RULES, {})
    assert set(found) == {"eve@x"}
    assert "8 of 8 votes on mislabelled candidates are for the wrong label; up to 15%" in found["eve@x"].reason


def gang_of_four(seed: int, colluding: bool) -> tuple[list[Candidate], dict[str, list[Vote]]]:
    """Twelve accounts, each with 30 drawings; a twelfth of those of the first four are mislabelled, and the four vote
    for that label where they meet it: far too few for any one of them to stand out."""
    rng, names, made, votes = random.Random(seed), [f"{n:02d}@x" for n in range(12)], [], {}
    for n in range(360):
        author = names[n % 12]
        wrong = author in names[:4] and rng.random() < 0.08
        made.append(drawn(n, intended=5 if wrong else 3, annotator=author))
        voters = rng.sample([name for name in names if name != author], 5)
        seen = [5 if colluding and wrong and who in names[:4] else 3 for who in voters]
        votes[made[-1].key] = [
            Vote(who, choice, 10 * n + i, "") for i, (who, choice) in enumerate(zip(voters, seen, strict=True))
        ]
    return made, votes


def test_a_group_is_set_aside_of_which_nobody_stands_out() -> None:
    made, votes = gang_of_four(1, colluding=True)
    found = set_aside(made, votes, RULES, {})
    assert set(found) == {f"{n:02d}@x" for n in range(4)}
    assert found["00@x"].reason.startswith("4 accounts gave ")
    assert not any(c.verified and c.intended == 5 for c in validate(made, votes, RULES))
    assert set_aside(*gang_of_four(1, colluding=False), RULES, {}) == {}


def test_simulated_accounts_are_held_against_simulated_ones() -> None:
    """Three simulated validators who err in half of their probes are no measure of what people may do."""
    simulated = [probed(f"v{n}@{SIMULATED_DOMAIN}", 5, 5) for n in range(3)]
    careless = probed("bob@x", 7, 13)
    assert set_aside([], {}, RULES, crowd(careless, *simulated)).keys() == set()
    worse = probed("bob@x", 5, 15)
    assert set_aside([], {}, RULES, crowd(worse, *simulated)).keys() == {"bob@x"}


def test_what_was_found_in_earlier_rounds_counts_and_is_not_forgiven() -> None:
    made = [drawn(n, annotator=f"a{n}@x") for n in range(9)]
    votes = {c.key: cast(n, eve=5, v=3, w=3) for n, c in enumerate(made)}
    frozen = validate(made, votes, RULES)
    assert not any(vote.counted for c in frozen for vote in c.votes if vote.validator == "eve@x")
    now = drawn(99)
    (kept,) = validate([now], {now.key: cast(99, eve=3, v=3)}, RULES, closed_round_stats(frozen, RULES))
    assert not kept.votes[0].counted
    (let_in,) = validate([now], {now.key: cast(99, eve=3, v=3)}, RULES)
    assert let_in.verified


def test_the_order_of_the_record_does_not_matter() -> None:
    made, votes = gang_of_four(1, colluding=True)
    once = set_aside(made, votes, RULES, {})
    assert once
    for seed in range(3):
        shuffled = random.Random(seed).sample(made, len(made))
        mixed = {key: random.Random(seed).sample(v, len(v)) for key, v in votes.items()}
        assert set_aside(shuffled, mixed, RULES, {}) == once


def test_without_the_rule_nobody_is_set_aside() -> None:
    made = [drawn(n) for n in range(20)]
    votes = {c.key: cast(n, v=5, w=5, x=3) for n, c in enumerate(made)}
    nobody = RULES.model_copy(update={"aside": None})
    assert set_aside(made, votes, nobody, probed("v@x", 0, 20)) == {}


def test_votes_that_drew_level_with_a_consensus_are_no_siding() -> None:
    """Two colluders were first, two honest people then saw what the author drew: nobody outvoted these two."""
    level = tally_votes(cast(0, g=5, h=5, v=3, w=3), RULES)
    assert level.settled == 5
    assert account_stats([(drawn(0), level)], ())["v@x"].sided_with == {}
    outvoted = tally_votes(cast(0, g=5, h=5, i=5, v=3, w=3), RULES)
    assert account_stats([(drawn(0), outvoted)], ())["v@x"].sided_with == {"ann@x": (1, 1)}
