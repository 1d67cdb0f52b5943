"""How the open round stands, in numbers: as `dadc collect` last counted them, for whoever asks without a network.

The numbers are kept in `.dadc/progress.json`. Only `collect` can count them, since the target has to answer first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from data.files import write_whole
from data.layout import Round
from tasks.config.params import read
from tasks.workspace.rounds import opened_at, target
from tasks.workspace.services import find_services

if TYPE_CHECKING:
    from tasks.quality.progress import Progress


def keep(round_: Round, progress: Progress, votes_missing: int, aside: Mapping[str, str] | None = None) -> None:
    """Write down what was counted just now. aside: account → why it is set aside."""
    numbers = asdict(progress) | {"votes_missing": votes_missing, "set_aside": dict(aside or {})}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"round": round_.name, "opened": opened_at(round_), "at": at, **numbers}
    write_whole(round_.workspace.local / "progress.json", json.dumps(content, indent=2) + "\n")


def kept(round_: Round) -> dict[str, Any] | None:
    """What was counted last; None if nothing was since this round was opened, or not in this clone."""
    path = round_.workspace.local / "progress.json"
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    same = (content.pop("round"), content.pop("opened")) == (round_.name, opened_at(round_))
    return content if same else None


def open_round(round_: Round) -> dict[str, Any]:
    """The open round as JSON: what it asks for, when it ends, what was counted last and where its pages are."""
    params, attacked, services = read(round_.params).collect, target(round_), find_services(round_.workspace.root)
    opened = datetime.fromtimestamp(opened_at(round_)).astimezone()
    deadline = None if params.deadline is None else opened + timedelta(hours=params.deadline)
    addresses = {
        "Label Studio": services.label_studio_url,
        "MLflow": services.mlflow_url,
        "Prefect": services.prefect_url and services.prefect_url.removesuffix("/api"),
    }
    return {
        "round": round_.name,
        "target": attacked.name if attacked else None,
        "opened": opened.isoformat(timespec="seconds"),
        "deadline": deadline and deadline.isoformat(timespec="seconds"),
        "drawings": params.drawings,
        "edits": params.edits,
        "threshold": params.threshold,
        "counted": kept(round_),
        "addresses": {name: address for name, address in addresses.items() if address},
    }


def open_round_lines(facts: dict[str, Any], now: datetime) -> list[str]:
    """The same for people, a line each."""
    opened = datetime.fromisoformat(facts["opened"])
    lines = [f"round {facts['round']} was opened {_moment(opened, now)}; its target is round {facts['target']}"]
    counted = facts["counted"]
    if counted is None:
        lines.append("  nothing is counted yet; `dadc collect` counts")
    else:
        lines += [
            f"  collected    {counted['collected']} of {_asked(facts)}",
            f"  fooling      {counted['fooling']}",
            f"  verified     {counted['verified_fooling']} of these; the round closes at {facts['threshold']}",
            f"  votes        {counted['votes_missing']} more to come",
            *(f"  set aside    {account}: {reason}" for account, reason in counted.get("set_aside", {}).items()),
            f"  counted      {_moment(datetime.fromisoformat(counted['at']), now)}, by `dadc collect`",
        ]
    if facts["deadline"]:
        lines.append(f"  deadline     {_moment(datetime.fromisoformat(facts['deadline']), now)}")
    lines += [f"  {name:<12} {address}" for name, address in facts["addresses"].items()]
    return lines


def _asked(facts: dict[str, Any]) -> str:
    parts = [f"{facts[name]} {name}" for name in ("drawings", "edits") if facts[name]]
    return f"{' and '.join(parts)} asked for"


def _moment(when: datetime, now: datetime) -> str:
    """A time on this machine's clock and how far it is, in its two largest units."""
    minutes = round(abs((when - now).total_seconds()) / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if number][:2]
    far = " ".join(parts) or "less than a minute"
    return f"{when.astimezone(now.tzinfo):%Y-%m-%d %H:%M}, {f'in {far}' if when > now else f'{far} ago'}"
