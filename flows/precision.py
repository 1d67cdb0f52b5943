"""What `precision: auto` comes to on this machine, found out when a round is opened or amended."""

from __future__ import annotations

from data.records import ImageSpec
from flows.campaign import say
from tasks.config.params import Params

SETTLED_BY = ("accelerator", "devices", "threads", "train.precision", "evaluate.precision")  # keys that it depends on


def settled(params: Params, spec: ImageSpec) -> dict[str, str]:
    """{"precision": `fp32` or `bf16`} where anything is auto, else nothing; says why, and warns of a bf16 that costs
    time."""
    asked = {params.train.precision, params.evaluate.precision}
    if asked == {"fp32"}:  # else torch, which takes seconds to import, is not asked
        return {}
    from tasks.engine.precision import trial

    found = trial(params, spec)
    for line in found.lines(params):
        say(line)
    return {"precision": found.chosen} if "auto" in asked else {}
