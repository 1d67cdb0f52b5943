"""ASGI middleware that sets the security headers of our pages and drops the host that a stranger's request claims."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

from tasks.serving.body_limit import App, Message, Receive, Send

# Gradio's page holds scripts and styles and makes functions of text; a Space is a frame on Hugging Face's pages.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
    )
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
SPACE_HOST = "SPACE_HOST"  # set by Hugging Face in a Space, whose proxy names it in X-Forwarded-Host


class SecurityHeaders:
    """Adds HEADERS to every answer. X-Forwarded-Host, which Gradio writes into its page, reaches it only as the name of
    the Space that this is."""

    def __init__(self, app: App) -> None:
        self._inner = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        space = os.environ.get(SPACE_HOST, "").encode()
        headers = [(k, v) for k, v in scope["headers"] if k != b"x-forwarded-host" or (space and v == space)]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in HEADERS}
                kept = [(k, v) for k, v in message.get("headers", []) if k.lower() not in names]
                message = {**message, "headers": [*kept, *HEADERS]}
            await send(message)

        await self._inner({**scope, "headers": headers}, receive, send_with_headers)
