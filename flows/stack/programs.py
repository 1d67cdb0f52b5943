"""How each local service is started: its command line and its environment."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path

from data.layout import Workspace
from flows.stack.processes import LOOPBACK
from tasks.workspace.services import (
    PREFECT_SERVER_AUTH,
    StackError,
    local_prefect_auth,
    make_secrets,
    read_secrets,
)

ADMIN = "admin@localhost"
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYTHONUNBUFFERED": "1",
}
# A watch a minute is half a million runs a year, some ten gigabytes: Prefect's server forgets them after 30 days.
FORGETS = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",  # seconds
}
# Label Studio takes any variable for a setting of its own, HOST and DEBUG too, so it sees these only.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CI_RUN")
# Where the servers keep what they know, if not in files of the workspace: their own variables (docs/deploy.md).
POSTGRES = ("POSTGRE_HOST", "POSTGRE_PORT", "POSTGRE_NAME", "POSTGRE_USER", "POSTGRE_PASSWORD")
PREFECT_STORE = "PREFECT_API_DATABASE_CONNECTION_URL"
MLFLOW_STORE, MLFLOW_ARTIFACTS = "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"
STORES = (PREFECT_STORE, MLFLOW_STORE, MLFLOW_ARTIFACTS, "MLFLOW_S3_ENDPOINT_URL")


def _command(root: Path, name: str, port: int) -> tuple[list[str], dict[str, str]]:
    local = Workspace(root).local
    programs = Path(sys.prefix) / "bin"
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, **QUIET, "PATH": path}
    at = ["--host", LOOPBACK, "--port", str(port)]
    if name == "label_studio":
        return _label_studio(root, port)
    if name == "model":
        return [sys.executable, "-m", "tasks.serving.model_server", "--port", str(port)], environment
    kept = {k: v for k, v in environment.items() if k in STORES or not k.startswith(("PREFECT_", "MLFLOW_"))}
    environment = kept | QUIET
    if name == "prefect":
        environment |= _prefect_environment(root, f"http://{LOOPBACK}:{port}")
        return [str(programs / "prefect"), "server", "start", *at], environment
    store = local / "mlflow"
    (store / "artifacts").mkdir(parents=True, exist_ok=True)
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.setdefault(MLFLOW_STORE, f"sqlite:///{store / 'mlflow.db'}")
    environment.setdefault(MLFLOW_ARTIFACTS, str(store / "artifacts"))
    return [str(programs / "mlflow"), "server", *at, "--workers", "1"], environment


def _prefect_environment(root: Path, origin: str) -> dict[str, str]:
    """The settings of the Prefect server at `origin`: it answers to its own page and to who logs in, nobody else.
    Whoever may use its API can run code here, and any page that a browser on this machine shows can reach it."""
    given = os.environ.get(PREFECT_SERVER_AUTH)
    if given:
        user, colon, password = given.partition(":")
        if not (user and colon and password):
            raise StackError(f"{PREFECT_SERVER_AUTH} must be USER:PASSWORD, got something else; set it so, or unset it")
        make_secrets(root, {"prefect": {"user": user, "password": password}}, replace=True)  # for the clients
    auth = local_prefect_auth(read_secrets(root))
    assert auth is not None  # made by _make_secrets
    return {
        "PREFECT_HOME": str(Workspace(root).local / "prefect"),
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        "PREFECT_SERVER_UI_API_URL": f"{origin}/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
        PREFECT_SERVER_AUTH: auth,
        **FORGETS,
    }


def _label_studio(root: Path, port: int) -> tuple[list[str], dict[str, str]]:
    folder = Workspace(root).local / "label-studio"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database, template = folder / "label_studio.sqlite3", _label_studio_folder() / "label_studio.sqlite3"
    elsewhere = {key: os.environ[key] for key in POSTGRES if key in os.environ}
    if elsewhere:
        elsewhere["DJANGO_DB"] = "default"  # which is PostgreSQL
    if not elsewhere and not database.exists() and template.exists():  # its own migrations would take half a minute
        new = database.with_name(database.name + ".new")
        shutil.copyfile(template, new)
        new.chmod(0o600)
        new.replace(database)
    own = read_secrets(root)["label_studio"]
    environment = {key: os.environ[key] for key in PASSED if key in os.environ} | QUIET | elsewhere
    environment |= {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": own["username"],
        "LABEL_STUDIO_PASSWORD": own["password"],
        "LABEL_STUDIO_USER_TOKEN": own["token"],
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
        "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",  # webhooks and
        "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",  # the model server are on this machine
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "NO_PROXY": f"{LOOPBACK},localhost",
    }
    program = str(_label_studio_program())
    # Without --init, which makes a project named `.`; the account is made from the environment either way.
    return [program, "start", "--no-browser", "--internal-host", LOOPBACK, "--port", str(port)], environment


def _label_studio_program() -> Path:
    named = os.environ.get("DADC_LABEL_STUDIO")
    return Path(named) if named else Path(f"{sys.prefix}-label-studio") / "bin" / "label-studio"


def _label_studio_folder() -> Path:
    return _label_studio_program().parent.parent


def _check_label_studio() -> None:
    program = _label_studio_program()
    if os.environ.get("DADC_LABEL_STUDIO"):
        if not os.access(program, os.X_OK):
            raise StackError(f"DADC_LABEL_STUDIO must be Label Studio's program, {program} is none that can be run")
    elif not os.access(program, os.X_OK) or not (_label_studio_folder() / ".synced").exists():
        folder = _label_studio_folder()
        raise StackError(f"Label Studio's own environment {folder} is missing or half-made; run `make setup`")


def _make_secrets(root: Path) -> None:
    """Make the log-ins of this workspace's services, once."""
    wanted = {
        "label_studio": {"username": ADMIN, "password": secrets.token_urlsafe(15), "token": secrets.token_hex(20)},
        "model": {"user": "label-studio", "password": secrets.token_urlsafe(24)},
        "prefect": {"user": "dadc", "password": secrets.token_urlsafe(24)},
    }
    make_secrets(root, wanted)
