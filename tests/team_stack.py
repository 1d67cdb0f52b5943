"""The servers under a team's stack, real ones on loopback: PostgreSQL and an S3 store."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from conftest import program

from flows.stack.processes import LOOPBACK, end, free_port, start

NOBODY = 65534  # PostgreSQL does not run as root


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server with an account `dadc`."""

    port: int
    password: str

    def url(self, database: str, driver: str) -> str:
        return f"postgresql+{driver}://dadc:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def ask(self, database: str, question: str) -> list[tuple[object, ...]]:
        """The rows of an answer; none of a command."""
        connection = psycopg2.connect(
            host=LOOPBACK, port=self.port, dbname=database, user="dadc", password=self.password, connect_timeout=5
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(question)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


@contextmanager
def postgres(*databases: str) -> Iterator[Postgres]:
    """A server of its own with these databases, empty."""
    programs = _programs()
    made = Postgres(free_port(set()), secrets.token_urlsafe(12))
    folder = Path(tempfile.mkdtemp(prefix="dadc-postgres-"))
    leader = None
    try:
        prefix: list[str] = []
        if os.geteuid() == 0:  # as somebody else, who may not look into the environment
            os.chown(folder, NOBODY, NOBODY)
            prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        data, word = folder / "data", folder / "password"
        word.write_text(made.password)
        word.chmod(0o644)
        init = [str(programs / "initdb"), "-D", str(data), "-U", "dadc", "-A", "scram-sha-256", f"--pwfile={word}"]
        init += ["--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*prefix, *init], cwd=folder, check=True, capture_output=True)
        server = [str(programs / "postgres"), "-D", str(data), "-h", LOOPBACK, "-p", str(made.port), "-k", "", "-F"]
        log = folder / "log"
        leader = start([*prefix, *server], folder=folder, environment=dict(os.environ), log=log)
        for database in databases:
            _wait(lambda name=database: made.ask("postgres", f'CREATE DATABASE "{name}"'), log)
        yield made
    finally:
        if leader is not None:
            end([leader])
        shutil.rmtree(folder)


@contextmanager
def s3(folder: Path, *buckets: str) -> Iterator[dict[str, str]]:
    """An S3 server over a folder; the variables that lead to it."""
    for name in buckets:
        (folder / name).mkdir(parents=True)
    key, secret, port = secrets.token_hex(8), secrets.token_hex(16), free_port(set())
    program = str(Path(sys.executable).parent / "rclone")
    environment = {**os.environ, "RCLONE_CONFIG": os.devnull, "RCLONE_AUTH_KEY": f'"{key},{secret}"'}
    command = [program, "serve", "s3", str(folder), "--addr", f"{LOOPBACK}:{port}"]
    log = folder.with_suffix(".log")
    leader = start(command, folder=folder, environment=environment, log=log)
    try:
        _wait(lambda: socket.create_connection((LOOPBACK, port), 1).close(), log)
        yield {
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        end([leader])


def _programs() -> Path:
    """PostgreSQL's, which Debian keeps off the path."""
    known = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else known
    return Path(program("PostgreSQL", "postgresql", *found[-1:]))


def _wait(work: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            work()
        except (psycopg2.OperationalError, OSError):
            if time.monotonic() > deadline:
                raise AssertionError(f"a server did not come up:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.2)
        else:
            return
