"""The initial smoke of the closed box."""

import pytest
import torch

from pdessl.errors import SchemaError
from pdessl.solvers import FAMILIES, SmokeNoise, random_stream


def draws(family, count):
    return torch.stack([family.draw(random_stream(3, "train", k, "physics")) for k in range(count)])


def lengths(count, *values):
    return torch.tensor([values or (32.0, 32.0)], dtype=torch.float64).expand(count, 2)


def test_smoke_is_the_absolute_value_of_noise_of_unit_variance():
    family = SmokeNoise()
    fields = family.fields(draws(family, 40), (32, 32), lengths(40))
    assert fields.shape == (40, 3, 32, 32) and fields.dtype == torch.float64
    assert not fields[:, :2].any() and (fields[:, 2] >= 0).all()
    torch.testing.assert_close(fields[:, 2].square().mean(dim=(1, 2)), torch.ones(40, dtype=torch.float64))
    # Measured on the public generator: mean 0.84, standard deviation 0.54, largest about 1.9.
    assert abs(float(fields[:, 2].mean()) - 0.84) < 0.02
    assert 1.5 < float(fields[:, 2].amax(dim=(1, 2)).mean()) < 2.2


def test_the_same_draw_on_every_grid():
    family = SmokeNoise(smoothness=2.0)
    numbers = draws(family, 3)
    coarse = family.fields(numbers, (20, 24), lengths(3, 16.0, 20.0))
    fine = family.fields(numbers, (60, 72), lengths(3, 16.0, 20.0))
    # With three times the cells every third one, from the second on, has the centre of a coarse one.
    torch.testing.assert_close(coarse, fine[:, :, 1::3, 1::3], rtol=0, atol=1e-12)


def test_spectrum():
    """The sum written out, wave by wave; amplitudes fall like k^(-2 smoothness)."""
    family = SmokeNoise(smoothness=1.0, highest=4)
    numbers = draws(family, 400)
    cells = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    smoke = family.fields(numbers, (16, 16), lengths(400))[:, 2]
    noise = torch.zeros(400, 16, 16, dtype=torch.float64)
    energy = {}
    for p in range(-4, 5):
        for q in range(-4, 5):
            square = 11.0**2 * (p * p + q * q) / 32**2
            if square > 0.1:
                phase = 2 * torch.pi * (p * cells[:, None] + q * cells)
                a, b = numbers[:, 0, p + 4, q + 4], numbers[:, 1, p + 4, q + 4]
                wave = a[:, None, None] * torch.cos(phase) - b[:, None, None] * torch.sin(phase)
                noise += wave / square
                energy[p, q] = square**-2
    noise = noise / noise.std(dim=(1, 2), correction=0, keepdim=True)
    torch.testing.assert_close(smoke, noise.abs(), rtol=0, atol=1e-12)
    assert energy[2, 0] / energy[1, 0] == pytest.approx(2**-4)


def test_long_waves_are_left_out():
    """On a box of 64, k² > 0.1 begins at wave number 2."""
    family = SmokeNoise()
    numbers = torch.zeros(2, 2, 17, 17, dtype=torch.float64)
    numbers[:, 0, 8 + 2, 8] = 1e-3
    numbers[1, 0, 8 + 1, 8] = 1.0  # a wave that is a thousand times larger, and longer
    long_box, usual = (family.fields(numbers, (32, 32), lengths(2, s, s))[:, 2] for s in (64.0, 32.0))
    assert torch.equal(long_box[0], long_box[1])
    assert (usual[0] - usual[1]).abs().max() > 0.5


def test_refusals():
    assert FAMILIES["smoke_noise"] is SmokeNoise
    family = SmokeNoise()
    with pytest.raises(SchemaError, match=r"wave numbers up to 8; 16x32 cells hold those below 8. .* highest: 7"):
        family.fields(draws(family, 1), (16, 32), lengths(1))
    with pytest.raises(SchemaError, match="highest >= 91"):
        family.fields(draws(family, 1), (32, 32), lengths(1, 1000.0, 1000.0))
    with pytest.raises(SchemaError, match="must be > 0"):
        SmokeNoise(scale=0.0)
