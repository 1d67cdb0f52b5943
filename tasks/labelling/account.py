"""A person's account in Label Studio, in a session of its own, as a browser has it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.labelling.http import LabellingError, ServerFailed, errors, http_client, refused, retried


class Account:
    """An account in a session of its own, which does what a person's browser does."""

    def __init__(self, url: str, email: str, password: str, invite: str | None) -> None:
        """invite: the address to sign up at first; None logs in to an account that is there."""
        self.url, self.email = url, email.lower()
        self._http = http_client(url)
        form = invite or f"{url}/user/login/"
        with errors(url, f"log in as {email}"):
            page = self._http.get(form, follow_redirects=True)
            hidden = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
            if hidden is None:
                raise LabellingError(f"expected a form at {form.split('?')[0]}, got status {page.status_code}")
            fields = {"csrfmiddlewaretoken": hidden[1], "email": email, "password": password}
            answer = self._http.post(form, data=fields, headers={"Referer": form})
        done = "sign up" if invite else "log in"
        if answer.status_code >= 500:
            raise ServerFailed(f"Label Studio at {url} failed (status {answer.status_code}) to let {email} {done}")
        if answer.status_code != 302:
            raise LabellingError(
                f"Label Studio at {url} did not let {email} {done} (status {answer.status_code}); "
                "the account has another password: remove it in Label Studio, or use another campaign name"
            )

    def submit(self, task: int, result: Sequence[Mapping[str, Any]], seconds: float) -> int:
        """Submit an annotation; its id. result: items as the page sends them; seconds: the time it took.

        Tried again when the server fails, but never stored twice.
        """
        body = {"result": list(result), "lead_time": seconds}
        path = f"/api/tasks/{task}/annotations/"
        tried = False

        def post() -> int:
            nonlocal tried
            stored = self._stored(path, body["result"]) if tried else []
            tried = True
            return int((stored or [self._ask("POST", path, body)])[0]["id"])

        return retried(post)

    def submit_once(self, task: int, result: Sequence[Mapping[str, Any]], seconds: float) -> int:
        """Submit an annotation unless this account has submitted just that for the task; its id."""
        stored = self._stored(f"/api/tasks/{task}/annotations/", list(result))
        return int(stored[0]["id"]) if stored else self.submit(task, result, seconds)

    def save_draft(self, task: int, result: Sequence[Mapping[str, Any]]) -> int:
        """Save a draft, as the page does while somebody draws; its id."""
        body = {"result": list(result), "lead_time": 1.0}
        return int(self._ask("POST", f"/api/tasks/{task}/drafts", body)["id"])

    def change_draft(self, draft: int, result: Sequence[Mapping[str, Any]]) -> None:
        """Save a draft again, as the page does while somebody goes on."""
        self._ask("PATCH", f"/api/drafts/{draft}/", {"result": list(result)})

    def edit(self, annotation: int, result: Sequence[Mapping[str, Any]]) -> None:
        """Change an annotation, one's own or, since the open-source server has no roles, another's."""
        self._ask("PATCH", f"/api/annotations/{annotation}/", {"result": list(result)})

    def delete(self, annotation: int) -> None:
        """Delete an annotation, one's own or another's."""
        self._ask("DELETE", f"/api/annotations/{annotation}/")

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    def _stored(self, path: str, result: object) -> list[dict[str, Any]]:
        """Annotations of a task by this account with this very result."""
        me = self._ask("GET", "/api/current-user/whoami")["id"]
        return [a for a in self._ask("GET", path) if a["completed_by"] == me and a["result"] == result]

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"X-CSRFToken": self._http.cookies.get("csrftoken") or "", "Referer": self.url}
        with errors(self.url, f"{method} {path}"):
            response = self._http.request(method, path, json=body, headers=headers)
        if response.status_code >= 400:
            raise refused(self.url, f"{method} {path} as {self.email}", response.status_code, response.text)
        return response.json() if response.content else None
