"""Players: a name, and a code by which the name can be used again.

The code is derived, not stored, and so is the password of the account in Label Studio, which nobody is ever shown.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import time
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from data.layout import Workspace
from data.records import is_simulated
from tasks.labelling import projects
from tasks.labelling.client import connect
from tasks.labelling.http import LabellingError
from tasks.workspace.services import Services

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,23}")
MOST_PLAYERS = 5000  # of a campaign who have flagged: each is an account
MOST_NAMES = 10_000  # under which nobody has flagged yet; they cost whoever says them nothing
IDLE = 3600.0  # seconds after which such a name may be forgotten, if there are too many


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
            raise LabellingError("expected a token for Label Studio; run `dadc up`, or set LABEL_STUDIO_API_KEY")
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
    return "simulated" if is_simulated(email) else "an annotator"
