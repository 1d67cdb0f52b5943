"""Paired statistics against closed forms, scipy and their own promise: how often an interval holds the truth."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.evaluation.paired import (
    Paired,
    binomial_tail,
    clustered,
    images_to_decide,
    mcnemar,
    paired,
    sign_flip,
    tango,
    total,
)


def test_paired_counts() -> None:
    found = paired([True, True, False, False, True], [True, False, True, False, False])
    assert (found.both, found.gained, found.lost, found.neither, found.n, found.net) == (1, 1, 2, 1, 5, -1)
    assert found.within(0.2)
    assert not found.within(0.19)
    with pytest.raises(ValueError, match="same images"):
        paired([True], [])


def test_tolerance_counts_whole_images() -> None:
    lost = paired([True] * 300, [False] * 3 + [True] * 297)
    assert lost.within(0.01)
    assert not paired([True] * 300, [False] * 4 + [True] * 296).within(0.01)


@pytest.mark.parametrize(("count", "n", "share"), [(7, 200, 0.01), (1, 200, 0.01), (30, 30, 0.5), (12, 17, 0.5)])
def test_the_tail_is_scipy_s(count: int, n: int, share: float) -> None:
    assert binomial_tail(count, n, share) == pytest.approx(binomtest(count, n, share, "greater").pvalue, rel=1e-3)


def test_mcnemar_counts_discordant_images_only() -> None:
    assert binomial_tail(0, 0, 0.01) == 1
    assert mcnemar(Paired(500, 0, 0, 500)) == 1
    assert mcnemar(Paired(1, 3, 1, 1)) == mcnemar(Paired(900, 3, 1, 70)) == 5 / 16
    assert mcnemar(Paired(0, 5, 0, 0)) == pytest.approx(1 / 32, rel=1e-3)


def tango_by_search(counts: Paired, z: float) -> tuple[float, float]:
    """The differences that the score statistic does not refuse, by the likelihood itself on a fine grid."""
    kept = []
    for delta in np.arange(-999, 1000) / 1000:
        # P(lost) = q, P(gained) = q + delta; the likeliest q, on a grid too
        q = np.linspace(max(0.0, -delta), (1 - delta) / 2, 20_001)[1:-1]
        with np.errstate(divide="ignore"):
            log = counts.lost * np.log(q) + counts.gained * np.log(q + delta)
            log = log + (counts.both + counts.neither) * np.log(1 - 2 * q - delta)
        likely = q[log.argmax()]
        variance = counts.n * (2 * likely + delta - delta**2)
        if abs(counts.net - counts.n * delta) <= z * math.sqrt(variance):
            kept.append(delta)
    return min(kept), max(kept)


@pytest.mark.parametrize("counts", [Paired(140, 6, 2, 12), Paired(50, 0, 9, 20), Paired(30, 25, 20, 25)])
def test_tango_is_the_score_interval(counts: Paired) -> None:
    assert tango(counts) == pytest.approx(tango_by_search(counts, 1.6448536), abs=0.002)


def test_tango_of_nothing_discordant_is_wilsons() -> None:
    """z² / (n + z²) to either side: with none of n lost, 3/n is about what may be lost."""
    z2 = 1.6448536269514722**2
    assert tango(Paired(100, 0, 0, 60)) == pytest.approx((-z2 / (160 + z2), z2 / (160 + z2)))
    low, high = tango(Paired(0, 0, 12, 0))
    assert (low, high) == (-1.0, pytest.approx(-(12 - z2) / (12 + z2)))
    with pytest.raises(ValueError, match="at least one image"):
        tango(Paired(0, 0, 0, 0))


@pytest.mark.parametrize(("n", "lost", "gained"), [(160, 0.03, 0.02), (160, 0.004, 0.002), (60, 0.1, 0.02)])
def test_tangos_limit_is_missed_one_time_in_twenty(n: int, lost: float, gained: float) -> None:
    draws = np.random.default_rng(0).multinomial(n, [gained, lost, 1 - gained - lost], size=3000)
    missed = np.mean([tango(Paired(rest, g, b, 0))[0] > gained - lost for g, b, rest in draws.tolist()])
    assert missed < 0.065


def test_sign_flips_are_all_gone_through() -> None:
    nets = [3, 1, -2, 4, 0, 1]
    sums = [sum(s * abs(n) for s, n in zip(signs, nets, strict=True)) for signs in product((1, -1), repeat=6)]
    assert sign_flip(nets) == pytest.approx(sum(total >= sum(nets) for total in sums) / 64, rel=1e-3)
    assert sign_flip([2] * 4) == 1 / 16, "four annotators who all agree say no more than that"
    assert sign_flip([]) == 1


def test_an_annotators_pictures_hang_together() -> None:
    """Twenty who each gain all or lose all are twenty observations, not two hundred."""
    apart = [Paired(0, 10, 0, 0) if i % 2 else Paired(0, 0, 10, 0) for i in range(20)]
    low, high = clustered(apart)
    assert low < -0.35 < 0.35 < high
    alone = tango(total(apart))
    assert alone[1] < 0.13
    even = [Paired(4, 3, 3, 0)] * 20
    assert clustered(even) == tango(total(even)), "never narrower than of single pictures"
    assert clustered(apart[:1]) == (-1.0, 1.0)


def test_clustered_intervals_hold_the_truth() -> None:
    rng, missed = np.random.default_rng(1), 0
    for _ in range(600):
        clusters = []
        for _ in range(12):
            gained, lost = rng.beta(0.5, 4.5), rng.beta(0.5, 4.5)
            g, b, rest = rng.multinomial(
                8, [gained * (1 - lost), lost * (1 - gained), 1 - gained - lost + 2 * gained * lost]
            )
            clusters.append(Paired(int(rest), int(g), int(b), 0))
        missed += clustered(clusters)[0] > 0
    assert missed / 600 < 0.08


def test_images_to_decide_are_the_textbooks() -> None:
    def needed(counts: Paired, margin: float) -> int:
        return images_to_decide(counts.n, counts.difference, *tango(counts), margin)

    assert needed(Paired(98_000, 1_000, 1_000, 0), 0.01) == pytest.approx(1237, rel=0.01)
    assert needed(Paired(95_000, 2_500, 2_500, 0), 0.02) == pytest.approx(773, rel=0.01)
    seen = Paired(188, 2, 6, 4)  # two points are lost of a margin of one: enough that it is seen to be a loss
    assert needed(seen, 0.01) == pytest.approx(6.18 * (0.04 - 0.02**2) / 0.02**2, rel=0.1)
    assert needed(seen, 0.05) < needed(seen, 0.01), "a wide margin is decided by fewer"


def test_many_clusters_are_flipped_by_the_normal_distribution() -> None:
    few = [1] * 210 + [-1] * 180
    many = [1] * 230 + [-1] * 200
    assert sign_flip(few) == pytest.approx(binomial_tail(210, 390, 0.5), rel=1e-3)
    assert sign_flip(many) == pytest.approx(binomial_tail(230, 430, 0.5), rel=0.02)
