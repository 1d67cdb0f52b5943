"""The split of collected candidates: by annotator for good, by task while there are few."""

from __future__ import annotations

from pathlib import Path

from data.layout import Workspace
from data.records import Candidate
from data.shards import write_candidates
from tasks.evaluation.metrics import BY_ANNOTATOR
from tasks.freeze import split, used


def drawn(round_: int, annotator: str, n: int) -> list[Candidate]:
    return [Candidate(f"{round_:03d}/{annotator}/{i}", round_, "human", b"x", 1, annotator=annotator) for i in range(n)]


def machine(seed_image: str, source: str) -> Candidate:
    return Candidate(f"001/{source}/{seed_image}", 1, source, b"x", 1, seed_image=seed_image)


def test_few_annotators_are_split_by_task_and_every_split_gets_some() -> None:
    found = split(drawn(1, "a", 10) + drawn(1, "b", 10), {}, seed=0)
    assert {c.split for c in found} == {"train", "validation", "test"}
    assert sum(c.split == "train" for c in found) == 12
    assert split(found[::-1], {}, seed=0)[::-1] == found, "the order they come in does not matter"


def test_many_annotators_are_split_by_annotator() -> None:
    people = [c for i in range(BY_ANNOTATOR) for c in drawn(1, f"p{i}", 3)]
    found = split(people, {}, seed=3)
    for i in range(BY_ANNOTATOR):
        assert len({c.split for c in found if c.annotator == f"p{i}"}) == 1
    assert {c.split for c in found} == {"train", "validation", "test"}


def test_an_annotator_stays_where_they_were() -> None:
    first = split([c for i in range(6) for c in drawn(1, f"p{i}", 2)], {}, seed=1)
    joined = {c.annotator: c.round for c in first}
    then = split([c for name in ("aa", "p3", "p0", "zz") for c in drawn(2, name, 2)], joined, seed=1)
    before = {c.annotator: c.split for c in first}
    for c in then:
        if c.annotator in before:
            assert c.split == before[c.annotator]


def test_one_seed_image_lies_in_one_split() -> None:
    found = split([machine(f"s{i}", source) for i in range(10) for source in ("pgd", "fgsm")], {}, seed=0)
    for i in range(10):
        assert len({c.split for c in found if c.seed_image == f"s{i}"}) == 1


def test_a_seed_image_that_is_used_again_stays_in_its_split(tmp_path: Path) -> None:
    first = split(drawn(1, "a", 7) + [machine(f"s{i}", "pgd") for i in range(10)], {}, seed=0)
    assert {c.split for c in first if c.seed_image} == {"train", "validation", "test"}
    round_ = Workspace(tmp_path).round(1)
    write_candidates(round_.candidates, first)
    before, known = {c.seed_image: c.split for c in first if c.seed_image}, used([round_])
    assert known == before

    again = split(drawn(9, "a", 4) + [machine(f"s{i}", "fgsm") for i in range(15)], {"a": 1}, seed=0, used=known)
    assert all(c.split == before.get(c.seed_image, c.split) for c in again)
    assert {c.split for c in again if c.seed_image not in before} == {"train", "validation", "test"}
