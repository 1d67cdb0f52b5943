"""The training loop: it learns, keeps the best epoch, stops where it should, and goes on after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from data.shards import Images
from tasks.config.params import Awp, Loss, Params, TrainCandidates, read
from tasks.engine import networks, stage, train_state
from tasks.engine.batch import Batch
from tasks.engine.fit import backward, steps_an_epoch
from tasks.engine.training_set import training_set
from tasks.losses import loss_of
from tasks.train import fitted

pytestmark = pytest.mark.usefixtures("one_thread")

CHOICES = TrainCandidates(weight=0.5, repeat=3, non_fooling=False)
PLAIN = Loss(name="plain", params={})


def images(n: int, size: int = 8) -> Images:
    labels = torch.arange(n) % 2
    noise = torch.randint(0, 128, (n, 1, size, size), generator=torch.Generator().manual_seed(1))
    pixels = (noise + 60 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8)
    return Images(pixels, labels, tuple(f"k{i}" for i in range(n)), ("a", "b"))


def small(**changes: object) -> Params:
    params = read(Path(__file__).parents[3] / "params.yaml")
    given = {"epochs": 2, "batch": 8, **changes}
    return params.model_copy(update={"train": params.train.model_copy(update=given)})


def fit_small(net: nn.Module, params: Params, n: int = 9) -> dict[str, object]:
    with stage.reproducible(params, "test"):
        return fitted(net, training_set(images(n), [], CHOICES), images(8), params, PLAIN, "000")[1]


def test_divergence_is_an_error_that_says_what_to_do() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=r"diverged; .*lower train\.learning_rate \(now 1e\+30\) .* `dadc amend`"):
        fit_small(net, small(optimizer="sgd", learning_rate=1e30, epochs=3))


def test_weights_that_are_no_numbers_are_divergence_though_the_loss_was_one() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    net[1].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(ValueError, match=r"^1.weight of the network are not finite in epoch 1: training has diverged"):
        fit_small(net, small(epochs=1, batch=9))


def test_no_batch_of_one_image_is_left_over() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    assert len(fit_small(net, small())["epochs"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "choice",
    [
        {"optimizer": "sgd", "learning_rate": 0.01},
        {"precision": "bf16"},
        {"augment": {"gaussian_noise": {}}},
        {"awp": Awp(gamma=0.01)},
    ],
)
def test_sgd_bf16_augmentation_and_awp_learn(choice: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    epochs = fit_small(net, small(epochs=20, **choice), n=32)["epochs"]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]  # type: ignore[index]
    assert all(weight.dtype == torch.float32 for weight in net.parameters())


def test_awp_begins_with_its_epoch() -> None:
    losses = {}
    for begins in (1, 3, None):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        awp = None if begins is None else Awp(gamma=0.2, from_epoch=begins)
        losses[begins] = [each["loss"] for each in fit_small(net, small(epochs=4, awp=awp), n=32)["epochs"]]  # type: ignore[attr-defined]
    assert losses[3][:2] == losses[None][:2]
    assert losses[3][2] > losses[None][2], "the loss that is reported is that of the moved weights"
    assert losses[1][0] > losses[None][0]


@pytest.mark.parametrize("name", ["plain", "nsl"])
@pytest.mark.parametrize("model", ["nsl_cnn", "resnet18"])
def test_a_batch_in_parts_has_the_loss_and_the_gradients_of_the_whole(name: str, model: str) -> None:
    torch.manual_seed(0)
    net = networks.build(model, 3, 1, 12).train()
    batch = Batch(torch.rand(150, 1, 12, 12), torch.randint(0, 3, (150,)), torch.rand(150) + 0.1)
    loss, noise = loss_of(name, {}, small().threat), torch.Generator()
    value = backward(net, batch, loss, noise)
    found = [weight.grad.clone() for weight in net.parameters()]
    net.zero_grad()
    wanted = loss(net, batch, noise)
    wanted.backward()
    assert value == pytest.approx(wanted.item(), rel=1e-5)
    for weight, gradient in zip(net.parameters(), found, strict=True):
        assert torch.allclose(gradient, weight.grad, atol=1e-5 * float(weight.grad.abs().max()) + 1e-7)


def test_a_schedule_changes_the_training() -> None:
    losses = {}
    for schedule in ("constant", "step"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        losses[schedule] = [each["loss"] for each in fit_small(net, small(epochs=4, schedule=schedule), n=32)["epochs"]]  # type: ignore[attr-defined]
    assert losses["constant"][:2] == losses["step"][:2]
    assert losses["constant"][3] < losses["step"][3], "a tenth of the rate learns less"


def test_patience_ends_a_training() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    history = fit_small(net, small(epochs=9, patience=2, optimizer="sgd", learning_rate=1e-12))
    assert len(history["epochs"]) == 3  # type: ignore[arg-type]
    assert "has not risen" in history["stopped"]  # type: ignore[operator]


def test_batches_are_even_and_fit_for_batch_norm() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    normed = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))
    assert steps_an_epoch(9, 8, 1, plain) == 2
    assert steps_an_epoch(3, 2, 1, plain) == 2
    assert steps_an_epoch(3, 2, 1, normed) == 1, "two and one would leave a batch of one image"
    assert steps_an_epoch(9, 1, 1, plain) == 9
    with pytest.raises(ValueError, match=r"train\.batch must be at least 2 .*: its batch norm .* got 1 .*`dadc amend`"):
        steps_an_epoch(9, 1, 1, normed)
    with pytest.raises(ValueError, match="at least 4 for this network in 2 processes: its batch norm .*, got 3"):
        steps_an_epoch(9, 3, 2, normed)
    with pytest.raises(ValueError, match="at least 2"):
        fit_small(normed, small(batch=1))


def test_one_answer_to_every_image_is_not_kept_before_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two classes it is right half the time, under attack too: as much together as a plain loss ever reaches."""
    reached = iter([(0.5, 0.5), (0.75, 0.3), (0.98, 0.0), (0.97, 0.02)])
    monkeypatch.setattr("tasks.train.clean_and_robust", lambda *given, **named: next(reached))
    torch.manual_seed(0)
    assert fit_small(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), small(epochs=4))["kept"] == 3


