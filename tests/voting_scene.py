"""A round with one drawing and its validation task on a real Label Studio, and what people do to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from open_round import pulled_now

from data.records import Candidate
from tasks.judge import judge
from tasks.labelling import drawing as ink
from tasks.labelling import projects
from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio
from tasks.labelling.projects import INTENDED, SEEN, drawing_keys
from tasks.publish import publish_drawing, publish_validation
from tasks.restore import restore
from tasks.validate import validate
from tasks.workspace.services import Services

NO_MODEL = Services()


def drawn(class_name: str, shade: int = 255) -> list[dict[str, Any]]:
    alpha = np.zeros((280, 280), np.uint8)
    alpha[100:200, 100:200] = shade
    return [ink.region(alpha, "ink"), ink.chosen(INTENDED, "class", class_name)]


def seen(class_name: str) -> list[dict[str, Any]]:
    return [ink.chosen(SEEN, "seen", class_name)]


def account(studio: LabelStudio, play: Any, name: str) -> Account:
    return studio.person(f"{name}.{play.params.campaign}@example.org", "correct-horse-7")


@dataclass
class Voting:
    """A round with one well-formed drawing, ann's, and its validation task."""

    studio: LabelStudio
    play: Any
    ann: Account
    drawing: int
    project: int
    task: int
    key: str

    def person(self, name: str) -> Account:
        return account(self.studio, self.play, name)

    def made(self) -> Candidate:
        """The candidate as it stands, after a pull."""
        pulled_now(self.studio, self.play.round)
        found = self.play.record.candidates
        judged = judge(found, self.play.round.workspace.round(0).challenger.model)
        (made,) = validate(judged, self.play.record.votes, self.play.params.validate_)
        return made

    def find(self, kind: projects.Kind) -> int | None:
        return self.studio.find(projects.title(self.play.params.campaign, self.play.round, kind))

    def restored(self) -> list[str]:
        """Put back what somebody changed; what is said of it."""
        said: list[str] = []
        restore(self.studio, self.play.record, NO_MODEL, said.append)
        return said

    def published(self) -> list[str]:
        """Publish what is due; what is said of it."""
        said: list[str] = []
        publish_validation(self.studio, self.play.record, [self.made()], said.append)
        return said


def make_voting(studio: LabelStudio, play: Any) -> Voting:
    """Ann's drawing, of a 3, in the first task."""
    publish_drawing(studio, play.round, play.params, play.spec)
    project = studio.find(projects.title(play.params.campaign, play.round, "draw"))
    assert project is not None
    ann = account(studio, play, "ann")
    drawing = ann.submit(studio.tasks(project)[drawing_keys(play.round, play.params)[0]].id, drawn("3"), 1.0)
    scene = Voting(studio, play, ann, drawing, 0, 0, "")
    scene.published()
    found = studio.find(projects.title(play.params.campaign, play.round, "validate"))
    assert found is not None
    ((key, task),) = studio.tasks(found).items()
    return replace(scene, project=found, task=task.id, key=key)
