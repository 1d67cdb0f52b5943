"""PGD, APGD-CE, APGD-T and Square against independent implementations, and what gradients may have hidden.

    python -m benchmarks.agreement --root DIR

Three networks trained here, plainly, with NSL's loss and by adversarial training, are attacked in both norms by ours
and by the peers (`make peers`), with equal radii, steps, queries and no restarts; both get their verdicts from the same
fp32 pass, and the peers' images must lie in the ball. Of several seeds the mean is told, and the standard error of the
difference. torchattacks runs APGD for 10 steps unless told otherwise, and is told 100; its L2 PGD starts nearer the
clean image; its Square is given the paper's places. foolbox has PGD only. Then, for each network, what Square or
another network's images break though PGD of three restarts did not. Last, logistic regression on threes against
sevens, where the worst image is known: ε · sign(w), cut to [0, 1].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, variance
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import _nets
from benchmarks._frame import Measured, finish
from data.shards import Images
from tasks.attacks import apgd_ce, apgd_t, attack, fgsm, pgd, square
from tasks.config.params import Threat
from tasks.engine import inference

PEERS = Path(__file__).parent.parent / ".peers"
APART = 0.5  # points of robust accuracy
Make = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # images and labels → images


@dataclass(frozen=True)
class Case:
    """A network and the radii at which some of its answers stand and some fall."""

    name: str
    loss: Mapping[str, Any]
    epochs: int
    linf: float
    l2: float

    def threat(self, norm: Any) -> Threat:
        return Threat(norm=norm, epsilon=self.linf if norm == "linf" else self.l2)

    def where(self, norm: str) -> str:
        """What a row is of."""
        return f"{self.name}, {'L∞' if norm == 'linf' else 'L2'} {self.threat(norm).epsilon:g}"


CASES = (
    Case("plain", {"name": "plain", "params": {}}, 4, 0.1, 1.0),
    Case("nsl", {"name": "nsl", "params": {"multiplier": 1.0, "step_size": 0.2}}, 4, 0.15, 1.5),
    Case("pgd_at", {"name": "pgd_at", "params": {"steps": 7}}, 8, 0.25, 2.0),
)
TRAINED_AT = Threat(norm="linf", epsilon=0.2)


@dataclass(frozen=True)
class Budget:
    """How much there is of everything."""

    given: int = 10_000  # training images
    tested: int = 1_000
    epochs: float = 1.0  # share of a case's
    steps: int = 100  # of APGD
    pgd_steps: int = 40
    queries: int = 1_000
    seeds: int = 1
    only: tuple[str, ...] = ("PGD", "APGD-CE", "APGD-T", "Square", "hidden")


QUICK = Budget(200, 24, 0.1, 5, 5, 20)


class Logistic(nn.Module):
    """Logistic regression as a network of two logits, −z and z."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, 1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        z = self.linear(images_BCHW.flatten(1))
        return torch.cat([-z, z], dim=1)


def logistic(images: torch.Tensor, labels: torch.Tensor, epochs: int) -> tuple[nn.Module, torch.Tensor]:
    """Trained on two classes, and its weight in the shape of an image."""
    torch.manual_seed(0)
    net = Logistic(images[0].numel())
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(labels)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(net(images[index]), labels[index]).backward()
            optimizer.step()
    net.eval().requires_grad_(False)
    return net, net.linear.weight.reshape(images[:1].shape)


