"""Annotators and validators played through Label Studio, with accounts of their own, as people would use it.

An annotator redraws a pool image as strokes, asks the model server what the target makes of it, and draws it again,
ever more carelessly, until the target is fooled or the tries are used up. A share of them choose a wrong class, which
the validators are there to find. A validator reads a picture as the class of the pool image it was made from, which the
simulation knows from the seeds and Label Studio does not hold, and errs in a share of the votes. So whether a drawing
became illegible by its carelessness is not simulated: `strokes.Hand` is kept within what people still read.

Everything drawn at random is seeded by round, task and person, so a second call adds nothing. Only accounts of the
simulation act, and nobody votes on what a person drew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import numpy as np
import torch
from PIL import Image, ImageDraw

from data.layout import Round
from data.records import SIMULATED_DOMAIN, ImageSpec
from data.shards import Images, encode_png, read_columns, read_images
from tasks.config.params import Params
from tasks.config.seeds import derive
from tasks.labelling import drawing, label_config, projects
from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio
from tasks.record.pool import seed_images
from tasks.record.record import Record
from tasks.simulation import strokes
from tasks.workspace.services import ServiceDown, Services

_T = TypeVar("_T")
_Attempt = tuple[list[dict[str, Any]], torch.Tensor]  # the ink as the page sends it, and the image it makes
_Try = Callable[[torch.Tensor, float, np.random.Generator], _Attempt]

MILDEST = 0.35  # strength of the first try; the last has 1


def draw(studio: LabelStudio, services: Services, round_: Round, params: Params, spec: ImageSpec) -> int:
    """Simulated annotators do every drawing and editing task that nobody has done yet; how many they submitted."""
    model = _Model(services)
    pool = read_images(round_.workspace.split("pool"), spec.channels)
    seeds = seed_images(round_.number, params, len(pool))
    wanted: list[tuple[projects.Kind, Sequence[str], Sequence[int], _Try]] = [
        ("draw", projects.drawing_keys(round_, params), seeds.drawings, _redraw),
        ("edit", projects.editing_keys(round_, params), seeds.edits, _paint_over),
    ]
    work: dict[str, list[tuple[int, str, int, _Try]]] = {}
    for kind, keys, indices, attempt in wanted:
        if not keys:
            continue
        project = _project(studio, round_, params, kind)
        tasks = studio.tasks(project)
        done = {int(task["id"]) for task in studio.changed(project, None) if task["annotations"]}
        for number, (key, seed) in enumerate(zip(keys, indices, strict=True)):
            if key in tasks and tasks[key].id not in done:
                account = _account(params, "annotator", number % params.simulate.annotators)
                work.setdefault(account, []).append((tasks[key].id, key, seed, attempt))

    def sit_down(person: Account, own: Sequence[tuple[int, str, int, _Try]]) -> int:
        for task, key, seed, attempt in own:
            started = time.monotonic()
            result = _made(model, pool, seed, round_, key, params, attempt)
            person.submit(task, result, round(time.monotonic() - started, 3))
        return len(own)

    return _together(studio, services, work, sit_down)


def vote(studio: LabelStudio, services: Services, record: Record) -> int:
    """Simulated validators vote wherever another vote is asked for; how many votes they cast."""
    params, truths = record.params, _truths(record)
    project = _project(studio, record.round, params, "validate")
    voters = studio.emails()
    cast: dict[int, set[str]] = {}
    for raw in studio.changed(project, None):
        cast[int(raw["id"])] = {voters.get(a["completed_by"], "") for a in raw["annotations"]}
    accounts = [_account(params, "validator", number) for number in range(params.simulate.validators)]
    work: dict[str, list[tuple[str, int]]] = {}
    for key, task in studio.tasks(project).items():
        if key not in truths:
            continue  # drawn by a person, and for people to read
        there = cast.get(task.id, set())
        first = derive(params.seed, "validator", key)
        turn = [accounts[(first + i) % len(accounts)] for i in range(len(accounts))]
        free = [account for account in turn if account not in there]
        for account in free[: max(0, task.people - len(there))]:
            work.setdefault(account, []).append((key, task.id))

    def sit_down(person: Account, own: Sequence[tuple[str, int]]) -> int:
        for key, task in own:
            started = time.monotonic()
            rng = np.random.default_rng(derive(params.seed, "vote", key, person.email))
            names = (*record.spec.classes, projects.UNREADABLE_CHOICE)
            seen = _or_another(truths[key], len(names), params.simulate.vote_error, rng)
            result = [drawing.chosen(projects.SEEN, "seen", names[seen])]
            person.submit(task, result, round(time.monotonic() - started, 3))
        return len(own)

    return _together(studio, services, work, sit_down)


class _Model:
    """The model server as an annotator's page knows it: a picture in, the target's class out."""

    def __init__(self, services: Services) -> None:
        if not (services.model_url and services.model_user and services.model_password):
            raise ServiceDown("model", services.model_url)
        self._url = services.model_url
        self._http = httpx.Client(auth=(services.model_user, services.model_password), timeout=30, trust_env=False)

    def answer(self, png: bytes) -> int:
        try:
            response = self._http.post(f"{self._url}/answer", content=png, headers={"Content-Type": "image/png"})
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise ServiceDown("model", self._url, error.response.text[:200]) from error
        except httpx.HTTPError as error:
            raise ServiceDown("model", self._url, type(error).__name__) from error
        return int(response.json()["answer"])


def _made(
    model: _Model, pool: Images, seed: int, round_: Round, key: str, params: Params, attempt: _Try
) -> list[dict[str, Any]]:
    """The result of one task: ink and class, as the page sends them."""
    rng = np.random.default_rng(derive(params.seed, "label", round_.name, key))
    meant = _or_another(int(pool.labels_N[seed]), len(pool.classes), params.simulate.label_error, rng)
    tries = params.simulate.tries
    result: list[dict[str, Any]] = []
    for number in range(tries):
        strength = 1.0 if tries == 1 else MILDEST + (1 - MILDEST) * number / (tries - 1)
        rng = np.random.default_rng(derive(params.seed, "try", round_.name, key, number))
        result, pixels = attempt(pool.pixels_NCHW[seed], strength, rng)
        if model.answer(encode_png(pixels)) != meant:
            break
    return [*result, drawing.chosen(projects.INTENDED, "intended", pool.classes[meant])]


def _redraw(seed_CHW: torch.Tensor, strength: float, rng: np.random.Generator) -> _Attempt:
    """The image drawn again by hand on a blank canvas."""
    channels, size = int(seed_CHW.shape[0]), int(seed_CHW.shape[1])
    grey = np.rint(seed_CHW.float().mean(0).numpy()).astype(np.uint8)
    alpha = strokes.redraw(strokes.strokes(grey), drawing.canvas_size(size), strength, rng)
    result = [drawing.region(alpha, "ink")]
    return result, drawing.drawing(result, size, channels)


def _paint_over(seed_CHW: torch.Tensor, strength: float, rng: np.random.Generator) -> _Attempt:
    """One straight line across the image, in any of its pens: the longer and broader, the stronger."""
    canvas = drawing.canvas_size(int(seed_CHW.shape[1]))
    pens = label_config.pens(int(seed_CHW.shape[0]))
    middle, angle = rng.uniform(0.3, 0.7, 2) * canvas, rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * canvas * (0.1 + 0.25 * strength)
    picture = Image.new("L", (canvas, canvas))
    line = [tuple(middle - reach), tuple(middle + reach)]
    ImageDraw.Draw(picture).line(line, fill=255, width=round(canvas * (0.04 + 0.05 * strength)))
    alpha = np.array(picture)
    by_chance = rng.permutation(len(pens))
    result = [drawing.region(alpha, "ink", pens[int(by_chance[0])])]
    try:
        return result, drawing.edited(result, seed_CHW)
    except ValueError:  # black on black: any other pen shows
        result = [drawing.region(alpha, "ink", pens[int(by_chance[1])])]
        return result, drawing.edited(result, seed_CHW)


def _truths(record: Record) -> dict[str, int]:
    """Validation task → the class of the pool image its candidate was made from, or that is the probe."""
    columns = read_columns(record.round.workspace.split("pool"), "key", "label")
    labels = dict(zip(*columns, strict=True))
    return {
        projects.vote_key(record.params, c): int(labels[c.seed_image])
        for c in (*record.candidates, *record.probes)
        if c.wellformed and c.seed_image in labels
    }


def _or_another(truth: int, choices: int, error: float, rng: np.random.Generator) -> int:
    """The truth, or in a share `error` of the cases another of the choices."""
    if rng.random() >= error:
        return truth
    return int((truth + rng.integers(1, choices)) % choices)


def _account(params: Params, role: str, number: int) -> str:
    return f"{role}-{number + 1}.{params.campaign}@{SIMULATED_DOMAIN}".lower()


def _project(studio: LabelStudio, round_: Round, params: Params, kind: projects.Kind) -> int:
    title = projects.title(params.campaign, round_, kind)
    project = studio.find(title)
    if project is None:
        raise ValueError(f"Label Studio has no project {title!r}; `dadc open` publishes it")
    return project


def _together(
    studio: LabelStudio,
    services: Services,
    work: Mapping[str, Sequence[_T]],
    sit_down: Callable[[Account, Sequence[_T]], int],
) -> int:
    """Two work at a time, each in a session of their own; how much was done. More would wait for SQLite."""

    def play(account: str) -> int:
        person = studio.person(account, services.password_for(account))
        try:
            return sit_down(person, work[account])
        finally:
            person.close()

    with ThreadPoolExecutor(max_workers=2) as pool:
        done: Iterable[int] = pool.map(play, sorted(work))
        return sum(done)
