"""The moving average is that of diffusers' `EMAModel`."""

import pytest
import torch
from diffusers.training_utils import EMAModel

from training.ema import Ema, decay_after


@pytest.mark.parametrize("decay", [0.9999, 0.98, 0.5, 0.0])
def test_the_decay_is_that_of_diffusers_from_the_first_update_on(decay):
    theirs = EMAModel([], decay=decay)
    for updates in [*range(2_000), 50_000, 89_989, 89_991, 10**6]:
        assert decay_after(updates, decay) == theirs.get_decay(updates + 1)


def test_of_what_was_there_before_the_first_update_nothing_stays():
    weight = torch.nn.Parameter(torch.zeros(3))
    ema = Ema({"w": weight}, decay=0.9999)
    with torch.no_grad():
        weight += torch.tensor([1.0, 2.0, 3.0])
    ema.update({"w": weight}, 0)
    assert torch.equal(ema.shadow["w"], weight)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("offloaded", [False, True])
def test_the_average_is_that_of_diffusers_step_by_step(foreach, offloaded):
    torch.manual_seed(0)
    weights = {name: torch.nn.Parameter(torch.randn(5, 4)) for name in "ab"}
    ours = Ema(weights, decay=0.9, offloaded=offloaded)
    theirs = EMAModel(weights.values(), decay=0.9, foreach=foreach)
    for step in range(120):  # the decay reaches 0.9 after 80
        with torch.no_grad():
            for weight in weights.values():
                weight += 0.1 * torch.randn(5, 4)
        ours.update(weights, step)
        theirs.step(weights.values())
        for mine, other in zip(ours.shadow.values(), theirs.shadow_params, strict=True):
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("sharded", [False, True])
def test_within_its_block_weights_are_their_averages_and_then_what_they_were(sharded):
    weights = {name: torch.nn.Parameter(torch.full((3,), 1.0)) for name in "ab"}
    ema = Ema(weights, decay=0.5)
    with torch.no_grad():
        for weight in weights.values():
            weight += 2.0
            if sharded:
                weight.full_tensor = None
    places = [weight.data_ptr() for weight in weights.values()]
    with pytest.raises(RuntimeError, match="in the midst"), ema.applied_to(weights):
        assert all((weight == 1.0).all() for weight in weights.values())
        assert all((average == 3.0).all() for average in ema.shadow.values())
        if sharded:  # others know where they lie
            assert [weight.data_ptr() for weight in weights.values()] == places
        raise RuntimeError("in the midst")
    assert all((weight == 3.0).all() for weight in weights.values())
    assert all((average == 1.0).all() for average in ema.shadow.values())
    assert [weight.data_ptr() for weight in weights.values()] == places


def test_storage_is_swapped_where_nobody_else_knows_it():
    weight = torch.nn.Parameter(torch.ones(3))
    ema = Ema({"w": weight}, decay=0.5)
    average, place = ema.shadow["w"].data_ptr(), weight.data_ptr()
    with ema.applied_to({"w": weight}):
        assert (weight.data_ptr(), ema.shadow["w"].data_ptr()) == (average, place)


def test_it_begins_anew_at_other_weights_and_asks_for_no_gradients():
    weights = {name: torch.nn.Parameter(torch.zeros(3)) for name in "ab"}
    ema = Ema(weights, decay=0.9)
    with torch.no_grad():
        for number, weight in enumerate(weights.values(), start=1):
            weight += number
    ema.restart(weights)
    for name, weight in weights.items():
        assert torch.equal(ema.shadow[name], weight)
        assert ema.shadow[name].data_ptr() != weight.data_ptr()
    ema.update(weights, 3)
    assert not any(average.requires_grad for average in ema.shadow.values())


def test_an_average_lies_beside_its_weight_unless_it_is_to_lie_on_the_cpu():
    weights = {"w": torch.nn.Parameter(torch.zeros(3, device="meta"))}
    assert Ema(weights, decay=0.9).shadow["w"].device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):  # which has nothing to copy from
        Ema(weights, decay=0.9, offloaded=True)
