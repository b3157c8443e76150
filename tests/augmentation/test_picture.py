"""Pictures of a trajectory under each generator: nodes and values move by the closed flow."""

import numpy as np
import pytest
import torch

import pdessl
from pdessl.augmentation.picture import DISPLACEMENT, draw, move, visible_strength
from pdessl.errors import DataError
from pdessl.trajectory import Trajectories


def trajectory(names, d, seed=0):
    x = torch.linspace(0, 1, 17, dtype=torch.float64)[:-1]
    shape = (1, len(names), 5, *[16] * d)
    return Trajectories(
        fields=torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)),
        time=torch.linspace(0, 2, 5, dtype=torch.float64)[None],
        space=(x[None],) * d,
        lengths=torch.ones(1, d, dtype=torch.float64),
        parameters={"viscosity": torch.full((1,), 0.1, dtype=torch.float64)},
        field_names=names,
        axis_names=("x", "y", "z")[:d],
        boundary=("periodic",) * d,
    )


def values():
    t, x = torch.meshgrid(torch.linspace(-1, 1, 5), torch.linspace(-0.5, 0.5, 9), indexing="ij")
    t, x = t.double(), x.double()
    return {"t": t, "x": x, "u": torch.sin(t + 3 * x), "nu": torch.full_like(t, 0.1)}


def test_nodes_and_values_move_by_the_flow():
    start = values()
    moved = move(pdessl.symmetries("burgers")["galilean_boost"].flow, start, 0.3)
    assert torch.allclose(moved["x"], start["x"] + 0.3 * start["t"]) and torch.allclose(moved["u"], start["u"] + 0.3)
    assert torch.equal(moved["t"], start["t"]) and torch.equal(moved["nu"], start["nu"])
    # flows outside the slice-affine class are drawn too
    heat = move(pdessl.symmetries("heat")["galilean_boost"].flow, start, 0.3)
    expected = start["u"] * torch.exp(-0.3 * start["x"] - 0.09 * 0.1 * start["t"])
    assert torch.allclose(heat["u"], expected)


@pytest.mark.parametrize("name", ["galilean_boost", "scaling", "projective", "viscosity_scaling", "time_translation"])
def test_something_moves_by_a_quarter_and_time_goes_on(name):
    flow = pdessl.symmetries("burgers")[name].flow
    start = values()
    moved = move(flow, start, visible_strength(flow, start))
    shifts = [
        float((moved[n] - start[n]).abs().max() / (start[n].max() - start[n].min() if n != "nu" else start[n].max()))
        for n in start
    ]
    assert max(shifts) == pytest.approx(DISPLACEMENT, rel=1e-3)
    assert (moved["t"].diff(dim=0) > 0).all()


def test_two_dimensions_with_arrows(tmp_path):
    strengths = draw(pdessl.symmetries("navier_stokes_2d"), trajectory(("u", "v"), 2), tmp_path / "ns.svg")
    assert (tmp_path / "ns.svg").read_text().startswith("<?xml")
    assert {"rotation", "galilean_boost_x", "scaling", "viscosity_scaling"} <= set(strengths)
    assert [p.name for p in tmp_path.iterdir()] == ["ns.svg"]
    # a pressure that the data do not hold neither has a panel nor limits a strength
    assert not {"pressure_shift", "pressure_ramp", "pressure_parabola"} & set(strengths)
    assert strengths["acceleration_x"] > 0.01


def test_a_flow_that_needs_an_absent_field_has_no_panel(tmp_path):
    velocity = trajectory(("u", "v"), 2)
    strengths = draw(pdessl.symmetries("burgers_2d"), velocity, tmp_path / "both.png")
    assert {"rotation", "scaling"} <= set(strengths)
    strengths = draw(pdessl.symmetries("burgers_2d"), velocity.replace(fields=velocity.fields[:, :1],
                     field_names=("u",)), tmp_path / "one.png")  # fmt: skip
    assert "scaling" in strengths and "rotation" not in strengths


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(DataError, match="has 1 space axes and the trajectory 2"):
        draw(pdessl.symmetries("burgers"), trajectory(("u", "v"), 2), tmp_path / "a.png")
    with pytest.raises(DataError, match="holds w, the equation has the fields u"):
        draw(pdessl.symmetries("burgers"), trajectory(("w",), 1), tmp_path / "a.png")
    with pytest.raises(DataError, match="one or two"):
        draw(pdessl.symmetries("navier_stokes_3d"), trajectory(("u", "v", "w"), 3), tmp_path / "a.png")
