"""Who is set aside by the rules before `validate.aside`, for what, and what becomes of their votes and candidates."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from data.records import UNREADABLE, Candidate, Verdict, Vote
from tasks.config.params import Validate
from tasks.quality.account_stats import ProbeAnswer, account_stats, closed_round_stats
from tasks.quality.consensus import ASIDE, SetAside, people_wanted, tally_votes
from tasks.quality.progress import Progress
from tasks.quality.trust import set_aside
from tasks.validate import validate

RULES = Validate(
    consensus=2,
    max_votes=5,
    non_fooling_share=0.0,
    unsettled="pending",
    probes=4,
    probe_votes=4,
    probe_accuracy=0.6,
    judged_from=4,
    annotator_rejected=0.4,
    validator_dissent=0.4,
    validator_siding=0.5,
)
NO_RULES = Validate(consensus=2, max_votes=5, non_fooling_share=0.0, unsettled="pending")


def drawn(number: int, intended: int = 3, annotator: str = "ann@x", **changes: object) -> Candidate:
    made = Candidate(f"001/draw/{number:04d}", 1, "human", b"png", intended, annotator=annotator, answer=9)
    return replace(made, **changes)  # type: ignore[arg-type]


def cast(number: int, **choices: int) -> list[Vote]:
    """Votes by name; the later the candidate and the word, the later the vote."""
    return [Vote(f"{who}@x", choice, 10 * number + i, "") for i, (who, choice) in enumerate(choices.items())]


def answers(who: str, right: int, wrong: int) -> list[ProbeAnswer]:
    return [ProbeAnswer(f"{who}@x", f"p{n}", int(n < right), 1) for n in range(right + wrong)]


@pytest.mark.parametrize(("right", "wrong", "aside"), [(0, 3, False), (2, 2, True), (3, 2, False), (0, 4, True)])
def test_probes_show_who_does_not_look(right: int, wrong: int, aside: bool) -> None:
    past = account_stats((), answers("bob", right, wrong))
    found = set_aside([], {}, RULES, past)
    assert set(found) == ({"bob@x"} if aside else set())
    if aside:
        assert found["bob@x"] == SetAside(f"{right} of {right + wrong} probes answered rightly", candidates=False)


def test_the_votes_of_who_is_set_aside_do_not_count_and_others_are_asked_for() -> None:
    (candidate,) = made = [drawn(0)]
    votes = {candidate.key: cast(0, bob=3, eve=3)}
    assert validate(made, votes, RULES)[0].verified
    past = account_stats((), answers("bob", 0, 4))
    (now,) = validate(made, votes, RULES, past)
    assert now.verdict is Verdict.PENDING
    assert [vote.counted for vote in now.votes] == [False, True]
    assert now.votes[0].reason == "set aside: 0 of 4 probes answered rightly"
    assert people_wanted(now, RULES) == 3, "one more person"
    tally = Progress.of([now])
    assert (tally.pending, tally.voters, tally.aside) == (1, 1, 1)
    (settled,) = validate(made, {candidate.key: [*votes[candidate.key], *cast(1, dan=3)]}, RULES, past)
    assert settled.verified
    bobs = drawn(1, annotator="bob@x")
    (still,) = validate([bobs], {bobs.key: cast(1, dan=3, eve=3)}, RULES, past)
    assert still.verified, "what a careless validator draws is judged by others"


def test_a_vote_that_is_set_aside_makes_room_for_another() -> None:
    candidate = drawn(0)
    votes = cast(0, bob=1, v=2, w=4, x=5, y=3, z=3)
    (before,) = validate([candidate], {candidate.key: votes}, RULES)
    assert (before.verdict, sum(v.counted for v in before.votes)) == (Verdict.PENDING, 5)
    (after,) = validate([candidate], {candidate.key: votes}, RULES, account_stats((), answers("bob", 0, 4)))
    assert after.verified


def test_an_annotator_whose_labels_are_wrong_is_set_aside_with_all_they_drew() -> None:
    wrong = [drawn(n) for n in range(3)]
    right = [drawn(n) for n in range(3, 7)]
    bobs = drawn(7, annotator="bob@x")
    votes = {c.key: cast(n, v=5, w=5) for n, c in enumerate(wrong)}
    votes |= {c.key: cast(n, v=3, w=3) for n, c in enumerate(right, 3)}
    votes[bobs.key] = cast(7, ann=3, v=3)
    now = validate([*wrong, *right, bobs], votes, RULES)
    assert [c.verdict for c in now[:3]] == [Verdict.REJECTED] * 3
    assert all(c.verdict is Verdict.REJECTED for c in now[:7]), "3 of 7 is more than two fifths"
    assert {c.reason for c in now[:7]} == {"set aside: 3 of 7 settled candidates show another class"}
    assert now[7].verdict is Verdict.PENDING
    assert not now[7].votes[0].counted
    assert people_wanted(now[3], RULES) == 2, "nobody is asked about a rejected candidate"
    fewer = [*wrong[:2], *right]
    assert [c.verified for c in validate(fewer, votes, RULES)] == [False, False, True, True, True, True]


def test_unreadable_is_no_wrong_label() -> None:
    made = [drawn(n) for n in range(6)]
    votes = {c.key: cast(n, v=UNREADABLE, w=UNREADABLE) for n, c in enumerate(made)}
    assert {c.reason for c in validate(made, votes, RULES)} == {"validators found it unreadable"}


def test_a_machine_s_labels_set_nobody_aside() -> None:
    made = [drawn(n, annotator="", source="pgd") for n in range(6)]
    votes = {c.key: cast(n, v=5, w=5, x=3) for n, c in enumerate(made)}
    found = set_aside(made, votes, RULES, {})
    assert set(found) == {"x@x"}, "for dissent, and nobody for a label that no person chose"
    assert "consensus" in found["x@x"].reason


def test_who_sees_what_only_the_annotator_can_know_is_set_aside() -> None:
    """Eve agrees with everybody on everything but on what Ann mislabels: there she sees what Ann claims."""
    wrong = [drawn(n, annotator=f"a{n}@x") for n in range(4)]
    fine = [drawn(n, annotator=f"a{n}@x") for n in range(4, 20)]
    votes = {c.key: cast(n, eve=3, v=5, w=5) for n, c in enumerate(wrong)}
    votes |= {c.key: cast(n, eve=3, v=3) for n, c in enumerate(fine, 4)}
    found = set_aside([*wrong, *fine], votes, RULES, {})
    assert found == {
        "eve@x": SetAside("4 of 4 votes on mislabelled candidates are for the wrong label", candidates=False)
    }


def test_the_worst_goes_first_and_clears_the_others() -> None:
    """Two who vote as one outvote Vic where they are first; once one of them is gone, Vic is in the right."""
    made = [drawn(n, annotator=f"a{n}@x") for n in range(12)]
    votes = {c.key: cast(n, eve=5, mal=5, vic=3, wim=3) for n, c in enumerate(made[:5])}
    votes |= {c.key: cast(n, vic=3, wim=3, eve=5) for n, c in enumerate(made[5:], 5)}
    found = set_aside(made, votes, RULES, {})
    assert "eve@x" in found
    assert "vic@x" not in found
    assert "wim@x" not in found
    assert all(c.verified for c in validate(made, votes, RULES))


def test_what_was_found_in_earlier_rounds_counts_and_is_not_forgiven() -> None:
    made = [drawn(n, annotator=f"a{n}@x") for n in range(6)]
    votes = {c.key: cast(n, eve=5, v=3, w=3) for n, c in enumerate(made)}
    frozen = validate(made, votes, RULES)
    assert not any(vote.counted for c in frozen for vote in c.votes if vote.validator == "eve@x")
    now = drawn(99)
    (kept,) = validate([now], {now.key: cast(99, eve=3, v=3)}, RULES, closed_round_stats(frozen, RULES))
    assert kept.votes[0].reason == "set aside: 6 of 7 votes differ from the consensus"
    (let_in,) = validate([now], {now.key: cast(99, eve=3, v=3)}, RULES)
    assert let_in.verified


def test_the_order_of_the_record_does_not_matter() -> None:
    rng = random.Random(0)
    people = [f"p{n}@x" for n in range(9)]
    made = [drawn(n, intended=rng.choice([3, 5]), annotator=people[n % 9]) for n in range(60)]
    votes = {}
    for n, c in enumerate(made):
        chosen = rng.sample([p for p in people if p != c.annotator], 4)
        votes[c.key] = [Vote(p, rng.choice([3, 3, 3, 5]), 10 * n + i, "") for i, p in enumerate(chosen)]
    once = set_aside(made, votes, RULES, {})
    assert once, "somebody is"
    for seed in range(3):
        shuffled = random.Random(seed).sample(made, len(made))
        mixed = {key: random.Random(seed).sample(v, len(v)) for key, v in votes.items()}
        assert set_aside(shuffled, mixed, RULES, {}) == once


def test_without_rules_nobody_is_set_aside() -> None:
    made = [drawn(n) for n in range(9)]
    votes = {c.key: cast(n, v=5, w=5, x=3) for n, c in enumerate(made)}
    assert set_aside(made, votes, NO_RULES, account_stats((), answers("v", 0, 9))) == {}


def test_conduct_is_counted_by_hand() -> None:
    made = [drawn(0), drawn(1, annotator="bob@x"), drawn(2), drawn(3, wellformed=False)]
    votes = {
        made[0].key: cast(0, v=3, w=3),
        made[1].key: cast(1, v=5, w=3, ann=5),
        made[2].key: cast(2, v=3, w=UNREADABLE),
    }
    found = account_stats([(c, tally_votes(votes.get(c.key, ()), RULES)) for c in made], answers("v", 1, 1))
    assert (found["v@x"].votes, found["v@x"].dissents, found["v@x"].probes, found["v@x"].probes_right) == (2, 0, 2, 1)
    assert (found["w@x"].votes, found["w@x"].dissents, found["w@x"].against, found["w@x"].sidings) == (2, 1, 1, 1)
    assert (found["ann@x"].settled, found["ann@x"].rejected, found["ann@x"].votes) == (1, 0, 1)
    assert (found["bob@x"].settled, found["bob@x"].rejected) == (1, 1)
    assert ASIDE not in "".join(vote.reason for cast_ in votes.values() for vote in cast_)
