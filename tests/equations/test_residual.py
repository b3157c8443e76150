"""Residuals of exact solutions vanish to the accuracy of the differences; a wrong parameter shows with its size."""

import math

import pytest
import torch

from pdessl.equations import Equation, load_equation
from pdessl.equations.residual import difference_weights, residual
from pdessl.errors import DataError, ShapeError
from pdessl.trajectory import Trajectories


def wave(frames=41, points=32, batch=3, parameters=None, boundary="periodic", length=2 * math.pi):
    """u = exp(-nu t) sin(x - c t), an exact solution of advection and diffusion on [0, 2 pi)."""
    nu = torch.linspace(0.1, 0.3, batch, dtype=torch.float64)
    c = torch.linspace(-0.5, 0.5, batch, dtype=torch.float64)
    t = torch.linspace(0, 1, frames, dtype=torch.float64).expand(batch, frames)
    x = (torch.arange(points, dtype=torch.float64) * length / points).expand(batch, points)
    phase = x[:, None, :] - (c[:, None] * t)[:, :, None]
    u = torch.exp(-nu[:, None] * t)[:, :, None] * torch.sin(phase)
    return Trajectories(
        fields=u[:, None],
        time=t,
        space=(x,),
        lengths=torch.full((batch, 1), length, dtype=torch.float64),
        parameters={"diffusivity": nu, "advection_velocity": c} if parameters is None else parameters,
        boundary=(boundary,),
    )


def test_an_exact_solution_has_no_residual():
    (r,) = load_equation("advection_diffusion").residual(wave())
    assert r.shape == (3, 41, 32)
    assert r.abs().max() < 1e-9


def test_the_order_in_time_is_six():
    equation = load_equation("advection_diffusion")
    errors = [residual(equation, wave(frames=n))[0].abs().max().item() for n in (9, 17)]
    assert math.log2(errors[0] / errors[1]) > 5.5, errors


def test_a_wrong_parameter_shows_with_its_size():
    data = wave()
    nu = data.parameters["diffusivity"]
    wrong = data.replace(parameters={**data.parameters, "diffusivity": nu + 0.1})
    (r,) = residual(load_equation("advection_diffusion"), wrong)
    expected = 0.1 * data.fields[:, 0]  # u_t + c u_x - (nu + 0.1) u_xx, with u_xx = -u
    torch.testing.assert_close(r, expected, atol=1e-8, rtol=0)


def test_windows_use_finite_differences_of_any_spacing():
    data = wave(points=200)
    (r,) = residual(load_equation("advection_diffusion"), data.replace(boundary=("window",)))
    assert r.abs().max() < 1e-6


def test_coordinates_and_products_in_the_text():
    equation = Equation.parse("u_t + u*u_x - x*t*u_xx")
    data = wave()
    (r,) = residual(equation, data)
    u = data.fields[:, 0]
    x, t = data.space[0][:, None, :], data.time[:, :, None]
    u_t = residual(Equation.parse("u_t", independent="tx"), data)[0]
    u_x = residual(Equation.parse("u_x"), data)[0]
    torch.testing.assert_close(r, u_t + u * u_x + x * t * u)


def test_weights_are_exact_for_polynomials_on_uneven_nodes():
    generator = torch.Generator().manual_seed(0)
    nodes = torch.rand(5, 7, generator=generator, dtype=torch.float64).cumsum(-1) * 10
    at = nodes[:, 2]
    for order, expected in ((0, at**6), (1, 6 * at**5), (2, 30 * at**4), (3, 120 * at**3)):
        w = difference_weights(nodes, at, order)
        torch.testing.assert_close((w * nodes**6).sum(-1), expected, rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_named():
    equation = load_equation("advection_diffusion")
    with pytest.raises(DataError, match="needs the parameter 'advection_velocity'"):
        residual(equation, wave(parameters={}))
    with pytest.raises(ShapeError, match="at least 7 nodes, found 5"):
        residual(equation, wave(frames=5))
    with pytest.raises(ShapeError, match="lives on the axes x, y"):
        residual(load_equation("advection_diffusion_2d"), wave())
    with pytest.raises(ShapeError, match="needs the field 'w'"):
        residual(load_equation("potential_burgers"), wave())