def test_of_epochs_as_good_as_each_other_the_one_with_the_lower_loss_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = iter([(0.9, 0.4), (0.9, 0.4), (0.9, 0.4)])
    monkeypatch.setattr("tasks.train.clean_and_robust", lambda *given, **named: next(reached))
    torch.manual_seed(0)
    history = fit_small(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), small(epochs=3))
    losses = [epoch["loss"] for epoch in history["epochs"]]  # type: ignore[attr-defined]
    assert losses == sorted(losses, reverse=True)
    assert history["kept"] == 3


class Killed(BaseException):
    """Ends a training where it stands."""


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """With dropout, augmentation and PGD, so that every generator is drawn from."""
    params = small(epochs=4, optimizer=optimizer, schedule="cosine", augment={"gaussian_noise": {}})
    loss = Loss(name="pgd_at", params={"steps": 2})
    training, validation = training_set(images(20), [], CHOICES), images(8)

    def once(store: train_state.Store | None) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        with stage.reproducible(params, "test"):
            layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 2)
            net, told = fitted(nn.Sequential(*layers), training, validation, params, loss, "001", store=store)
        return net.state_dict(), told

    wanted, history = once(None)
    store = train_state.Store(tmp_path / "x.safetensors", "this one")
    write = train_state.Store.write

    def killed_after_two(self: train_state.Store, told: dict[str, object], tensors: dict[str, torch.Tensor]) -> None:
        write(self, told, tensors)
        if len(told["epochs"]) == 2:  # type: ignore[arg-type]
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train_state.Store, "write", killed_after_two)
        with pytest.raises(Killed):
            once(store)
    found, told = once(store)
    assert told == history
    assert all(torch.equal(found[name], value) for name, value in wanted.items())

    other = train_state.Store(store.path, "another")
    assert other.read() is None
    store.path.write_bytes(store.path.read_bytes()[:-9])
    assert store.read() is None


def test_a_fall_of_pgd_accuracy_ends_the_training_and_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of one step at a high rate loses what it had; here the fall that counts is set to none at all."""
    monkeypatch.setattr("tasks.engine.schedule.FALL", -1.0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    params = small(epochs=5)
    with stage.reproducible(params, "test"):
        loss = Loss(name="pgd_at", params={"steps": 2})
        told = fitted(net, training_set(images(9), [], CHOICES), images(8), params, loss, "001")[1]
    assert len(told["epochs"]) == 1
    assert told["kept"] == 1
    assert "PGD accuracy on validation fell" in told["stopped"]
    assert "stopped" not in fit_small(net, params), "a plain loss promises nothing under attack"