def three_or_seven(pictures: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """The threes and sevens in [0, 1], and 0 for a three, 1 for a seven."""
    names = [pictures.classes.index(klass) for klass in ("3", "7")]
    index = torch.isin(pictures.labels_N, torch.tensor(names)).nonzero()[:, 0]
    return inference.to_float(pictures.pixels_NCHW[index]), (pictures.labels_N[index] == names[1]).long()


def closed_form(given: Images, tested: Images, budget: Budget) -> list[Measured]:
    """How many of the images that an L∞ attack ends at are not the closed form's, to the last bit."""
    net, weight = logistic(*three_or_seven(given), 1 if budget.epochs < 1 else 5)
    images, labels = three_or_seven(tested)
    threat = Threat(norm="linf", epsilon=0.1)
    worst = (images + 0.1 * weight.sign() * torch.where(labels == 0, 1.0, -1.0)[:, None, None, None]).clamp(0, 1)
    stands = inference.logits_of(net, worst).argmax(1) == labels
    kinds: dict[str, tuple[Any, Any]] = {
        "FGSM": (fgsm, fgsm.Params()),
        "PGD": (pgd, pgd.Params(steps=budget.pgd_steps, step_size=threat.epsilon)),
        "APGD-CE": (apgd_ce, apgd_ce.Params(steps=budget.steps)),
        "APGD-T": (apgd_t, apgd_t.Params(steps=budget.steps)),
    }
    found = [Measured("logistic regression, ε 0.1: the closed form's accuracy", share(stands), "%", None, "higher")]
    for name, (module, own) in kinds.items():
        made = attack(module, net, images, labels, threat, own, 0)
        other = (made.images != worst).flatten(1).any(1)
        if module in (apgd_ce, apgd_t):
            other &= stands  # it leaves an image alone once it is fooled
        other |= (made.answers == labels) != stands
        found.append(Measured(f"logistic regression, {name}: not the closed form", share(other), "%", 0, "lower"))
    return found


def share(which: torch.Tensor) -> float:
    """Per cent."""
    return 100 * float(which.double().mean())


def ours(threat: Threat, budget: Budget) -> dict[str, tuple[Any, Any]]:
    """The four attacks by name, each with its parameters."""
    step = 2.5 * threat.epsilon / budget.pgd_steps
    return {
        "PGD": (pgd, pgd.Params(steps=budget.pgd_steps, step_size=step)),
        "APGD-CE": (apgd_ce, apgd_ce.Params(steps=budget.steps)),
        "APGD-T": (apgd_t, apgd_t.Params(steps=budget.steps)),
        "Square": (square, square.Params(queries=budget.queries)),
    }


def peers(net: nn.Module, threat: Threat, budget: Budget) -> dict[tuple[str, str], Make]:
    """By attack and library, with the parameters that ours have."""
    if not PEERS.is_dir():
        print("the peers are not there, nothing to agree with: `make peers` brings them", file=sys.stderr)
        return {}
    if str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    import foolbox
    import torchattacks

    flat, epsilon, step = threat.norm == "linf", threat.epsilon, 2.5 * threat.epsilon / budget.pgd_steps
    norm = {"norm": "Linf" if flat else "L2", "eps": epsilon}
    of_pgd = torchattacks.PGD if flat else torchattacks.PGDL2
    of_foolbox = (foolbox.attacks.LinfPGD if flat else foolbox.attacks.L2PGD)(
        abs_stepsize=step, steps=budget.pgd_steps, random_start=True
    )
    wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")

    class Square(torchattacks.Square):  # type: ignore[misc,name-defined,unused-ignore]
        """With the places that the paper draws from, which torchattacks leaves the last row and column out of."""

        def random_int(self, low: int = 0, high: int = 1, shape: Sequence[int] = (1,)) -> torch.Tensor:
            drawn: torch.Tensor = super().random_int(low, high + 1, list(shape))
            return drawn

    def by_foolbox(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = of_foolbox(wrapped, images, labels, epsilons=epsilon)[1]
        return made

    return {
        ("PGD", "torchattacks"): of_pgd(net, eps=epsilon, alpha=step, steps=budget.pgd_steps, random_start=True),
        ("PGD", "foolbox"): by_foolbox,
        ("APGD-CE", "torchattacks"): torchattacks.APGD(net, **norm, steps=budget.steps, loss="ce"),
        ("APGD-T", "torchattacks"): torchattacks.APGDT(net, **norm, steps=budget.steps, n_classes=10),
        ("Square", "torchattacks"): Square(net, **norm, n_queries=budget.queries),
    }


def standing(
    net: nn.Module, make: Make, images: torch.Tensor, labels: torch.Tensor, threat: Threat, seed: int
) -> torch.Tensor:
    """bool N: right on the clean image and on what a peer made of it. ValueError if that lies outside the ball."""
    torch.manual_seed(seed)
    if hasattr(make, "seed"):
        make.seed = seed  # some of torchattacks' set torch's own
    made = torch.cat([make(x, y) for x, y in zip(images.split(256), labels.split(256), strict=True)]).detach()
    change = (made - images).flatten(1)
    length = float(change.abs().max() if threat.norm == "linf" else change.norm(dim=1).max())
    if length > threat.epsilon * 1.001 or made.min() < 0 or made.max() > 1:
        raise ValueError(f"a peer's images must lie within {threat.epsilon:g}, got {length:g}: no fair comparison")
    return (inference.logits_of(net, images).argmax(1) == labels) & (inference.logits_of(net, made).argmax(1) == labels)


def compared(
    case: Case, nets: Mapping[str, nn.Module], norm: str, images: torch.Tensor, labels: torch.Tensor, budget: Budget
) -> Iterable[Measured]:
    """One network in one norm: every attack beside its peers."""
    net, threat, where = nets[case.name], case.threat(norm), case.where(norm)
    target = None if budget == QUICK else APART
    stood, seeds = {}, range(budget.seeds)
    for name, (module, own) in ours(threat, budget).items():
        if name not in budget.only:
            continue
        stood[name] = [attack(module, net, images, labels, threat, own, seed).answers == labels for seed in seeds]
        print(f"{where}, {name}: {mean(map(share, stood[name])):.1f}", file=sys.stderr, flush=True)
    for (name, library), make in peers(net, threat, budget).items():
        if name not in budget.only:
            continue
        theirs = [share(standing(net, make, images, labels, threat, seed)) for seed in seeds]
        mine = [share(each) for each in stood[name]]
        print(f"{where}, {name}, {library}: {mean(theirs):.1f}", file=sys.stderr, flush=True)
        told = f"{where}, {name}: ours {mean(mine):.1f}%, {library} {mean(theirs):.1f}%"
        if budget.seeds > 1:
            told += f", by chance ± {((variance(mine) + variance(theirs)) / budget.seeds) ** 0.5:.2f}"
        yield Measured(told, abs(mean(mine) - mean(theirs)), "points", target, "lower")


def hidden(
    case: Case, nets: Mapping[str, nn.Module], norm: str, images: torch.Tensor, labels: torch.Tensor, budget: Budget
) -> Iterable[Measured]:
    """How many images stand under PGD, with steps and restarts enough, and fall to what does not see its gradient."""
    net, threat, where = nets[case.name], case.threat(norm), case.where(norm)
    own = pgd.Params(steps=budget.steps, step_size=max(0.15, 2.5 / budget.steps) * threat.epsilon, restarts=3)
    stands = attack(pgd, net, images, labels, threat, own, 0).answers == labels
    yield Measured(f"{where}: stands under PGD, three restarts", share(stands), "%", None, "higher")
    some, theirs, target = images[stands], labels[stands], None if budget == QUICK else APART
    by_square = attack(square, net, some, theirs, threat, square.Params(queries=budget.queries), 0).images
    made = {"Square's images": by_square} | {
        f"{other}'s images": attack(pgd, nets[other], some, theirs, threat, own, 0).images
        for other in sorted(nets.keys() - {case.name})
    }
    for what, found in made.items():
        fell = 100 * int((inference.logits_of(net, found).argmax(1) != theirs).sum()) / len(images)
        yield Measured(f"{where}: stands under it, falls to {what}", fell, "%", target, "lower")
    print(f"{where}: what gradients may hide, done", file=sys.stderr, flush=True)


def trained(case: Case, given: Images, validation: Images, budget: Budget) -> nn.Module:
    """nsl_cnn by the case's loss, Adam, within ε 0.2."""
    chosen = {
        "threat": TRAINED_AT.model_dump(),
        "train": {
            "learning_rate": 1e-3,
            "epochs": max(1, round(case.epochs * budget.epochs)),
            "precision": "bf16",
            "loss": dict(case.loss),
        },
    }
    return _nets.fitted(case.name, given, validation, _nets.settings(chosen))


def measure(given: argparse.Namespace) -> list[Measured]:
    """One thread."""
    torch.set_num_threads(1)
    chosen = {"queries": given.queries, "seeds": given.seeds, "only": tuple(given.attacks)}
    budget = QUICK if given.quick else Budget(given.train, given.images, **chosen)
    train, test = _nets.images(given.root, "train"), _nets.images(given.root, "test")
    both = _nets.some(train, budget.given + 256)
    kept = len(both) - 256
    nets = {
        case.name: trained(case, both.take(range(kept)), both.take(range(kept, len(both))), budget) for case in CASES
    }
    tested = _nets.some(test, budget.tested)
    images, labels = inference.to_float(tested.pixels_NCHW), tested.labels_N
    found = closed_form(train, test, budget)
    for case in CASES:
        right = inference.logits_of(nets[case.name], images).argmax(1) == labels
        found.append(Measured(f"{case.name}: clean", share(right), "%", None, "higher"))
        for norm in given.norms:
            found += compared(case, nets, norm, images, labels, budget)
            if "hidden" in budget.only:
                found += hidden(case, nets, norm, images, labels, budget)
    return found


if __name__ == "__main__":
    parser = _nets.arguments(__doc__)
    parser.add_argument("--images", type=int, default=1_000, help="test images each attack is run on")
    parser.add_argument("--train", type=int, default=10_000, help="images the networks are trained on")
    parser.add_argument("--queries", type=int, default=1_000, help="of Square, for an image")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each attack, of which the mean is taken")
    parser.add_argument("--attacks", nargs="+", choices=Budget.only, default=Budget.only, help="instead of all")
    parser.add_argument("--norms", nargs="+", choices=("linf", "l2"), default=("linf", "l2"), help="instead of both")
    options = parser.parse_args()
    sys.exit(finish(measure(options), options))
