"""Runs whose parameter changes on the way."""

import math

import pytest
import torch

from pdessl.data import Switch, load_recipe, simulate
from pdessl.errors import DataError


def test_a_run_goes_on_from_where_it_is_under_the_other_parameter():
    """Fourier modes of the heat equation decay at the rate of the diffusivity that acts."""
    recipe = load_recipe("heat", overrides={"observation.noise": 0.0})
    frame, factor = 12, 2.5
    plain = simulate(recipe, "test", range(6))
    found = simulate(recipe, "test", range(6), switch=Switch("diffusivity", factor, frame))
    assert torch.allclose(found.fields[:, :, : frame + 1], plain.fields[:, :, : frame + 1], atol=1e-6)
    assert torch.equal(found.parameters["diffusivity"], plain.parameters["diffusivity"])
    nu, length = plain.parameters["diffusivity"], plain.lengths[:, 0]
    modes = torch.fft.rfft(found.fields.double()[:, 0], dim=2)[..., 1]
    rate = (2 * math.pi / length) ** 2 * nu * factor
    elapsed = found.time - found.time[:, frame : frame + 1]
    wanted = modes[:, frame : frame + 1] * torch.exp(-rate[:, None] * elapsed)
    size = modes[:, frame].abs()[:, None]
    assert float(((modes - wanted).abs() / size)[:, frame:].max()) < 1e-4


def test_a_factor_of_one_changes_nothing_but_round_off():
    recipe = load_recipe("burgers")
    same = simulate(recipe, "test", range(4), switch=Switch("viscosity", 1.0, 20))
    assert torch.allclose(same.fields, simulate(recipe, "test", range(4)).fields, atol=1e-5)


@pytest.mark.parametrize(
    ("dataset", "switch", "message"),
    [
        ("burgers", Switch("viscosty", 2.0, 20), "viscosity"),
        ("burgers", Switch("viscosity", 2.0, 39), "expected 1 to 38"),
        ("burgers_forced", Switch("viscosity", 2.0, 4), "a force that depends on time"),
    ],
)
def test_impossible_switches_are_refused(dataset, switch, message):
    with pytest.raises(DataError, match=message):
        simulate(dataset, "test", [0], switch=switch)
