"""Where a campaign's servers are: from the environment, else from what `dadc up` wrote down."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from data.layout import Workspace
from tasks.workspace.environment import bypass_proxies

NAMES = {
    "label_studio": "Label Studio",
    "prefect": "the Prefect server",
    "mlflow": "the MLflow server",
    "model": "the model server",
}
VARIABLES = {
    "label_studio": "LABEL_STUDIO_URL",
    "prefect": "PREFECT_API_URL",
    "mlflow": "MLFLOW_TRACKING_URI",
    "model": "DADC_MODEL_URL",
}
# Log-in of the Prefect server, USER:PASSWORD: what a client sends, and what a server that we start asks for.
PREFECT_AUTH, PREFECT_SERVER_AUTH = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
SECRET, SHORTEST = "DADC_SECRET", 32  # the variable, and how many characters it has at least


class StackError(RuntimeError):
    """The local services are not as a command needs them; the message says what to do."""


class ServiceDown(StackError):
    """A server does not answer; the message names it, its address and the command that starts it."""

    def __init__(self, service: str, address: str | None = None, reason: str = "") -> None:
        """service: a key of NAMES; address: as `find` gave it; reason: what it said, if anything."""
        where = f" at {address}" if address else ", no address is known"
        why = f" ({reason})" if reason else ""
        cure = (
            f"look after it, or unset {VARIABLES[service]} and run `dadc up`"
            if os.environ.get(VARIABLES[service])
            else "run `dadc up`"
        )
        super().__init__(f"{NAMES[service]} does not answer{where}{why}; {cure}")
        self.service = service


@dataclass(frozen=True, repr=False)
class Services:
    """Addresses and log-ins; None where there is none. No service is asked whether it is up."""

    label_studio_url: str | None = None
    label_studio_token: str | None = None
    prefect_url: str | None = None  # of its API: http://127.0.0.1:PORT/api
    prefect_auth: str | None = None  # its log-in, USER:PASSWORD
    mlflow_url: str | None = None
    model_url: str | None = None
    model_user: str | None = None
    model_password: str | None = None
    moved: Path | None = None  # the file that says which ids of Label Studio are which in the record
    root: Path | None = None  # of the workspace, which keeps a secret of its own

    def __repr__(self) -> str:
        """Addresses only: a log or a traceback must not hold a secret."""
        urls = ("label_studio_url", "prefect_url", "mlflow_url", "model_url")
        return f"Services({', '.join(f'{name}={getattr(self, name)!r}' for name in urls)})"

    def key(self, purpose: str) -> bytes:
        """What passwords or codes of one kind are derived from: DADC_SECRET, or the workspace's own secret, made when
        first needed. Not Label Studio's token, which any account there can have sent to itself."""
        secret = os.environ.get(SECRET)
        if not secret:
            assert self.root is not None
            secret = make_secrets(self.root, {"accounts": {"secret": secrets.token_urlsafe(32)}})["accounts"]["secret"]
        elif len(secret) < SHORTEST:
            raise StackError(
                f"{SECRET} must have {SHORTEST} characters or more, got {len(secret)}; try `openssl rand -hex 20`"
            )
        return hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).digest()

    def password_for(self, email: str) -> str:
        """The password of an account that is played, restored or a player's; always the same."""
        return hmac.new(self.key("accounts"), email.lower().encode(), hashlib.sha256).hexdigest()[:32]


def find_services(root: Path) -> Services:
    """The services of the workspace at `root`. The environment wins; the log-in of a local one goes to no other,
    and no proxy stands between this machine's servers and their clients."""
    bypass_proxies()
    known = read_stack(root)["services"]
    made = read_secrets(root)

    def url(service: str) -> str | None:
        return configured_url(service) or known.get(service, {}).get("url")

    def secret(service: str, key: str, variable: str) -> str | None:
        own: str | None = None if configured_url(service) else made.get(service, {}).get(key)
        return os.environ.get(variable) or own

    return Services(
        label_studio_url=url("label_studio"),
        label_studio_token=secret("label_studio", "token", "LABEL_STUDIO_API_KEY"),
        prefect_url=url("prefect"),
        prefect_auth=os.environ.get(PREFECT_AUTH) if configured_url("prefect") else local_prefect_auth(made),
        mlflow_url=url("mlflow"),
        model_url=url("model"),
        model_user=secret("model", "user", "DADC_MODEL_USER"),
        model_password=secret("model", "password", "DADC_MODEL_PASSWORD"),
        moved=Workspace(root).local / "moved.json",
        root=root,
    )


def local_prefect_auth(secrets_: Mapping[str, Mapping[str, str]]) -> str | None:
    """The log-in of the Prefect server that `dadc up` starts, USER:PASSWORD; None where none was made yet."""
    account = secrets_.get("prefect")
    return f"{account['user']}:{account['password']}" if account else None


def configured_url(service: str) -> str | None:
    """The address that the environment gives for a service, without a slash at its end."""
    return os.environ.get(VARIABLES[service], "").strip().rstrip("/") or None


def read_stack(root: Path) -> dict[str, Any]:
    """.dadc/stack.json: {"services": {name: {"url", "pid", "started", "port", "log"}}, "ports": {name: port}}."""
    return {"services": {}, "ports": {}} | _read(Workspace(root).local / "stack.json")


def read_secrets(root: Path) -> dict[str, dict[str, str]]:
    """.dadc/secrets.json: {"label_studio": {"username", "password", "token"}, "model": {"user", "password"},
    "prefect": {"user", "password"}, "accounts": {"secret"}}, as far as they were made."""
    return _read(_secrets(root))


def make_secrets(
    root: Path, wanted: Mapping[str, dict[str, str]], *, replace: bool = False
) -> dict[str, dict[str, str]]:
    """All secrets of the workspace: `wanted` is added to secrets.json, readable by its owner only. A secret that is
    there already stays, unless `replace`."""
    path = _secrets(root)
    (path.parent / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / "locks" / "secrets.lock"):
        there = read_secrets(root)
        made = {**there, **wanted} if replace else {**wanted, **there}
        if made != there:
            _write_secrets(path, made)
    return made


def renew_secret(root: Path, service: str, key: str, variable: str) -> bool:
    """Make a secret of the workspace anew; False where it has none, or the environment gives it by this variable."""
    path = _secrets(root)
    if configured_url(service) or os.environ.get(variable) or not path.exists():
        return False
    with FileLock(path.parent / "locks" / "secrets.lock"):
        there = read_secrets(root)
        if key not in there.get(service, {}):
            return False
        _write_secrets(path, {**there, service: {**there[service], key: secrets.token_urlsafe(24)}})
    return True


def _write_secrets(path: Path, content: Mapping[str, dict[str, str]]) -> None:
    new = path.with_name("secrets.json.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=2)
    new.replace(path)


def _secrets(root: Path) -> Path:
    return Workspace(root).local / "secrets.json"


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StackError(f"{path} must be JSON and is not: {error}; remove it and run `dadc up`") from error
    if not isinstance(content, dict):
        raise StackError(f"{path} must hold a JSON object, got {type(content).__name__}; remove it and run `dadc up`")
    return content
