"""Who made and validated what: a row per annotator, per validator and per attack. Pure; for paying people.

A near-duplicate of a fool that its author made earlier earns nothing. Near is measured on what a person would see: both
images in grey, averaged over at most 28×28 cells, less their mean; a cosine of SAME or more at any shift of up to
2/28 of the image, between candidates of one author and one intended class.

Who is set aside is read off the candidates: by the reason for which they, or votes on them, do not count.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from data.records import PEOPLE, Candidate
from data.shards import decode_png
from tasks.agreement import ballots, dawid_skene
from tasks.params import Validate
from tasks.trust import ASIDE, Answer, conduct, count

SAME = 0.97  # cosine from which two images are near-duplicates
GRID = 28  # cells a side, at most
SHIFT = 2  # in 28ths of a side, each way
BLOCK = 32  # images compared at once with all before them
MOST_FOUND = 2**14  # authors' drawings of a class of which the near-duplicates are remembered
_FOUND: dict[bytes, tuple[int, ...]] = {}


@dataclass(frozen=True)
class Annotator:
    """An annotator's part. A rate of nothing is None."""

    account: str
    tries: int  # well-formed candidates
    malformed: int
    fools: int  # tries that fooled the target, without near-duplicates of earlier ones
    verified_fools: int  # of those, with a verified label
    duplicates: int  # fools that are near-duplicates of the author's earlier ones
    mer: float | None  # share of the tries that fooled the target, near-duplicates included; a player has none
    seconds: float  # over all tries
    seconds_per_verified_fool: float | None
    set_aside: str  # why; empty if not


@dataclass(frozen=True)
class Validator:
    """A validator's part. A share of nothing is None."""

    account: str
    votes: int
    counted: int
    verified_fools: int  # fools whose label a counted vote of theirs helped to verify; near-duplicates once
    seconds: float  # over all they were shown, probes too
    seconds_per_verified_fool: float | None
    agreement: float | None  # share of the votes for a class, on candidates settled on one, that match it
    skill: float | None  # chance of a right vote by Dawid–Skene; None where votes are few
    probes: int  # answered
    probe_accuracy: float | None
    set_aside: str  # why; empty if not


@dataclass(frozen=True)
class Attack:
    """An attack's part in a round, apart from people's. A share of nothing is None."""

    account: str  # the attack's name
    round: str
    tries: int
    fools: int
    verified_fools: int
    attack_success_rate: float | None  # share of the rightly classified seed images that it flipped
    verified_rate: float | None  # share of its settled candidates whose label was verified


def annotators(candidates: Sequence[Candidate]) -> list[Annotator]:
    """People who drew, the most verified fools first. candidates: judged, with verdicts."""
    by_author: dict[str, list[Candidate]] = {}
    for c in candidates:
        if c.by_people:
            by_author.setdefault(c.annotator, []).append(c)
    rows = []
    for account, own in by_author.items():
        tries = [c for c in own if c.wellformed]
        fools, rated = [c for c in tries if c.fooling], [c for c in tries if c.rated]
        again = duplicates(fools)
        new = [c for c in fools if c.key not in again]
        verified = sum(c.verified for c in new)
        seconds = sum(c.seconds for c in tries)
        rows.append(
            Annotator(
                account=account,
                tries=len(tries),
                malformed=len(own) - len(tries),
                fools=len(new),
                verified_fools=verified,
                duplicates=len(again),
                mer=sum(c.fooling for c in rated) / len(rated) if rated else None,
                seconds=round(seconds, 3),
                seconds_per_verified_fool=seconds / verified if verified else None,
                set_aside=_aside((c.at, c.reason) for c in tries),
            )
        )
    return sorted(rows, key=lambda row: (-row.verified_fools, -row.fools, row.tries, row.account))


def validators(
    candidates: Sequence[Candidate],
    probes: Iterable[Answer],
    rules: Mapping[int, Validate],
    seconds: Mapping[str, float],
) -> list[Validator]:
    """People who voted, the most counted votes first. candidates: with their votes as counted; rules: by their round;
    seconds: account → the time it took."""
    found = conduct([(c, count(c.votes, rules[c.round])) for c in candidates if c.wellformed], probes)
    cast = [vote for c in candidates for vote in c.votes]
    estimate = dawid_skene(ballots(candidates))
    skill = estimate.skill if estimate else {}
    fools = new_fools(c for c in candidates if c.verified)
    helped = Counter(v.validator for c in fools for v in c.votes if v.counted and v.choice == c.intended)
    rows = []
    for account in {vote.validator for vote in cast} | {account for account, did in found.items() if did.probes}:
        own = [vote for vote in cast if vote.validator == account]
        did = found.get(account)
        rows.append(
            Validator(
                account=account,
                votes=len(own),
                counted=sum(vote.counted for vote in own),
                verified_fools=helped[account],
                seconds=round(seconds.get(account, 0.0), 3),
                seconds_per_verified_fool=seconds.get(account, 0.0) / helped[account] if helped[account] else None,
                agreement=1 - did.dissents / did.votes if did and did.votes else None,
                skill=skill.get(account),
                probes=did.probes if did else 0,
                probe_accuracy=did.probes_right / did.probes if did and did.probes else None,
                set_aside=_aside((vote.at, vote.reason) for vote in own),
            )
        )
    return sorted(rows, key=lambda row: (-row.counted, row.account))


