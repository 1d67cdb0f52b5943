"""How Label Studio is asked over HTTP: whom one is, what is tried again, and the two errors that come of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from tasks.workspace.services import ServiceDown

_T = TypeVar("_T")

TIMEOUT = 120.0  # seconds; the first request after a start takes long


class LabellingError(RuntimeError):
    """Label Studio refused; the message says what was asked, what it said, and what to do."""


class NotThere(LabellingError):
    """A 404: what was asked for is not there, or not any more."""


class ServerFailed(LabellingError):
    """A 5xx: the same may succeed a moment later."""


def retried(call: Callable[[], _T]) -> _T:
    """Once more where the server failed, six times in all: its SQLite is locked when many write at once."""
    for pause in (0.2, 0.4, 0.8, 1.6, 3.2):
        try:
            return call()
        except ServerFailed:
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  spreads the writers out
    return call()


class RetryTransport(httpx.Client):
    """Asks again where no answer came in time; what may have been done twice by that, the callers look after."""

    def send(self, request: httpx.Request, **how: Any) -> httpx.Response:
        for pause in (0.5, 1.5):
            try:
                return super().send(request, **how)
            except (httpx.TimeoutException, httpx.ReadError, httpx.RemoteProtocolError):
                time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311
        return super().send(request, **how)


def http_client(url: str, kind: type[httpx.Client] = httpx.Client, timeout: float | None = None) -> httpx.Client:
    """A local server is not asked through a proxy. timeout: seconds, else TIMEOUT."""
    local = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    return kind(base_url=url, timeout=timeout or TIMEOUT, trust_env=not local)


@contextmanager
def errors(url: str, what: str, unless: str = "") -> Iterator[None]:
    """What the client libraries raise → the two errors of this module.

    unless: words of a refusal by which it is the model server that is down.
    """
    from label_studio_sdk.core.api_error import ApiError

    try:
        yield
    except httpx.HTTPError as error:
        raise ServiceDown("label_studio", url, type(error).__name__) from error
    except ApiError as error:
        said = str(error.body)
        if unless and unless in said:
            raise ServiceDown("model", what.split()[-1], "Label Studio cannot reach it") from error
        raise refused(url, what, error.status_code or 0, said) from error


def refused(url: str, what: str, status: int, said: str) -> LabellingError:
    """The error for a status of 400 or more. said: the answer's body."""
    if status in (401, 403):
        return LabellingError(
            f"Label Studio at {url} did not accept the token (status {status}, to {what}); "
            "set LABEL_STUDIO_API_KEY, or unset it with LABEL_STUDIO_URL and run `dadc up`"
        )
    if status >= 500:
        return ServerFailed(f"Label Studio at {url} failed (status {status}) to {what}; its log says why, try again")
    kind = NotThere if status == 404 else LabellingError
    return kind(f"Label Studio at {url} refused to {what} (status {status}): {said[:300]}")
