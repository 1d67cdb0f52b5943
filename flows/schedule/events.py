"""The events through which a watch has Prefect open, close and end: their names, and how they are emitted."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from prefect.events import emit_event

from data.files import write_whole
from data.layout import Round
from flows.campaign import Campaign

if TYPE_CHECKING:
    from flows.schedule.due import Due

# What is due, and the event that says so; `collect` needs none.
EVENTS = {"open": "dadc.round.wanted", "close": "dadc.round.ready", "stop": "dadc.campaign.ended"}
ALERT = "dadc.person.wanted"
REPEAT_EVENT_AFTER = 300.0  # seconds after which an event that nothing came of is emitted again


def emit(campaign: Campaign, event: str, round_: Round, why: str) -> None:
    about = {
        "prefect.resource.id": resource(campaign),
        "prefect.resource.name": f"campaign {campaign.params.campaign}",
    }
    emit_event(event=event, resource=about, payload={"round": round_.name, "why": why})


def recently_announced(campaign: Campaign, found: Due) -> bool:
    """Whether the same was said a moment ago, and the run that it started may be on its way; if not, it is noted."""
    note, text = campaign.workspace.local / "said", f"{found.what} {found.round.name}\n"
    if note.exists() and note.read_text() == text and 0 <= time.time() - note.stat().st_mtime < REPEAT_EVENT_AFTER:
        return True
    write_whole(note, text)
    return False


def resource(campaign: Campaign) -> str:
    """The id under which Prefect knows the campaign."""
    return f"dadc.campaign.{campaign.params.campaign}"


def slug(campaign: Campaign) -> str:
    """A name as Prefect's artifacts take it: small letters, digits and dashes."""
    return "dadc-" + re.sub("[^a-z0-9]+", "-", campaign.params.campaign.lower()).strip("-")
