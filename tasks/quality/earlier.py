"""Who is set aside in rounds that were opened before `validate.aside`, by shares with a least number of cases. Pure.

Closed rounds of that time are verified by these rules:

1. probes: a validator who answers too few of the images whose class is known;
2. dissent: a validator who too often sees another class than the consensus;
3. rejected: an annotator whose candidates too often show another class than they say;
4. siding: a validator who, where the consensus saw another class than the annotator said, too often sees what the
   annotator said.

Set aside by any of them, an account's votes do not count; by the third, its candidates are rejected as well. After the
probes one account goes at a time, the worst of the first rule under which there is one, and all labels are settled
again before the next is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data.records import Candidate, Vote
from tasks.config.params import Validate
from tasks.quality.account_stats import AccountStats, account_stats, add_stats
from tasks.quality.consensus import SetAside, tally_votes


def set_aside_by_shares(
    candidates: Sequence[Candidate],
    votes: Mapping[str, Sequence[Vote]],
    rules: Validate,
    past: Mapping[str, AccountStats],
) -> dict[str, SetAside]:
    """Account → why it is set aside. votes: by the key of the candidate; past: what is known of accounts besides the
    candidates at hand, from closed rounds and probes. The order of anything does not matter."""
    aside = {
        account: SetAside(f"{did.probes_right} of {did.probes} probes answered rightly", candidates=False)
        for account, did in past.items()
        if did.probes >= rules.probe_votes and did.probes_right < rules.probe_accuracy * did.probes
    }
    sound = [c for c in candidates if c.wellformed]
    while True:
        now = [(c, tally_votes(votes.get(c.key, ()), rules, aside)) for c in sound]
        worst = max(
            (
                (rank, account, why)
                for account, did in add_stats([past, account_stats(now, ())]).items()
                for rank, why in _offences(did, rules)
                if not (account in aside and (aside[account].candidates or not why.candidates))
            ),
            key=lambda found: (found[0], found[1]),
            default=None,
        )
        if worst is None:
            return aside
        aside[worst[1]] = worst[2]


def _offences(did: AccountStats, rules: Validate) -> list[tuple[tuple[int, float], SetAside]]:
    """Each rule that an account breaks: its rank, the higher the sooner, and the reason in words."""
    shares = [
        (did.sidings, did.against, rules.validator_siding, "votes on mislabelled candidates are for the wrong label"),
        (did.rejected, did.settled, rules.annotator_rejected, "settled candidates show another class"),
        (did.dissents, did.votes, rules.validator_dissent, "votes differ from the consensus"),
    ]
    return [
        ((rule, part / whole - limit), SetAside(f"{part} of {whole} {what}", candidates=rule == 1))
        for rule, (part, whole, limit, what) in enumerate(shares)
        if whole >= rules.judged_from and part > limit * whole
    ]
