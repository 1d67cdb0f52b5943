"""How far a module's weight can be moved to raise the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import blobs, given, network, state
from torch import nn
from torch.nn import functional

from tasks.adaptation.criticality import AttackedImages, characterise, compared, weights
from tasks.adaptation.fine_tuning import fine_tuned
from tasks.engine import inference
from tasks.rift import attacked_once, place


def test_only_the_weights_of_convolutions_and_linear_layers_move() -> None:
    assert list(weights(network())) == ["0", "5"]
    with pytest.raises(ValueError, match="Conv2d or Linear"):
        weights(nn.Flatten())


def test_characterising_leaves_the_network_as_it_was_and_sorts() -> None:
    net = network()
    before = state(net)
    found = characterise(net, attacked_once(net, blobs(20), given()), given())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [each.mrc for each in found] == sorted(each.mrc for each in found)
    assert {each.module: each.parameters for each in found} == {"0": 36, "5": 288}
    assert len({each.loss for each in found}) == 1, "the images are attacked once, for all modules"
    assert all(each.mrc == each.reached - each.loss > 0 for each in found)


def test_ascent_beats_chance_and_stays_in_the_ball() -> None:
    """For a linear network the loss is convex in the weight: the maximum in the ball is at least what chance finds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    params = given(steps=20, attack={"steps": 1, "step_size": 1e-6, "restarts": 1})
    params = params.model_copy(update={"threat": params.threat.model_copy(update={"epsilon": 1e-6})})
    images = blobs(20)
    (found,) = characterise(net, attacked_once(net, images, params), params)
    inputs, weight = inference.to_float(images.pixels_NCHW).flatten(1), net[1].weight
    radius = params.rift.radius * weight.norm()
    with torch.no_grad():

        def loss(delta: torch.Tensor) -> float:
            logits = functional.linear(inputs, weight + delta, net[1].bias)
            return functional.cross_entropy(logits, images.labels_N).item()

        chance = [torch.randn(2, 64) for _ in range(200)]
        reached = max(loss(delta * radius / delta.norm()) for delta in chance)
        # A softmax with two classes: to first order the loss rises fastest along its gradient; no Δ of this norm can
        # raise it by more than the inputs' largest norm times √2.
        bound = loss(torch.zeros_like(weight)) + 2**0.5 * radius.item() * inputs.norm(dim=1).max().item()
    assert reached < found.reached <= bound


def test_robust_accuracy_falls_with_the_module_and_an_ascent_that_stops_short_is_told() -> None:
    net, images = network(), blobs(20)
    place(
        net,
        fine_tuned(net, ["0.weight", "5.weight"], images, given(steps_of_tuning=120, learning_rate=0.02, batch=5)),
        1.0,
    )
    fixed = AttackedImages(inference.to_float(images.pixels_NCHW), images.labels_N)
    strong, weak = given(radius=1.0, steps=20, ascent_rate=20.0), given(radius=1.0, steps=1, ascent_rate=1e-3)
    found = {each.module: each for each in characterise(net, fixed, strong)}
    assert all(0 < each.drop <= 1 for each in found.values())
    short = characterise(net, fixed, weak)
    assert all(each.exceeded and each.drop == 0 for each in short), "one tiny step is no maximum"
    before = state(net)
    tuned = {"5.weight": -net[5].weight.detach()}  # twice the radius away: the ball's surface is what counts
    worse = compared(net, replace(found["5"], elsewhere=-1.0), tuned, fixed, strong.rift)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with torch.no_grad():
        net[5].weight.zero_()
        rise = functional.cross_entropy(net(fixed.images_NCHW), fixed.labels_N).item() - found["5"].loss
    assert worse.elsewhere == pytest.approx(rise, abs=1e-5)
