"""What players flag: a drawing made on the page becomes an annotation in Label Studio, under an account of the player's
own, in a free drawing task of the open round. Several processes may do so at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from data.files import write_whole
from data.layout import Round
from data.shards import encode_png
from tasks.config.params import read
from tasks.labelling import drawing, projects
from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio, connect
from tasks.labelling.http import LabellingError
from tasks.quality.duplicates import is_near_duplicate
from tasks.serving.players import Player, Refused
from tasks.workspace.services import Services

STALE = 1800.0  # seconds after which a claim whose task is still free is nobody's
SESSIONS = 32  # accounts kept logged in
MOST_SHARE = 0.25  # of a round's drawing tasks that one player fills, at least two


@dataclass(frozen=True)
class Drawing:
    """A drawing that fools, and what its player says of it."""

    alpha: drawing.Alpha  # canvas × canvas
    pixels_CHW: torch.Tensor  # uint8, as the target sees it
    class_name: str  # what it is meant to be
    seconds: float  # it took


class Flags:
    """Sends drawings to Label Studio."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sessions: OrderedDict[str, tuple[threading.Lock, list[Account]]] = OrderedDict()
        self._lock = threading.Lock()

    def send(self, round_: Round, player: Player, drawn: Drawing) -> str:
        """The key of the task that now holds the drawing.

        Refused if this player sent the drawing or a near-duplicate before or has filled their share of the round's
        tasks, or if no task is free; ServiceDown or LabellingError if it cannot be stored, and then nothing is claimed
        any longer.
        """
        params = read(round_.params)
        studio = connect(self._services)
        project = studio.find(projects.title(params.campaign, round_, "draw"))
        if project is None:
            raise Refused("The round's drawing tasks are not published yet.")
        result = [drawing.region(drawn.alpha, "ink"), drawing.chosen(projects.INTENDED, "intended", drawn.class_name)]
        most = max(2, math.ceil(MOST_SHARE * params.collect.drawings))
        with _once(round_, player, drawn), self._session(player) as session:
            free = studio.free(project)
            wanted = [(key, free[key]) for key in reversed(projects.drawing_keys(round_, params)) if key in free]
            key, task = _claim(round_, player, wanted, studio, most)
            try:
                self._submit(studio, player, session, task, result, drawn.seconds)
            except BaseException:
                _claim_path(round_, key).unlink(missing_ok=True)
                raise
        return key

    def _submit(
        self,
        studio: LabelStudio,
        player: Player,
        session: list[Account],
        task: int,
        result: list[dict[str, object]],
        seconds: float,
    ) -> None:
        if session:
            try:
                session[0].submit(task, result, seconds)
            except LabellingError:  # logged out meanwhile: log in anew, below
                session.pop().close()
            else:
                return
        session.append(studio.person(player.email, self._services.password_for(player.email)))
        session[0].submit(task, result, seconds)

    @contextmanager
    def _session(self, player: Player) -> Iterator[list[Account]]:
        """The player's log-in, if there is one; one drawing at a time."""
        with self._lock:
            held, session = self._sessions.setdefault(player.email, (threading.Lock(), []))
            self._sessions.move_to_end(player.email)
            idle = [email for email, (lock, _) in self._sessions.items() if not lock.locked() and email != player.email]
            for email in idle[: max(0, len(self._sessions) - SESSIONS)]:
                for person in self._sessions.pop(email)[1]:
                    person.close()
        with held:
            yield session


def _claim(
    round_: Round, player: Player, free: list[tuple[str, int]], studio: LabelStudio, most: int
) -> tuple[str, int]:
    """The first of the free tasks that no player has claimed and nobody has begun to draw in. most: tasks a player."""
    folder = _folder(round_) / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    for key, task in free:
        path = _claim_path(round_, key)
        with FileLock(folder / "lock", timeout=30):
            if _held(path):
                continue
            if _filled(folder, player, {_claim_path(round_, each).name for each, _ in free}) >= most:
                raise Refused(
                    f"You have filled {most} of this round's tasks, which is as many as one player may. "
                    "Come back when the next round is open."
                )
            write_whole(path, json.dumps({"player": player.name, "task": task}))
        if not studio.drafts(task):
            return key, task
        path.unlink(missing_ok=True)
    raise Refused("Every drawing of this round is made. Come back when the next round is open.")


def _held(claim: Path) -> bool:
    return claim.exists() and time.time() - claim.stat().st_mtime < STALE


def _filled(folder: Path, player: Player, free: set[str]) -> int:
    """Tasks that a player has filled, or is filling. free: names of the claims whose tasks are still free."""
    claims = [path for path in folder.iterdir() if path.name != "lock" and (path.name not in free or _held(path))]
    return sum(json.loads(path.read_text(encoding="utf-8"))["player"].lower() == player.name.lower() for path in claims)


def _claim_path(round_: Round, key: str) -> Path:
    return _folder(round_) / "claims" / key.rpartition("/")[2]


@contextmanager
def _once(round_: Round, player: Player, drawn: Drawing) -> Iterator[None]:
    """A player sends a drawing and its near-duplicates once, however often they press the key; if it fails, they may
    send it again. What was sent is kept as PNG, a folder for each player and class."""
    digest = hashlib.sha256(player.email.encode() + b"\0" + drawn.alpha.tobytes()).hexdigest()
    class_digest = hashlib.sha256(drawn.class_name.encode()).hexdigest()[:16]
    folder = _folder(round_) / "sent" / player.name.lower()
    path, image = folder / class_digest / digest, encode_png(drawn.pixels_CHW)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock", timeout=30):
        if any(folder.glob(f"*/{digest}")):
            raise Refused("You sent this drawing already.")
        if is_near_duplicate(image, [each.read_bytes() for each in sorted(path.parent.iterdir())]):
            raise Refused("You sent a drawing that is almost the same, and it would count once. Draw another one.")
        path.write_bytes(image)
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _folder(round_: Round) -> Path:
    return round_.workspace.local / "play" / round_.name
