"""The Label Studio projects of a round: their titles, the tags of their pages and the keys of their tasks."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from data.layout import Round
from data.records import Candidate
from tasks.config.params import Params

Kind = Literal["draw", "edit", "validate"]
KINDS: tuple[Kind, ...] = ("draw", "edit", "validate")
UNREADABLE_CHOICE = "unreadable"
PLAYER_DOMAIN = "play.invalid"  # people who draw on the page of `dadc play`; reserved likewise

# Names of tags. In ASK the annotator asks what the model sees, in SAYS its answer stands.
INK, INTENDED, SEEN, NOTE, ASK, SAYS = "ink", "intended", "seen", "note", "ask", "model_says"
PEN = "ink"  # the label that ink on a blank canvas had while drawing pages still had a labelled pen


WORK: dict[Kind, str] = {
    "draw": "draw what people read at once and the model gets wrong",
    "edit": "paint over pictures until the model gets them wrong",
    "validate": "say which class you see",
}


def title(campaign: str, round_: Round, kind: Kind) -> str:
    """A project's title, by which it is found again. It bears the campaign's own id: two campaigns of one name on one
    server share no project."""
    return f"{campaign}{_id(round_)} {round_.name} {kind}"


def _id(round_: Round) -> str:
    """What `dadc init` gave the campaign, with a dash; nothing where it was begun before there were ids."""
    own: str = json.loads(round_.workspace.splits.read_text(encoding="utf-8")).get("id", "")
    return f"-{own}" if own else ""


def drawing_keys(round_: Round, params: Params) -> list[str]:
    """A key for each drawing task of a round, which is also that of the candidate drawn in it."""
    return [f"{round_.name}/draw/{number:04d}" for number in range(params.collect.drawings)]


def editing_keys(round_: Round, params: Params) -> list[str]:
    """A key for each editing task of a round, which is also that of the candidate made in it."""
    return [f"{round_.name}/edit/{number:04d}" for number in range(params.collect.edits)]


def guide_key(round_: Round) -> str:
    """The key of the practice task, which everybody meets first and of which nothing counts."""
    return f"{round_.name}/draw/guide"


def vote_key(params: Params, candidate: Candidate) -> str:
    """The key of the task in which a candidate is voted on: it says nothing about the candidate, and it changes with
    the image, so that no vote counts for an image it was not cast on."""
    digest = hashlib.sha256()
    for part in (str(params.seed).encode(), params.campaign.encode(), candidate.key.encode(), candidate.image):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]
