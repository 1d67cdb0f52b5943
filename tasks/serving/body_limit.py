"""What a server of this project reads at most: a body that is too large is refused before it is read, and one that
comes too slowly is not waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class BodyLimit:
    """Refuses a body that is too large before it is read, and one that is not there in time."""

    def __init__(self, app: App, limit: int, seconds: float = 30.0) -> None:
        """limit: bytes; seconds: from the first look at a body to its end."""
        self._inner, self._limit, self._seconds = app, limit, seconds

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._limit:
            await _refuse(send, self._limit)
            return
        seen, whole, until = 0, False, 0.0

        async def bounded() -> Message:
            nonlocal seen, whole, until
            if whole:  # what comes now is the end of the connection, whenever that is
                return await receive()
            now = asyncio.get_running_loop().time()
            until = until or now + self._seconds
            try:
                message = await asyncio.wait_for(receive(), max(until - now, 0.0))
            except TimeoutError:
                raise HTTPException(408, f"expected the body within {self._seconds:g} seconds") from None
            seen, whole = seen + len(message.get("body", b"")), not message.get("more_body", False)
            if seen > self._limit:
                raise HTTPException(413, f"expected at most {self._limit} bytes")
            return message

        await self._inner(scope, bounded, send)


async def _refuse(send: Send, limit: int) -> None:
    body = json.dumps({"detail": f"expected at most {limit} bytes"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
