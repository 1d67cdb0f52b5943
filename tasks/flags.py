"""Players and what they flag: a drawing made on the page becomes an annotation in Label Studio, under an account of the
player's own, in a free drawing task of the open round. Several processes may do so at once.

A player is a name and a code by which the name can be used again; the code is derived, not stored, and so is the
account's password, which nobody is ever shown.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from data.files import write_whole
from data.layout import Round, Workspace
from tasks import ink, projects
from tasks.labelling import LabellingError, LabelStudio, Person, connect
from tasks.params import read
from tasks.services import Services

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,23}")
MOST_PLAYERS = 5000  # of a campaign who have flagged: each is an account
MOST_NAMES = 10_000  # under which nobody has flagged yet; they cost whoever says them nothing
IDLE = 3600.0  # seconds after which such a name may be forgotten, if there are too many
STALE = 1800.0  # seconds after which a claim whose task is still free is nobody's
SESSIONS = 32  # accounts kept logged in


class Refused(ValueError):
    """A player asked for what cannot be; the message is for them."""


@dataclass(frozen=True)
class Player:
    """Somebody who has said their name, and shown the code if it was theirs before."""

    name: str
    email: str


class Players:
    """The players of a campaign."""

    def __init__(self, workspace: Workspace, campaign: str, services: Services) -> None:
        if not services.label_studio_token:
            raise LabellingError("a token for Label Studio is wanted; run `dadc up`, or set LABEL_STUDIO_API_KEY")
        self._folder = workspace.local / "play" / "names"
        self._campaign, self._services = campaign, services
        self._key = services.key("players")

    def join(self, name: str, code: str) -> tuple[Player, str]:
        """Take a free name, or come back to one's own; the player and the code. Refused if the name is another's."""
        if not NAME.fullmatch(name):
            raise Refused("A name has 2 to 24 letters, digits, - or _.")
        player, right = self._player(name), self.code(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name.lower()
        if code:
            if not hmac.compare_digest(code.strip().upper().encode(), right.encode()):
                raise Refused("This is not the code of that name.")
            path.touch()
            return player, right
        accounts = connect(self._services).emails().values()
        flagged = {email for email in accounts if email.endswith(self._player("").email)}
        if player.email in flagged or path.exists():
            raise Refused("This name is taken. Choose another, or give its code if it is yours.")
        if len(flagged) >= MOST_PLAYERS:
            raise Refused("There are as many players as this campaign takes.")
        self._make_room(flagged)
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            raise Refused("This name is taken. Choose another, or give its code if it is yours.") from None
        return player, right

    def _make_room(self, flagged: Set[str]) -> None:
        """Forget names under which nobody has flagged, if there are too many. Refused if all were said just now."""
        with FileLock(self._folder.parent / "names.lock", timeout=30):
            names = [path for path in self._folder.iterdir() if self._player(path.name).email not in flagged]
            if len(names) < MOST_NAMES:
                return
            kept = [(path, self._folder.parent / "tries" / path.name) for path in names]
            idle = [both for both in kept if all(_age(path) > IDLE for path in both)]
            if not idle:
                raise Refused("Too many have said a name just now. Come back in an hour.")
            for path in (path for both in idle for path in both):
                path.unlink(missing_ok=True)

    def known(self, name: str, code: str) -> Player | None:
        """The player if the code is right."""
        if not NAME.fullmatch(name) or not hmac.compare_digest(code.encode(), self.code(name).encode()):
            return None
        return self._player(name)

    def code(self, name: str) -> str:
        """Eight letters and digits by which a name is used again."""
        digest = hmac.new(self._key, f"{self._campaign}\x1f{name.lower()}".encode(), hashlib.sha256).digest()
        return base64.b32encode(digest[:5]).decode()

    def _player(self, name: str) -> Player:
        return Player(name, f"{name}.{self._campaign}@{projects.PLAYER_DOMAIN}".lower())


def _age(path: Path) -> float:
    """Seconds since a file was written; infinite if there is none."""
    return time.time() - path.stat().st_mtime if path.exists() else math.inf


def shown_name(email: str) -> str:
    """How others see an account: players by their name, and nobody else's address."""
    local, _, domain = email.rpartition("@")
    if domain == projects.PLAYER_DOMAIN:
        return local.rpartition(".")[0]
    return "simulated" if domain == projects.SIMULATED_DOMAIN else "an annotator"


class Flags:
    """Sends drawings to Label Studio."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sessions: OrderedDict[str, tuple[threading.Lock, list[Person]]] = OrderedDict()
        self._lock = threading.Lock()

    def send(self, round_: Round, player: Player, alpha: ink.Alpha, class_name: str, seconds: float) -> str:
        """The key of the task that now holds the drawing. alpha: canvas × canvas; seconds: the time it took.

        Refused if the drawing was sent before or no task is free; ServiceDown or LabellingError if it cannot be stored,
        and then nothing is claimed any longer.
        """
        params = read(round_.params)
        studio = connect(self._services)
        project = studio.find(projects.title(params.campaign, round_, "draw"))
        if project is None:
            raise Refused("The round's drawing tasks are not published yet.")
        result = [ink.region(alpha, "ink"), ink.chosen(projects.INTENDED, "intended", class_name)]
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
        session: list[Person],
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
    def _session(self, player: Player) -> Iterator[list[Person]]:
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
def _once(round_: Round, player: Player, alpha: ink.Alpha) -> Iterator[None]:
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
