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
