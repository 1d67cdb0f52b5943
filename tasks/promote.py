"""Challenger → champion, or not: the gate's verdict in gate.json, over which a person may decide.

The verdict itself is `tasks.evaluation.gate`, computed by the gate stage; here it is only read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from data.files import write_whole
from data.layout import Round


def promoted(round_: Round) -> bool:
    """Whether the round's challenger became champion: by decision.json, else by the gate."""
    if round_.decision.exists():
        return bool(json.loads(round_.decision.read_text())["promoted"])
    return bool(verdict(round_)["promoted"])


def verdict(round_: Round) -> dict[str, Any]:
    """The gate's own: {"promoted", "reasons", …}. Rounds opened before the gate was a stage have it in metrics.json."""
    if round_.gate.exists():
        content: dict[str, Any] = json.loads(round_.gate.read_text())
        return content
    metrics = json.loads(round_.challenger.metrics.read_text())
    return {**metrics.get("gate", {}), "promoted": metrics["promoted"]}


def reasons(round_: Round) -> list[str]:
    """Why the challenger was promoted or refused: a person's reason, else the gate's."""
    if round_.decision.exists():
        return [json.loads(round_.decision.read_text(encoding="utf-8"))["why"]]
    return list(verdict(round_)["reasons"])


def outcome(round_: Round) -> dict[str, str]:
    """What became of the challenger, as tags of a run."""
    return {"promoted": "true" if promoted(round_) else "false", "reason": "; ".join(reasons(round_))}


def champion(closed: Sequence[Round]) -> Round | None:
    """The last closed round whose challenger was promoted; the next round's target."""
    return next((r for r in reversed(closed) if promoted(r)), None)


def unsound(round_: Round) -> str:
    """A warning where the round's network answers one class to everything or is no better than chance, else nothing."""
    if not round_.gate.exists():
        return ""
    fault = json.loads(round_.gate.read_text())["sound"]["fault"]
    advice = (
        "fooling it says nothing. Start the campaign with a network that has learned the classes: more train.epochs, "
        "another train.learning_rate, or first.weights"
    )
    return f"warning: round {round_.name}: {fault}; {advice}" if fault else ""


def decide(round_: Round, promote: bool, why: str) -> None:
    """Decide by hand; the gate's own verdict stays in gate.json. The same decision twice is one."""
    if not why.strip():
        raise ValueError("a decision by hand needs a reason, got none; give --why")
    if round_.decision.exists():
        before = json.loads(round_.decision.read_text())
        if (before["promoted"], before["why"]) == (promote, why.strip()):
            return
    record = {"promoted": promote, "why": why.strip(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_whole(round_.decision, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def roll_back(closed: Sequence[Round], to: Round, why: str) -> list[Round]:
    """Make the earlier champion `to` the champion again: every later promotion is refused by hand, with the reason.

    closed: the closed rounds in order, `to` among them. Returns the rounds that were refused by this rollback, now or
    by an earlier call that was interrupted. ValueError if `to` was not promoted, or if nothing came after it.
    """
    if not why.strip():
        raise ValueError("a rollback needs a reason, got none; give --why")
    if not promoted(to):
        raise ValueError(
            f"round {to.name}'s challenger was not promoted, so it cannot be the champion again; "
            f"`dadc decide {to.number} --promote --why …` promotes it"
        )
    reason = f"rolled back to round {to.name}: {why.strip()}"
    later = [round_ for round_ in closed if round_.number > to.number]
    refused = [round_ for round_ in later if promoted(round_) or _decided_because(round_, reason)]
    if not refused:
        raise ValueError(f"round {to.name} is the champion already: no later challenger was promoted")
    for round_ in refused:
        decide(round_, False, reason)
    return refused


def _decided_because(round_: Round, reason: str) -> bool:
    return round_.decision.exists() and json.loads(round_.decision.read_text())["why"] == reason
