"""Challenger → champion, or not: the gate's verdict in metrics.json, over which a person may decide.

The verdict itself is `tasks.evaluation.gate`, computed by the evaluate stage; here it is only read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from data.files import write_whole
from data.layout import Round


def promoted(round_: Round) -> bool:
    """Whether the round's challenger became champion: by decision.json, else by metrics.json."""
    if round_.decision.exists():
        return bool(json.loads(round_.decision.read_text())["promoted"])
    return bool(json.loads(round_.challenger.metrics.read_text())["promoted"])


def champion(closed: Sequence[Round]) -> Round | None:
    """The last closed round whose challenger was promoted; the next round's target."""
    return next((r for r in reversed(closed) if promoted(r)), None)


def decide(round_: Round, promote: bool, why: str) -> None:
    """Decide by hand; the gate's own verdict stays in metrics.json. The same decision twice is one."""
    if not why.strip():
        raise ValueError("a decision by hand needs a reason, got none; give --why")
    if round_.decision.exists():
        before = json.loads(round_.decision.read_text())
        if (before["promoted"], before["why"]) == (promote, why.strip()):
            return
    record = {"promoted": promote, "why": why.strip(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_whole(round_.decision, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
