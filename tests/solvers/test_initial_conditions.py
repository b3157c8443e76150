"""Random initial fields: what is drawn, and from what."""

import math

import numpy as np
import pytest
import torch

from pdessl.errors import SchemaError
from pdessl.solvers import FAMILIES, GaussianRandomField, Harmonics, SineSeries, fourier_series, random_stream


def test_stream_depends_on_its_arguments_only():
    first = random_stream(3, "test", 7, "physics").uniform(size=4)
    np.testing.assert_array_equal(first, random_stream(3, "test", 7, "physics").uniform(size=4))
    others = [
        (4, "test", 7, "physics", 0),
        (3, "validation", 7, "physics", 0),
        (3, "test", 8, "physics", 0),
        (3, "test", 7, "noise", 0),
        (3, "test", 7, "physics", 1),
    ]
    for other in others:
        assert not np.array_equal(first, random_stream(*other).uniform(size=4)), other


def test_sine_series_is_the_formula():
    family = SineSeries(terms=4, amplitude=0.7, wave_numbers=(2, 5), mean=0.4)
    field = fourier_series(family.draw(random_stream(0, "a", 1, "physics"))[None], 64)[0]
    stream = random_stream(0, "a", 1, "physics")
    amplitude, number = stream.uniform(-0.7, 0.7, 4), stream.integers(2, 6, 4)
    phase, mean = stream.uniform(0, 2 * math.pi, 4), stream.uniform(-0.4, 0.4)
    x = np.arange(64) * 2 * np.pi / 64
    slow = mean + sum(a * np.sin(n * x + p) for a, n, p in zip(amplitude, number, phase, strict=True))
    np.testing.assert_allclose(field.numpy(), slow, atol=1e-14)


def test_the_field_does_not_depend_on_the_grid():
    family = GaussianRandomField(highest=9)
    modes = torch.stack([family.draw(random_stream(0, "a", k, "physics")) for k in range(3)])
    torch.testing.assert_close(fourier_series(modes, 64), fourier_series(modes, 192)[:, ::3], rtol=0, atol=1e-14)


def test_drawn_ranges_and_spectra():
    sines = torch.stack([SineSeries(rms=0.8, mean=0.3).draw(random_stream(1, "a", k, "physics")) for k in range(300)])
    fields = fourier_series(sines, 32)
    torch.testing.assert_close(fields.std(-1, correction=0), torch.full((300,), 0.8, dtype=torch.float64))
    means = fields.mean(-1)
    assert 0.27 < means.max() <= 0.3 and -0.3 <= means.min() < -0.27
    family = GaussianRandomField(rms=0.5, corner=2.0, exponent=3.0, highest=8)
    modes = torch.stack([family.draw(random_stream(1, "a", k, "physics")) for k in range(4000)])
    power = modes.abs().square().mean(0)[1:]
    j = torch.arange(1, 9, dtype=torch.float64)
    torch.testing.assert_close(power / power[0], ((1 + (j / 2) ** 2) / 1.25) ** (-3.0), rtol=0.15, atol=0)
    torch.testing.assert_close(
        fourier_series(modes, 32).square().mean().sqrt(), torch.tensor(0.5, dtype=torch.float64), rtol=0.02, atol=0
    )


@pytest.mark.parametrize(
    "arguments", [{"terms": 0}, {"amplitude": -1.0}, {"wave_numbers": (3, 1)}, {"wave_numbers": (1,)}, {"rms": 0.0}]
)
def test_bad_arguments(arguments):
    with pytest.raises(SchemaError):
        SineSeries(**arguments)


def test_grid_too_coarse_for_the_series():
    family = SineSeries(wave_numbers=(1, 8))
    with pytest.raises(SchemaError, match="wave numbers up to 8"):
        fourier_series(family.draw(random_stream(0, "a", 0, "physics"))[None], 16)


@pytest.mark.parametrize("name", FAMILIES)
def test_fields_are_made_where_the_draws_are(name, monkeypatch):
    """On a device without memory: an operation that mixes it with the processor's tensors is refused."""
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: True)  # it has no values to look at
    family = FAMILIES[name]()
    draws = torch.stack([family.draw(random_stream(0, "a", k, "physics")) for k in range(3)])
    lengths = torch.ones(3, family.dimensions, dtype=torch.float64, device="meta")
    fields = family.fields(draws.to("meta"), (64,) * family.dimensions, lengths)
    assert fields.device.type == "meta" and fields.dtype == torch.float64


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_are_fields_that_depend_on_the_seed_and_their_number(name):
    family = FAMILIES[name]()
    points = 64 if family.dimensions == 1 else 80
    three, five = (family.sample(n, points=points, length=2.0, seed=4) for n in (3, 5))
    assert three.dtype == torch.float64 and torch.isfinite(three).all()
    assert three.shape[0] == 3 and three.shape[2:] == (points,) * family.dimensions
    # More fields leave the first as they were, up to the rounding of a larger batch.
    torch.testing.assert_close(five[:3], three, rtol=1e-9, atol=1e-12)
    same = name == "taylor_green"  # one field, whatever is drawn
    assert all(torch.equal(five[0], field) == same for field in five[1:])
    assert torch.equal(family.sample(3, points=points, length=2.0, seed=5), three) == same


def test_a_sample_is_what_the_stream_of_its_number_draws_on_any_grid():
    family = SineSeries()
    fields = family.sample(2, points=32, length=3.0, seed=1)
    draw = family.draw(random_stream(1, "sample", 1, "physics"))[None]
    assert torch.equal(family.fields(draw, [32], torch.tensor([[3.0]], dtype=torch.float64))[0], fields[1])
    torch.testing.assert_close(family.sample(2, points=64, length=3.0, seed=1)[..., ::2], fields)
    with pytest.raises(SchemaError, match=r"SineSeries.sample got points \[8, 8\].*expected one number each, or 1"):
        family.sample(1, points=[8, 8])
    with pytest.raises(SchemaError, match="n 0, points 32, .*expected n and points >= 1"):
        family.sample(0, points=32)
    with pytest.raises(SchemaError, match="wave numbers up to 3; 8 points keep"):
        family.sample(1, points=8)


def test_harmonics_reach_their_peak_with_every_wave():
    family = Harmonics(highest=4, peak=1.5)
    draws = torch.stack([family.draw(random_stream(0, "a", k, "physics")) for k in range(50)])
    fields = family.fields(draws, (512,), torch.ones(50, 1))
    torch.testing.assert_close(fields.abs().amax(dim=(1, 2)), torch.full((50,), 1.5).double(), rtol=3e-3, atol=0)
    power = torch.fft.rfft(fields[:, 0]).abs() / 256
    assert power[:, 0].max() < 1e-12 > power[:, 5:].max()
    assert power[:, 1:5].min() > 0
    assert (power[:, 1:5].std(dim=0) > 0.1).all()
    with pytest.raises(SchemaError, match="highest 0, peak 1.0; expected >= 1 and > 0"):
        Harmonics(highest=0)
