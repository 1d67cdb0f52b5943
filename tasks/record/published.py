"""What a round's Label Studio projects are published as, and which projects these are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from data.layout import Round
from data.records import ImageSpec
from data.shards import read_columns, read_images
from tasks.config.params import Params
from tasks.config.seeds import derive
from tasks.labelling import drawing, label_config, projects
from tasks.labelling.client import LabelStudio
from tasks.record.annotations import Annotation
from tasks.record.candidates import edit_bases

EVERYBODY = 1000  # people the practice task and the probes are given to
FAINT = 0.6  # brightness of the picture that is traced in the practice task


def page_of(params: Params, spec: ImageSpec, kind: projects.Kind) -> tuple[str, str, int]:
    """A project's page, instruction and how many people are given a task."""
    classes = spec.classes
    if kind == "draw":
        return label_config.draw_page(classes), label_config.DRAW_HELP, 1
    if kind == "edit":
        return label_config.edit_page(classes, spec.channels), label_config.EDIT_HELP, 1
    return label_config.validate_page(classes), label_config.VALIDATE_HELP, params.validate_.consensus


def ensure_practice(studio: LabelStudio, project: int, round_: Round, params: Params, spec: ImageSpec) -> None:
    """Publish the practice task, if it is not there, and give it to everybody."""
    key = projects.guide_key(round_)
    tasks = studio.tasks(project)
    if key not in tasks:
        studio.publish(project, {key: practice_task(round_, params, spec)})
        tasks = studio.tasks(project)
    if tasks[key].people < EVERYBODY:
        studio.ask_for(tasks[key].id, EVERYBODY)


def practice_task(round_: Round, params: Params, spec: ImageSpec) -> dict[str, str]:
    """The practice task: a pool image, made faint, to be traced."""
    pool = round_.workspace.split("pool")
    index = derive(params.seed, "guide") % len(read_columns(pool, "key")[0])
    traced = read_images(pool, spec.channels, [index])
    faint = (traced.pixels_NCHW[0].float() * FAINT).to(torch.uint8)
    return {
        "image": drawing.picture(faint),
        "note": label_config.guide_note(spec.classes[int(traced.labels_N[0])]),
    }


def drawing_tasks(round_: Round, params: Params, spec: ImageSpec) -> dict[str, dict[str, str]]:
    """Key → what the drawing task holds besides: the canvas and a line of advice."""
    task = {"image": drawing.blank(spec.size, spec.channels), "note": label_config.DRAW_NOTE}
    return dict.fromkeys(projects.drawing_keys(round_, params), task)


def editing_tasks(round_: Round, params: Params, spec: ImageSpec) -> dict[str, dict[str, str]]:
    """Key → what the editing task holds besides: its seed image and a line of advice."""
    bases = edit_bases(round_, params, spec.channels)
    return {key: {"image": drawing.picture(pixels), "note": label_config.EDIT_NOTE} for key, pixels in bases.items()}


def locate(
    studio: LabelStudio, titled: tuple[int, int] | None, recorded: Sequence[Annotation]
) -> tuple[int, int] | None:
    """A round's project and how many annotations it holds; None if it is gone.

    titled: the project with the round's title. Where it lacks what was pulled, somebody may have renamed the round's
    own, which is known by a task of the record.
    """
    live = [annotation.first for annotation in recorded if not annotation.deleted]
    if live and (titled is None or titled[1] < len(live)):
        for line in (live[-1], live[0]):
            project = studio.project_of(line.task_id, line.task)
            if project is not None and (titled is None or project != titled[0]):
                return project, studio.annotations(project)
    return titled
