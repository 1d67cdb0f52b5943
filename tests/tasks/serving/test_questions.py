"""Which draft an annotator's question is about."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.serving import questions


def asked(*text: str) -> dict[str, Any]:
    """The field for questions as the page saves it in the draft."""
    return {"id": "a", "from_name": "ask", "to_name": "note", "type": "textarea", "value": {"text": [*text]}}


@pytest.mark.parametrize("skew", [-8, 0, 4])
def test_clocks_that_differ_neither_give_an_old_drawing_nor_wait(skew: int) -> None:
    began, field = time.time(), asked("?", "?")

    class Clock:
        """A Label Studio whose clock is wrong by so many seconds."""

        def drafts(self, _: int) -> list[dict[str, Any]]:
            old = {"id": 1, "updated_at": told(began - 3), "result": ["old", asked("?")]}
            new = {"id": 1, "updated_at": told(began + 1), "result": ["new", field]}
            return [new if time.time() > began + 1 else old]

    def told(at: float) -> str:
        return datetime.fromtimestamp(at + skew, UTC).isoformat().replace("+00:00", "Z")

    question = questions.Question(1, "001/draw/0000", "ask", "a", field["value"]["text"])
    found = questions.find_draft(Clock(), question, questions.Answered())  # type: ignore[arg-type]
    assert found["result"][0] == "new"
    assert time.time() - began < 3
