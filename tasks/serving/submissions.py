"""What players flag: a drawing made on the page becomes an annotation in Label Studio, under an account of the player's
own, in a free drawing task of the open round. Several processes may do so at once.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from data.files import write_whole
from data.layout import Round
from tasks.config.params import read
from tasks.labelling import drawing, projects
from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio, connect
from tasks.labelling.http import LabellingError
from tasks.serving.players import Player, Refused
from tasks.workspace.services import Services

STALE = 1800.0  # seconds after which a claim whose task is still free is nobody's
SESSIONS = 32  # accounts kept logged in


class Flags:
    """Sends drawings to Label Studio."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sessions: OrderedDict[str, tuple[threading.Lock, list[Account]]] = OrderedDict()
        self._lock = threading.Lock()

    def send(self, round_: Round, player: Player, alpha: drawing.Alpha, class_name: str, seconds: float) -> str:
        """The key of the task that now holds the drawing. alpha: canvas × canvas; seconds: the time it took.

        Refused if the drawing was sent before or no task is free; ServiceDown or LabellingError if it cannot be stored,
        and then nothing is claimed any longer.
        """
        params = read(round_.params)
        studio = connect(self._services)
        project = studio.find(projects.title(params.campaign, round_, "draw"))
        if project is None:
            raise Refused("The round's drawing tasks are not published yet.")
        result = [drawing.region(alpha, "ink"), drawing.chosen(projects.INTENDED, "intended", class_name)]
        with _once(round_, player, alpha), self._session(player) as session:
            free = studio.free(project)
            wanted = [(key, free[key]) for key in reversed(projects.drawing_keys(round_, params)) if key in free]
            key, task = _claim(round_, player, wanted, studio)
            try:
                self._submit(studio, player, session, task, result, seconds)
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


def _claim(round_: Round, player: Player, free: list[tuple[str, int]], studio: LabelStudio) -> tuple[str, int]:
    """The first of the free tasks that no player has claimed and nobody has begun to draw in."""
    for key, task in free:
        path = _claim_path(round_, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / "lock", timeout=30):
            if path.exists() and time.time() - path.stat().st_mtime < STALE:
                continue
            write_whole(path, json.dumps({"player": player.name, "task": task}))
        if not studio.drafts(task):
            return key, task
        path.unlink(missing_ok=True)
    raise Refused("Every drawing of this round is made. Come back when the next round is open.")


def _claim_path(round_: Round, key: str) -> Path:
    return _folder(round_) / "claims" / key.rpartition("/")[2]


@contextmanager
def _once(round_: Round, player: Player, alpha: drawing.Alpha) -> Iterator[None]:
    """A player sends a drawing once, however often they press the key; if it fails, they may again."""
    digest = hashlib.sha256(player.email.encode() + b"\0" + alpha.tobytes()).hexdigest()
    path = _folder(round_) / "sent" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x"):
            pass
    except FileExistsError:
        raise Refused("You sent this drawing already.") from None
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _folder(round_: Round) -> Path:
    return round_.workspace.local / "play" / round_.name
