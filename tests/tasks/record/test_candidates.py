"""What lines of the record come to, hostile ones too, without any server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.records import HUMAN, SIMULATED, Candidate, Verdict
from tasks.labelling import drawing as ink
from tasks.labelling.projects import INTENDED
from tasks.record.annotations import Line, append, gather, read_lines
from tasks.record.candidates import drawings


def drawn(class_name: str, shade: int = 255) -> list[dict[str, Any]]:
    alpha = np.zeros((280, 280), np.uint8)
    alpha[100:200, 100:200] = shade
    return [ink.region(alpha, "ink"), ink.chosen(INTENDED, "class", class_name)]


def line(raw: dict[str, Any], **changes: Any) -> Line:
    made = Line("draw", "001/draw/0000", 1, 7, "a@example.org", "a@example.org", "2026-01-01T00:00:00Z", False, raw)
    return replace(made, **changes)


HOSTILE: dict[str, Line] = {
    "no result": line({}),
    "result is null": line({"result": None}),
    "result is text": line({"result": "<script>"}),
    "result holds null": line({"result": [None]}),
    "no ink": line({"result": drawn("3")[1:]}),
    "no class": line({"result": drawn("3")[:1]}),
    "two classes": line({"result": [*drawn("3"), *drawn("4")[1:]]}),
    "unknown class": line({"result": drawn("<b>3</b>\0\x1b[31m")}),
    "class is NaN": line({"result": [*drawn("3")[:1], ink.chosen(INTENDED, "c", float("nan"))]}),  # type: ignore[arg-type]
    "another tag": line({"result": [*drawn("3"), {"from_name": "x", "type": "choices", "value": {}}]}),
    "skipped": line({"result": drawn("3"), "was_cancelled": True}),
    "too large": line({"result": None, "oversize": 9_000_000}),
    "another editor": line({"result": drawn("3")}, editor="b@example.org"),
    "unknown task": line({"result": drawn("3")}, task="../../etc/passwd"),
    "another round's task": line({"result": drawn("3")}, task="002/draw/0000"),
    "huge lead time": line({"result": [], "lead_time": 1e400}),
    "lead time is text": line({"result": [], "lead_time": "now"}),
    "no account": line({"result": drawn("3")}, author="", editor=""),
    "imported": line({"result": drawn("3")}, editor=""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_malformed_is_kept_with_its_reason(open_round: Callable[..., Any], name: str) -> None:
    play = open_round()
    good = line({"result": drawn("3"), "lead_time": 2.0}, id=8, task="001/draw/0001")
    stored = play.round.annotations
    append(stored, [HOSTILE[name], good])
    made = drawings(gather(read_lines(stored), "draw"), play.round, play.params, play.spec)
    assert [c.wellformed for c in made] == [False, True], "and the good one beside it goes through"
    bad: Candidate = made[0]
    assert bad.verdict is Verdict.REJECTED
    assert bad.reason
    assert (bad.intended, bad.image) == (-1, b"")
    assert np.isfinite(bad.seconds)


def test_no_round_is_read_without_what_the_machine_made(open_round: Callable[..., Any]) -> None:
    """In a clone that was given Git's files alone, its candidates would be missing from the shard without a word."""
    play = open_round()
    assert play.record.candidates == []
    play.round.attack.unlink()
    with pytest.raises(FileNotFoundError, match=r"attack\.parquet is missing; `dvc pull` brings it"):
        _ = play.record.candidates


def test_who_is_simulated_shows_in_the_account(open_round: Callable[..., Any]) -> None:
    play = open_round()
    who = "annotator-1.x@simulated.invalid"
    found = [
        line({"result": drawn("3")}, author=who, editor=who),
        line({"result": drawn("3")}, id=9, task="001/draw/0001"),
    ]
    made = drawings(gather(found, "draw"), play.round, play.params, play.spec)
    assert [c.source for c in made] == [SIMULATED, HUMAN]
    assert [bool(c.seed_image) for c in made] == [True, False], "people start from a blank canvas"


def test_what_counts_is_the_latest_form_that_the_author_gave_it() -> None:
    own, other = line({"result": drawn("3")}), line({"result": drawn("0")}, editor="b@example.org")
    again = line({"result": drawn("4")})
    stolen = line({"result": drawn("0")}, author="b@example.org", editor="b@example.org")
    account_gone = line({"result": drawn("3")}, author="", editor="")
    for forms, wanted in (
        ([own, other], own),
        ([own, other, again], again),
        ([own, stolen], own),
        ([own, account_gone], own),
        ([other, again], again),
    ):
        (annotation,) = gather(forms, "draw")
        assert annotation.last is wanted
        assert annotation.fault(annotation.last) == ""
        assert annotation.latest is forms[-1]
    for forms, why in (([other], "another account"), ([line({}, editor="")], "imported"), ([account_gone], "is gone")):
        (annotation,) = gather(forms, "draw")
        assert why in annotation.fault(annotation.last)


def test_a_line_holds_any_text() -> None:
    hostile = line({"result": ["\ud800", "\0", "\u2028", "é\n"]})
    text = hostile.dump()
    assert text.count("\n") == 1
    assert Line(**json.loads(text)) == hostile