def attacks(round_name: str, by_source: Mapping[str, Mapping[str, Any]]) -> list[Attack]:
    """The attacks of a round, of whose sources metrics.json tells `by_source`."""
    return [
        Attack(
            account=name,
            round=round_name,
            tries=told["collected"],
            fools=told["fooling"],
            verified_fools=told["verified_fooling"],
            attack_success_rate=told["attack_success_rate"],
            verified_rate=told["verified_rate"],
        )
        for name, told in sorted(by_source.items())
        if name not in PEOPLE
    ]


def duplicates(fools: Iterable[Candidate]) -> set[str]:
    """Keys of the fools of one author that are near-duplicates of an earlier one. A verified one is earlier than one
    that is not, so that nobody loses by having tried before."""
    by_class: dict[int, list[Candidate]] = {}
    for fool in sorted(fools, key=lambda c: (not c.verified, c.at, c.key)):
        by_class.setdefault(fool.intended, []).append(fool)
    return {own[i].key for own in by_class.values() for i in _again([fool.image for fool in own])}


def new_fools(candidates: Iterable[Candidate]) -> list[Candidate]:
    """People's fools without near-duplicates of their author's: what places and a round's end go by."""
    by_author: dict[str, list[Candidate]] = {}
    for c in candidates:
        if c.by_people and c.fooling:
            by_author.setdefault(c.annotator, []).append(c)
    again = {account: duplicates(own) for account, own in by_author.items()}
    return [c for account, own in by_author.items() for c in own if c.key not in again[account]]


def _aside(reasons: Iterable[tuple[str, str]]) -> str:
    """The latest reason why something of an account that is set aside does not count. reasons: each with its time."""
    latest = max(((at, reason) for at, reason in reasons if reason.startswith(ASIDE)), default=("", ""))
    return latest[1].removeprefix(ASIDE)


def _again(images: Sequence[bytes]) -> tuple[int, ...]:
    """Which are near-duplicates of an earlier one that is none. A page asks for the same again and again: what was
    found is kept, by the images' digest."""
    if len(images) < 2:
        return ()
    digest = hashlib.sha256(b"".join(hashlib.sha256(image).digest() for image in images)).digest()
    if digest not in _FOUND:
        if len(_FOUND) >= MOST_FOUND:
            _FOUND.clear()
        _FOUND[digest] = _compare(images)
    return _FOUND[digest]


def _compare(images: Sequence[bytes]) -> tuple[int, ...]:
    again: list[int] = []
    middle_NG = torch.empty(0)
    kept_N = torch.ones(len(images), dtype=torch.bool)
    for start in range(0, len(images), BLOCK):
        shifted_BSG = torch.stack([_shifted(image) for image in images[start : start + BLOCK]])
        shifts = shifted_BSG.shape[1]
        middle_NG = torch.cat([middle_NG.view(-1, shifted_BSG.shape[2]), shifted_BSG[:, shifts // 2]])
        alike_BSN = (shifted_BSG.flatten(0, 1) @ middle_NG.T).unflatten(0, (-1, shifts))
        for i, near_N in enumerate(alike_BSN.amax(1) >= SAME, start):
            if bool((near_N[:i] & kept_N[:i]).any()):
                kept_N[i] = False
                again.append(i)
    return tuple(again)


def _shifted(image: bytes) -> torch.Tensor:
    """The image at each of its shifts, in the middle as it is: grey, averaged over cells, of mean 0 and length 1; an
    even image is all 0, like nothing."""
    pixels_HW = decode_png(image, 1)[0].double()
    cells = min(GRID, *pixels_HW.shape)
    pixel = max(1, round(max(pixels_HW.shape) / 28))
    steps = [pixel * step for step in range(-SHIFT, SHIFT + 1)]
    all_SHW = torch.stack([torch.roll(pixels_HW, shift, (0, 1)) for shift in product(steps, steps)])
    small_SG = torch.nn.functional.adaptive_avg_pool2d(all_SHW, cells).flatten(1)
    centred_SG: torch.Tensor = small_SG - small_SG.mean(1, keepdim=True)
    length_S1: torch.Tensor = torch.linalg.vector_norm(centred_SG, dim=1, keepdim=True)
    return (centred_SG / length_S1.clamp(min=1e-9)).float()
