"""What every benchmark shares: its options, its table with the target beside what was measured, fair timing."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Literal

from data.files import write_whole


@dataclass(frozen=True)
class Measured:
    """One figure. target: what was promised of it, None where it only stands for comparison."""

    name: str
    value: float
    unit: str
    target: float | None
    better: Literal["higher", "lower"]

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def interleaved(
    variants: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each variant; one turn to warm up, then `repeats` in which they take turns, so that what else
    the machine does falls on all of them alike. clock: `time.process_time` leaves out what other processes take."""

    def seconds(run: Callable[[], object]) -> float:
        began = clock()
        run()
        return clock() - began

    return _turns({name: partial(seconds, run) for name, run in variants.items()}, repeats)


def apart(prepare: Mapping[str, Callable[[], Callable[[], object]]], repeats: int) -> dict[str, float]:
    """As `interleaved`, in processor time, each variant in a process of its own which prepares it there: none works in
    memory that another has left. What prepares must be picklable."""
    context = multiprocessing.get_context("forkserver")  # which imports what is slow to import once, and does no more
    context.set_forkserver_preload(["benchmarks._nets", "torch._dynamo"])  # which Adam brings
    with ExitStack() as stack:
        ends = {}
        for name, one in prepare.items():
            ends[name], there = context.Pipe()
            process = context.Process(target=_serve, args=(one, there), daemon=True)
            process.start()
            there.close()
            stack.callback(process.join)
            stack.callback(ends[name].close)  # called first: the process hears it, and ends
        return _turns({name: partial(_ask, name, end) for name, end in ends.items()}, repeats)


def _turns(timed: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each gives, the first turn left out."""
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    spent: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats + 1):
        for name, once in timed.items():
            spent[name].append(once())
    return {name: median(times[1:]) for name, times in spent.items()}


def _ask(name: str, end: Connection) -> float:
    try:
        end.send(None)
        return float(end.recv())
    except (EOFError, OSError):  # it is gone, before it was asked or while it worked
        raise RuntimeError(f"{name} has failed in its process, whose own words are above") from None


def _serve(prepare: Callable[[], Callable[[], object]], end: Connection) -> None:
    run = prepare()
    while True:
        try:
            end.recv()
        except EOFError:
            return
        began = time.process_time()
        run()
        end.send(time.process_time() - began)


def table(results: Sequence[Measured]) -> str:
    """A row a figure."""
    rows = [("", "measured", "target", "")]
    for r in results:
        wanted = "" if r.target is None else f"{'≥' if r.better == 'higher' else '≤'} {_number(r.target)} {r.unit}"
        verdict = {None: "", True: "met", False: "MISSED"}[r.met]
        rows.append((r.name, f"{_number(r.value)} {r.unit}", wanted, verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join((cell.ljust if i in (0, 3) else cell.rjust)(widths[i]) for i, cell in enumerate(row)).rstrip()
        for row in rows
    )


def arguments(about: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark; one with options of its own adds them."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and less data: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


def finish(results: Sequence[Measured], given: argparse.Namespace) -> int:
    """Print the table, write its JSON if asked; 1 when a target was missed.

    The file holds a list of {"name", "value", "unit", "target", "better", "met"}.
    """
    print(table(results))
    if given.json:
        content = [asdict(r) | {"met": r.met} for r in results]
        write_whole(given.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return int(any(r.met is False for r in results))


def main(measure: Callable[[bool], Sequence[Measured]], about: str | None) -> int:
    """Run `measure(quick)` of a benchmark without options of its own, and finish."""
    given = arguments(about).parse_args()
    return finish(measure(given.quick), given)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
