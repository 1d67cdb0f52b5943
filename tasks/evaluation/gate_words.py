"""A comparison of gate.json in words. It imports nothing that computes: `dadc status` is to answer at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def line(name: str, comparison: Mapping[str, Any]) -> str:
    """A comparison in words: figure, difference, interval, n, verdict and how many more images would decide."""
    shown = f"{name.replace('_', ' ')} {100 * comparison['difference']:+.1f} points "
    shown += f"[{100 * comparison['low']:+.1f}, {100 * comparison['high']:+.1f}], n {comparison['n']}: "
    more = comparison.get("more")
    return shown + str(comparison["verdict"]) + (f", about {more:,} more would decide" if more else "")
