"""Energies of learned filters: exact on waves, blind to shifts, powers of the fields' size."""

import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.models import EnergyEncoder, load, save_pretrained
from pdessl.models.encoder import Encoder


def field(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(**given):
    torch.manual_seed(0)
    return EnergyEncoder(**{"filters": 6, "size": (3, 5)} | given).eval().double()


def test_the_energy_of_a_filter_on_a_wave_is_its_transfer_function():
    """<(f*z)²> of z = cos(kx - ωt) over the circle and whole periods is |f̂(k, ω)|²/2."""
    encoder = build(products=False)
    k, omega, nodes, frames = 2 * math.pi * 3 / 32, 2 * math.pi / 8, 32, 16 + 2
    x, t = torch.arange(nodes).double(), torch.arange(frames).double()
    wave = torch.cos(k * x[None] - omega * t[:, None])[None, None]
    dx, dt = torch.arange(5).double(), torch.arange(3).double()
    phase = torch.polar(torch.ones(3, 5).double(), k * dx[None] - omega * dt[:, None])
    transfer = (encoder.filters.detach()[:, 0] * phase).sum(dim=(1, 2)).abs()
    torch.testing.assert_close(encoder.energies(wave)[0], (transfer.square() / 2).log())


def test_products_give_the_flux():
    """A filter on u² that takes the central difference measures 2 u u_x, to second order."""
    encoder = build(filters=1, size=(1, 3))
    with torch.no_grad():
        encoder.filters.zero_()
        encoder.filters[0, 1, 0] = torch.tensor([-0.5, 0.0, 0.5])
    x = 2 * math.pi * torch.arange(256).double() / 256
    u = (1.5 + torch.sin(x)).expand(1, 1, 4, 256)
    flux = 2 * u * torch.cos(x) * (x[1] - x[0])
    torch.testing.assert_close(encoder.energies(u)[0, 0].exp(), flux.square().mean(), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("periodic", [(True,), (True, False)])
def test_shifts_along_a_periodic_axis_change_nothing(periodic):
    size = (3, 5) if len(periodic) == 1 else (3, 4, 3)
    encoder = build(in_channels=2, periodic=periodic, size=size, windows=2, features=3, hidden=8)
    x = field(3, 2, 9, 12, *[10] * (len(periodic) - 1))
    torch.testing.assert_close(encoder(x.roll(5, dims=3)), encoder(x), rtol=1e-10, atol=1e-10)
    assert encoder(x).shape == (3, 3) and encoder.trunk(x).shape == (3, 12)


def test_a_larger_field_has_energies_larger_by_its_square():
    encoder, x = build(products=False), field(2, 1, 6, 8)
    torch.testing.assert_close(encoder.energies(3 * x), encoder.energies(x) + 2 * math.log(3))


def test_windows_are_those_of_time():
    whole, parts = build(), build(windows=2)
    parts.filters = whole.filters
    x = field(2, 1, 10, 8)  # 8 rows of responses, 4 in a window; a response spans 3 frames
    found = parts.energies(x)
    torch.testing.assert_close(found[:, :6], whole.energies(x[:, :, :6]))
    torch.testing.assert_close(found[:, 6:], whole.energies(x[:, :, 4:]))


def test_filters_begin_different_without_mean_and_of_one_norm():
    filters = build(in_channels=2, filters=40, size=(4, 6)).filters.detach()
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(40).double(), rtol=1e-5, atol=1e-5)
    assert filters.sum(dim=(2, 3)).abs().max() < 1e-5
    alike = filters.flatten(1) @ filters.flatten(1).T - torch.eye(40)
    assert alike.abs().max() < 0.995


def test_saved_and_loaded_it_gives_the_same(tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(EnergyEncoder(2, 5, features=3, hidden=4), [0.0, 1.0], [1.0, 2.0]).eval()
    save_pretrained(tmp_path / "encoder", encoder)
    x = torch.randn(4, 2, 12, 16)
    assert torch.equal(load(tmp_path / "encoder")(x), encoder(x))


@pytest.mark.parametrize(
    ("given", "shape"),
    [({}, (2, 2, 8, 8)), ({}, (2, 1, 2, 8)), ({"periodic": (False,)}, (2, 1, 8, 4)), ({"windows": 9}, (2, 1, 8, 8))],
)
def test_fields_that_do_not_fit_are_refused(given, shape):
    with pytest.raises(ShapeError, match="expected \\(B, 1, T"):
        build(**given)(field(*shape))


@pytest.mark.parametrize("given", [{"filters": 0}, {"periodic": (True,) * 3}, {"size": (3,)}, {"features": 0}])
def test_settings_that_mean_nothing_are_refused(given):
    with pytest.raises(ValueError, match="EnergyEncoder got"):
        build(**given)
