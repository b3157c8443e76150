"""Models that are unsure: what disagreement costs, and how far ahead one may be believed."""

import pytest
import torch
from scipy.stats import binom

import pdessl
from pdessl.control import (
    Ensemble,
    Gradient,
    Imagined,
    Oracle,
    VectorEnvironment,
    load_environment,
    usable_horizon,
)
from pdessl.errors import DataError, ShapeError

QUICK = {"burn_in": 5.0, "control.steps": 12}


def other(**changes):
    return Oracle(load_environment("ks_control_5", QUICK | changes))


def test_a_plan_costs_what_the_mean_costs_and_what_the_models_disagree_about():
    env = load_environment("ks_control_5", QUICK)
    now = VectorEnvironment(env).reset([0, 1])
    actions = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    models = [other(), other(**{"parameters.antidiffusion": 1.1}), other(**{"parameters.steepening": 0.8})]
    found = Imagined(env, Ensemble(env, models, weight=3.0), now).cost(actions)
    fields = torch.stack([env.field(model.imagine(now, actions)) for model in models])
    expected = fields.mean(dim=0).square().mean(dim=-1) + 0.1 * actions.square().mean(dim=-1)
    doubt = (fields - fields.mean(dim=0)).square().mean(dim=(0, -1))
    torch.testing.assert_close(found, (expected + 3.0 * doubt).mean(dim=-1))
    same = Imagined(env, Ensemble(env, models[:1] * 2), now).cost(actions)
    torch.testing.assert_close(same, Imagined(env, models[0], now).cost(actions))
    with pytest.raises(DataError, match="two or more"):
        Ensemble(env, models[:1])


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_beyond_the_usable_horizon_errors_are_too_large_and_within_it_as_seldom_as_promised(level):
    """Errors that grow by a random factor each period."""
    generator, kept, trials, tried = torch.Generator().manual_seed(0), 0, 0, 0
    for _ in range(500):
        errors = torch.rand(41, 8, generator=generator, dtype=torch.float64).mul(2).cumsum(dim=1).square()
        ahead = usable_horizon(errors[:40], 20.0, level)
        tried += ahead
        if ahead:
            kept, trials = kept + int(errors[40, ahead - 1] <= 20.0), trials + 1
    assert trials > 450 and 1 < tried / trials < 7
    assert binom.cdf(kept, trials, level) > 1e-3
    assert usable_horizon(torch.zeros(40, 8), 1.0) == 8 and usable_horizon(torch.full((40, 8), 2.0), 1.0) == 0
    assert usable_horizon(torch.full((40, 8), float("nan")), 1.0) == 0
    with pytest.raises(ShapeError, match="n >= 19"):
        usable_horizon(torch.zeros(18, 8), 1.0, 0.95)
    with pytest.raises(DataError, match="level 1"):
        usable_horizon(torch.zeros(18, 8), 1.0, 1)


def test_plans_in_a_wrong_model_end_where_it_is_not_believed_any_more():
    env = load_environment("ks_control_5", QUICK)
    wrong = other(**{"parameters.antidiffusion": 1.3})

    class Wrong:
        def imagine(self, situation, actions):
            asked.append(actions.shape[2])
            return wrong.imagine(situation, actions)

    asked = []
    settings = {"planner": Gradient(1), "episodes": 1, "horizon": 10, "every": 4, "oracle": False, "announce": str}
    found = pdessl.plan(env, Wrong(), trust=0.03, **settings)
    told = next(note for note in found.notes if "is believed for" in note)
    ahead = int(told.split("believed for ")[1].split()[0])
    assert 0 < ahead < 8 and asked[0] == 10 and max(asked[1:-2]) == ahead
    with pytest.raises(DataError, match="believed for 0 of 10"):
        pdessl.plan(env, Wrong(), trust=1e-9, **settings)
