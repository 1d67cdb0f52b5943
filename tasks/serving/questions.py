"""What an annotator asks on a page of Label Studio, and the draft in which the picture is that the question is about.

Label Studio sends what stands in the field, not the ink: that is in a draft, which the page saves some seconds later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from tasks.labelling.client import LabelStudio
from tasks.labelling.projects import ASK, NOTE, SAYS

PATIENCE = 7.0  # seconds to wait for the draft; the page saves it every 5
LOOK = 0.15  # seconds between two looks
DUE, CLOSELY = 4.7, 0.05  # from so many seconds on, when the page saves, it looks so often
REMEMBERED = 10_000  # fields whose answers are remembered at most


@dataclass(frozen=True)
class Question:
    """What an annotator typed, as the page sends it: into which field, and all that stands there now."""

    task: int
    key: str  # of the task
    tag: str  # ASK; on pages of rounds that were opened before there was that field, SAYS
    field: str  # its region's id, which the page made up
    text: object

    @classmethod
    def of(cls, body: object) -> Question | None:
        """What a request for predictions asks; None for the requests that Label Studio makes by itself."""
        parameters = body.get("params") if isinstance(body, dict) else None
        context = parameters.get("context") if isinstance(parameters, dict) else None
        tasks = body.get("tasks") if isinstance(body, dict) else None
        result = context.get("result") if isinstance(context, dict) else None
        if not isinstance(tasks, list) or len(tasks) != 1:
            return None
        tag = ASK if _fields(result, ASK) else SAYS
        asked = [(field, text) for field, text in _fields(result, tag).items() if text]
        task = tasks[0] if isinstance(tasks[0], dict) else {}
        number, data = task.get("id"), task.get("data")
        key = data.get("key") if isinstance(data, dict) else None
        return cls(number, str(key), tag, *asked[-1]) if asked and isinstance(number, int) else None

    def answer(self, text: str) -> list[dict[str, Any]]:
        """What the page shows as an answer. The question is taken back, so that the next one can be asked."""
        says = {"id": "says", "from_name": SAYS, "to_name": NOTE, "type": "textarea", "value": {"text": [text]}}
        taken_back = {"id": "ask", "from_name": ASK, "to_name": NOTE, "type": "textarea", "value": {"text": []}}
        return [says, taken_back] if self.tag == ASK else [says]


@dataclass
class Answered:
    """Which form of a draft answered a field last, and how often the field was answered."""

    forms: dict[str, tuple[object, object]] = field(default_factory=dict)  # the draft's id, and when it was saved
    times: dict[str, int] = field(default_factory=dict)

    def note(self, field: str, form: tuple[object, object]) -> None:
        """A draft is taken as what the field's newest question is about."""
        if len(self.forms) >= REMEMBERED:
            self.forms.clear()
            self.times.clear()
        self.forms[field] = form
        self.times[field] = self.times.get(field, 0) + 1


def find_draft(studio: LabelStudio, question: Question, answered: Answered) -> dict[str, Any]:
    """The draft that holds the question, raw. Asking itself makes the page save one: it is waited for, and if it does
    not come an earlier form is taken. ValueError, for the annotator, if there is none.

    Others' drafts of the task hold other fields. What was saved before the question holds another text, or has answered
    a question already: so Label Studio's clock is never compared with ours.
    """
    began = time.monotonic()
    while True:
        drafts = [d for d in studio.drafts(question.task) if question.field in _fields(d.get("result"), question.tag)]
        newest = max(drafts, key=lambda d: str(d.get("updated_at")), default=None)
        form = (newest["id"], newest["updated_at"]) if newest else None
        holds = newest is not None and _fields(newest["result"], question.tag)[question.field] == question.text
        waited = time.monotonic() - began
        if (holds and form != answered.forms.get(question.field)) or waited > PATIENCE:
            break
        time.sleep(CLOSELY if waited > DUE else LOOK)
    if newest is None or form is None:
        raise ValueError("draw first, then ask")
    answered.note(question.field, form)
    return newest


def _fields(result: object, tag: str) -> dict[str, object]:
    """The regions of a text field: id → what stands in it."""
    items = [item for item in result if isinstance(item, dict)] if isinstance(result, list) else []
    return {
        item["id"]: item["value"].get("text")
        for item in items
        if item.get("from_name") == tag and isinstance(item.get("id"), str) and isinstance(item.get("value"), dict)
    }
