"""Surrogates that speak xarray: rollouts, what is refused, and the folder they are saved as."""

import math

import numpy as np
import pytest
import torch

import pdessl
from pdessl.errors import CheckpointError, DataError, FormatError
from pdessl.inference.conditions import Components, Condition
from pdessl.inference.surrogates import SurrogateModel
from pdessl.models import FNO, ConvEncoder, Encoder, Surrogate, UNet
from pdessl.trajectory import Trajectories


def runs(count=6, frames=12, points=16, axes=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.arange(points).double() * 2 * math.pi / points
    phase = torch.rand(count, 1, 1, generator=generator).double() * 6
    t = torch.arange(frames).double() * 0.1
    u = torch.sin(x + phase - t[None, :, None])[:, None]
    if axes == 2:
        u = u[..., None] * torch.cos(x)
    return Trajectories(
        fields=u.float(),
        time=(2.0 + t).expand(count, -1),
        space=(x.expand(count, -1),) * axes,
        lengths=torch.full((count, axes), 2 * math.pi).double(),
        parameters={"viscosity": torch.linspace(0.1, 0.5, count).double()},
        axis_names=("x", "y")[:axes],
        boundary=("periodic",) * axes,
        index=torch.arange(count) + 10,
        equation="heat",
    )


def model(kind="none", network=UNet, axes=1, **settings):
    torch.manual_seed(0)
    held = runs(axes=axes)
    condition = {
        "none": lambda: Condition(),
        "parameter": lambda: Condition("parameter", ("viscosity",)),
        "representation": lambda: Condition(
            "representation", encoder=Encoder(ConvEncoder(width=4, blocks=(1,)), [0.0], [1.0]).eval()
        ),
    }[kind]()
    if kind == "representation":
        width = condition.encoder.feature_dim
        components = Components(torch.zeros(width).double(), torch.eye(width, 2).double())
        condition = Condition("representation", encoder=condition.encoder, components=components)
    vectors = condition.of(held.window(slice(0, 5)))
    surrogate = Surrogate(network(past=2, width=4, condition=0 if vectors is None else vectors.shape[1],
                                  periodic=(True,) * axes, **settings))  # fmt: skip
    surrogate.set_statistics(held.fields, vectors)
    with torch.no_grad():
        for p in surrogate.network.parameters():
            if not p.any():
                p.add_(0.05)
    return SurrogateModel.of(surrogate.eval(), condition, 5, held, {"training runs": 6})


@pytest.mark.parametrize("axes", [1, 2])
def test_a_rollout_has_the_coordinates_that_follow(axes):
    ds = runs(axes=axes).to_xarray()
    ds.u.attrs["units"] = "m/s"
    found = model(axes=axes).rollout(ds, 4)
    assert dict(found.sizes) == {"trajectory": 6, "time": 4, "x": 16} | ({"y": 16} if axes == 2 else {})
    np.testing.assert_allclose(found.time, 2.0 + 0.1 * np.arange(12, 16))
    np.testing.assert_array_equal(found.trajectory, ds.trajectory)
    np.testing.assert_array_equal(found.x, ds.x)
    assert found.u.attrs["units"] == "m/s"
    one = model(axes=axes).rollout(ds.isel(trajectory=2), 4)
    assert "trajectory" not in one.dims
    np.testing.assert_allclose(one.u, found.u[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "parameter", "representation"])
def test_a_rollout_reads_the_context_alone_and_equals_repeated_steps(kind):
    held, stepper = runs(), model(kind)
    ds = held.to_xarray()
    found = stepper.rollout(ds, 3)
    early = ds.copy(deep=True)
    early.u[:, :7] = 9.0
    np.testing.assert_array_equal(stepper.rollout(early, 3).u, found.u)
    context = held.window(slice(7, None))
    condition, frames = stepper.condition.of(context), held.fields[:, :, -2:]
    for step in range(3):
        new = stepper.surrogate(frames, condition)
        np.testing.assert_allclose(found.u[:, step], new[:, 0, 0].detach(), rtol=1e-5, atol=1e-6)
        frames = torch.cat([frames, new], dim=2)[:, :, -2:].detach()


def test_conditions_are_read_anew_along_the_rollout():
    held, stepper = runs(), model("representation")
    plain, anew = (stepper.rollout(held, 6, recompute=r) for r in (None, 2))
    np.testing.assert_array_equal(plain.u[:, :2], anew.u[:, :2])
    assert not np.allclose(plain.u[:, 2:], anew.u[:, 2:])
    np.testing.assert_array_equal(stepper.rollout(held, 6, recompute=6).u, plain.u)


@pytest.mark.parametrize(
    ("kind", "network", "settings"),
    [("none", UNet, {}), ("parameter", FNO, {"modes": 4}), ("representation", UNet, {"bundle": 2})],
)
def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path, kind, network, settings):
    stepper, ds = model(kind, network, **settings), runs(seed=1).to_xarray()
    folder = stepper.save(tmp_path / "model")
    loaded = pdessl.load(folder)
    np.testing.assert_array_equal(loaded.rollout(ds, 5).u, stepper.rollout(ds, 5).u)
    card = (folder / "card.md").read_text()
    assert "at least 5 frames" in card
    assert "training runs: 6" in card
    (folder / "surrogate.safetensors").write_bytes(b"0" * 40)
    with pytest.raises(CheckpointError, match="changed after it was written.*train again"):
        pdessl.load(folder)


def test_parameters_may_be_given_and_are_asked_for():
    ds, stepper = runs().to_xarray(), model("parameter")
    found = stepper.rollout(ds, 2)
    bare = ds.drop_vars("viscosity")
    with pytest.raises(DataError, match=r"conditioned on 'viscosity'.*parameters=\{'viscosity': \.\.\.\}"):
        stepper.rollout(bare, 2)
    given = stepper.rollout(bare, 2, parameters={"viscosity": ds.viscosity.values})
    np.testing.assert_array_equal(given.u, found.u)
    assert not np.allclose(stepper.rollout(bare, 2, parameters={"viscosity": 0.3}).u, found.u)


def test_bad_input_is_refused_with_the_repair():
    ds, stepper = runs().to_xarray(), model()
    with pytest.raises(FormatError, match="4 frames; a rollout reads the last 5.*Give a longer run"):
        stepper.rollout(ds.isel(time=slice(4)), 2)
    with pytest.raises(FormatError, match=r"step of 0.785\d* along 'x'.*ds\.interp\(x="):
        stepper.rollout(ds.isel(x=slice(None, None, 2)), 2)
    with pytest.raises(FormatError, match=r"step of 0.2 along 'time'.*trained on 0.1"):
        stepper.rollout(ds.isel(time=slice(None, None, 2)), 2)
    with pytest.raises(FormatError, match="no field 'u' in the data.*Rename it"):
        stepper.rollout(ds.rename(u="w"), 2)
    with pytest.raises(FormatError, match="has dimensions.*Rename them"):
        stepper.rollout(ds.rename(x="s"), 2)
    broken = ds.copy(deep=True)
    broken.u[1, 3, 2] = np.nan
    with pytest.raises(DataError, match="not finite in 1 of 6 trajectories.*Remove or repair"):
        stepper.rollout(broken, 2)
    with pytest.raises(ValueError, match="steps 0"):
        stepper.rollout(ds, 0)
    fine = runs(points=32).to_xarray()
    assert model(network=FNO, modes=4).rollout(fine, 2).u.shape[-1] == 32
