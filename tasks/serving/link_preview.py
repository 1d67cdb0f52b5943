"""ASGI middleware that gives the page at / the tags from which messengers make a link's preview (Open Graph).

Gradio's own template says `https://gradio.app/` there, and the first tag of a name counts.
"""

from __future__ import annotations

import html
import re
from collections.abc import MutableMapping
from typing import Any

from tasks.serving.body_limit import App, Receive, Send

_TAGS = re.compile(rb'<meta\s[^>]*?(?:property|name)="(?:og:|twitter:|description")[^>]*>')


class LinkPreview:
    """Replaces the tags of the page at /; everything else passes as it is."""

    def __init__(self, app: App, title: str, description: str) -> None:
        self._inner = app
        named = {"og:type": "website", "og:title": title, "og:description": description, "twitter:card": "summary"}
        tags = [f'<meta property="{name}" content="{html.escape(text)}">' for name, text in named.items()]
        tags.append(f'<meta name="description" content="{html.escape(description)}">')
        self._tags = "".join(tags).encode()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self._inner(scope, receive, send)
            return
        plain = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]}
        start: MutableMapping[str, Any] = {}
        parts: list[bytes] = []

        async def keep(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            if message["type"] != "http.response.body":
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            page = _TAGS.sub(b"", b"".join(parts)).replace(b"</head>", self._tags + b"</head>", 1)
            headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", str(len(page)).encode())]})
            await send({"type": "http.response.body", "body": page})

        await self._inner(plain, receive, keep)
