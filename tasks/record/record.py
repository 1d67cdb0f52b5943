"""A round's record in memory, read once: its lines, and what follows from them, worked out when first asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from data.layout import Round
from data.records import Candidate, ImageSpec, Vote
from tasks.config.params import Params, read
from tasks.quality.account_stats import ProbeAnswer
from tasks.record import candidates as candidates_
from tasks.record import votes as votes_
from tasks.record.annotations import Line, read_lines
from tasks.workspace.checkout import image_spec


@dataclass(frozen=True)
class Record:
    """What a round's annotations.jsonl holds, and the candidates, votes and answers to probes that it comes to."""

    round: Round
    params: Params  # the round's own
    spec: ImageSpec
    lines: tuple[Line, ...]

    @classmethod
    def read(cls, round_: Round) -> Record:
        """The record as it lies in the round's folder; empty where nothing was pulled yet."""
        lines = tuple(read_lines(round_.annotations))
        return cls(round_, read(round_.params), image_spec(round_.workspace), lines)

    def extended(self, new: Iterable[Line]) -> Record:
        """The record with further lines."""
        return replace(self, lines=(*self.lines, *new))

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Every candidate, people's or a machine's, malformed ones too; not yet judged or validated."""
        return candidates_.candidates(self.lines, self.round, self.params, self.spec)

    @cached_property
    def votes(self) -> dict[str, list[Vote]]:
        """The votes on the candidates, by the candidate's key."""
        return votes_.votes(self.lines, self.candidates, self.round, self.params, self.spec)

    @cached_property
    def probes(self) -> list[Candidate]:
        """The images by which validators are tested; never part of a shard."""
        return candidates_.probes(self.round, self.params, self.spec.channels)

    @cached_property
    def probe_answers(self) -> list[ProbeAnswer]:
        """What validators answered to the probes."""
        cast = votes_.votes(self.lines, self.probes, self.round, self.params, self.spec)
        return votes_.probe_answers(self.probes, cast)
