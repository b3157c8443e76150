"""LieAugmentation on exact Burgers solutions: the equation still holds, labels move, nothing is read outside."""

import contextlib
import math

import pytest
import torch

import pdessl
from pdessl import catalog
from pdessl.augmentation.filters import filter_axes
from pdessl.augmentation.lie import LieAugmentation
from pdessl.errors import ShapeError, SymmetryError
from pdessl.trajectory import Trajectories

F64 = {"dtype": torch.float64}
EXACT = ["time_translation", "space_translation", "galilean_boost", "scaling"]
STRENGTHS = {"time_translation": 0.5, "space_translation": 0.5, "galilean_boost": 0.05, "scaling": 0.2}


@pytest.fixture(scope="module")
def algebra():
    return pdessl.symmetries("burgers")


def cole_hopf(nu, time, x, seed=0):
    """Exact u = -2 nu phi_x / phi at times (B, T) and nodes (B, X), phi > 0 a solution of the heat equation."""
    g = torch.Generator().manual_seed(seed)
    b = nu.shape[0]
    amplitude, angle = 0.25 * torch.rand(b, 3, 1, 1, generator=g, **F64), 6 * torch.rand(b, 3, 1, 1, generator=g, **F64)
    k = torch.arange(1, 4, **F64).reshape(1, 3, 1, 1)
    decay = amplitude * torch.exp(-nu.reshape(-1, 1, 1, 1) * k**2 * time[:, None, :, None])
    phase = k * x[:, None, None, :] + angle
    phi = 1 + (decay * torch.cos(phase)).sum(1)
    return -2 * nu.reshape(-1, 1, 1) * (-(decay * k * torch.sin(phase)).sum(1)) / phi


def batch(b=3, frames=14, points=128, labelled=True, dtype=torch.float64, boundary="periodic", width=2 * math.pi):
    nu = torch.linspace(0.2, 0.5, b, **F64)
    # Chebyshev times: differentiation in time is then spectrally accurate.
    time = (0.5 - 0.5 * torch.cos(math.pi * torch.arange(frames, **F64) / (frames - 1))).expand(b, frames) * 0.3
    x = torch.arange(points, **F64).expand(b, points) * width / points
    return Trajectories(
        fields=cole_hopf(nu, time, x)[:, None].to(dtype),
        time=time.contiguous(),
        space=(x.contiguous(),),
        lengths=torch.full((b, 1), width, **F64),
        parameters={"viscosity": nu} if labelled else {},
        boundary=(boundary,),
        equation="burgers",
    )


def differentiate(nodes, values):
    """Derivative along the last axis at arbitrary nodes (N,), by the barycentric differentiation matrix."""
    difference = nodes[:, None] - nodes[None] + torch.eye(len(nodes), **F64)
    weight = 1 / difference.prod(dim=1)
    matrix = (weight[None] / weight[:, None]) / difference
    matrix.fill_diagonal_(0)
    matrix -= torch.diag(matrix.sum(dim=1))
    return values @ matrix.T


def residual(view, nu, edge=0):
    """Largest |u_t + u u_x - nu u_xx| / |u_t| per trajectory."""
    worst = []
    for i in range(len(view)):
        u, x = view.fields[i, 0], view.space[0][i]
        u_t = differentiate(view.time[i], u.T).T
        if view.boundary == ("periodic",):
            n = len(x)
            k = 2j * math.pi * torch.fft.rfftfreq(n, 1 / n, **F64) / view.lengths[i, 0]
            u_hat = torch.fft.rfft(u)
            u_x, u_xx = torch.fft.irfft(k * u_hat, n), torch.fft.irfft(k**2 * u_hat, n)
        else:  # eighth-order differences; the ends are dropped
            h = x[1] - x[0]
            first = torch.tensor([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280], **F64)
            half = [-1 / 560, 8 / 315, -1 / 5, 8 / 5]
            second = torch.tensor([*half, -205 / 72, *half[::-1]], **F64)
            windows = u.unfold(1, 9, 1)
            u_x, u_xx = windows @ first / h, windows @ second / h**2
            u, u_t = u[:, 4:-4], u_t[:, 4:-4]
        error = (u_t + u * u_x - nu[i] * u_xx)[:, edge : u.shape[1] - edge]
        worst.append(float(error.abs().max() / u_t.abs().max()))
    return torch.tensor(worst)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", EXACT)
def test_residual_of_the_equation_is_unchanged(algebra, name):
    data = batch(frames=22)
    before = residual(data, data.parameters["viscosity"])
    view, elements = LieAugmentation(algebra, {name: STRENGTHS[name]})(data, generator())
    after = residual(view, data.parameters["viscosity"])
    assert elements.strengths[name].abs().min() > 1e-3
    assert before.max() < 1e-8
    assert after.max() < 1e-8
    assert view.boundary == ("periodic",)


def test_residual_after_the_whole_product_on_windows(algebra):
    data = batch(points=256)
    nu = data.parameters["viscosity"]
    augment = LieAugmentation(algebra, {**STRENGTHS, "projective": 0.3}, window=(14, 160))
    view, _ = augment(data, generator())
    assert view.fields.shape == (3, 1, 14, 160)
    assert view.boundary == ("window",)
    assert torch.allclose(view.grid_spacing, data.grid_spacing, rtol=1e-12)
    assert residual(view, nu).max() < 2e-5


def test_boost_without_the_change_of_velocity_fails(algebra):
    """Negative control of the residual test: shift the frames, but forget u + ε."""
    data = batch()
    view, elements = LieAugmentation(algebra, {"galilean_boost": 0.3})(data, generator())
    wrong = view.replace(fields=view.fields - elements.strengths["galilean_boost"].reshape(-1, 1, 1, 1))
    assert residual(wrong, data.parameters["viscosity"]).min() > 0.05


def test_viscosity_moves_exactly_and_must_be_moved(algebra):
    data = batch()
    augment = LieAugmentation(algebra, {"viscosity_scaling": 0.5}, moves=("viscosity",))
    view, elements = augment(data, generator())
    shift = 2 * elements.strengths["viscosity_scaling"]
    assert torch.allclose(elements.log_parameter_shift["viscosity"], shift, rtol=1e-12)
    assert torch.allclose(view.parameters["viscosity"], data.parameters["viscosity"] * shift.exp(), rtol=1e-12)
    assert torch.allclose(view.lengths, data.lengths * (shift[:, None] / 2).exp(), rtol=1e-12)
    assert residual(view, view.parameters["viscosity"]).max() < 1e-8
    assert residual(view, data.parameters["viscosity"]).min() > 0.02


def test_motion_of_the_label_is_known_without_the_label(algebra):
    view, elements = LieAugmentation(algebra, {"viscosity_scaling": 0.5, "scaling": 0.1}, moves="viscosity")(
        batch(labelled=False), generator()
    )
    assert view.parameters == {}
    shift = 2 * elements.strengths["viscosity_scaling"]
    assert torch.allclose(elements.log_parameter_shift["viscosity"], shift, rtol=1e-12)
    _, still = LieAugmentation(algebra, {"scaling": 0.1})(batch(labelled=False), generator())
    assert torch.equal(still.log_parameter_shift["viscosity"], torch.zeros(3, **F64))


def test_generators_that_move_parameters_are_refused(algebra):
    with pytest.raises(SymmetryError, match=r"moves viscosity.*moves=\('viscosity',\)"):
        LieAugmentation(algebra, {"viscosity_scaling": 0.1})
    assert "viscosity_scaling" not in [f.name for f in LieAugmentation(algebra).factors]
    assert "viscosity_scaling" in [f.name for f in LieAugmentation(algebra, moves=("viscosity",)).factors]


@pytest.mark.parametrize("mode", ["grid", "coords", "metadata"])
def test_zero_strengths_are_the_identity(algebra, mode):
    data = batch()
    names = ["scaling"] if mode == "metadata" else [*EXACT, "projective"]
    augment = LieAugmentation(algebra, dict.fromkeys(names, 0.1), mode=mode)
    view, elements = augment.transform(data, {})
    assert torch.allclose(view.fields[:, :1], data.fields, atol=1e-12)
    assert torch.allclose(view.time, data.time, atol=1e-14)
    assert torch.allclose(view.space[0], data.space[0], atol=1e-13)
    assert elements.coordinates().shape == (3, len(names))


def test_shift_by_whole_cells_is_a_roll(algebra):
    data = batch(dtype=torch.float32)
    spacing = data.grid_spacing[:, 0]
    view, _ = LieAugmentation(algebra, {"space_translation": 0.5}).transform(data, {"space_translation": 5 * spacing})
    assert torch.allclose(view.fields, data.fields.roll(5, dims=-1), atol=1e-6)
    assert view.fields.dtype == torch.float32


def test_each_trajectory_is_transformed_on_its_own(algebra):
    data = batch()
    augment = LieAugmentation(algebra, {**STRENGTHS, "projective": 0.3}, window=(9, 80), reflections=True)
    whole, elements = augment(data, generator())
    for i in range(len(data)):
        alone, _ = augment.transform(
            data[i],
            {n: s[i : i + 1] for n, s in elements.strengths.items()},
            elements.start[i : i + 1],
            {n: f[i : i + 1] for n, f in elements.reflected.items()},
        )
        assert torch.allclose(alone.fields, whole.fields[i : i + 1], atol=1e-12)
        assert torch.allclose(alone.space[0], whole.space[0][i : i + 1], atol=1e-12)


def test_draws_are_reproducible_and_fill_their_range(algebra):
    data = batch(b=3)
    data = Trajectories.concatenate([data] * 100)
    augment = LieAugmentation(algebra, {"scaling": 0.2, "galilean_boost": 0.3}, window=(5, 30))
    first, one = augment(data, generator(4))
    second, two = augment(data, generator(4))
    assert torch.equal(first.fields, second.fields)
    assert torch.equal(one.start, two.start)
    assert not torch.equal(augment(data, generator(5))[1].start, one.start)
    drawn = one.strengths["scaling"]
    assert drawn.abs().max() <= 0.2
    assert drawn.max() > 0.19 and drawn.min() < -0.19
    assert one.start[:, 0].min() == 0 and one.start[:, 0].max() == 14 - 5
    assert one.start[:, 1].min() < 5 and one.start[:, 1].max() > 122
    displacement = (one.strengths["galilean_boost"][:, None] * one.map.time).abs().amax(dim=1)
    limit = 0.3 * 30 * 2 * math.pi / 128
    assert 0.98 * limit < displacement.max() <= limit * (1 + 1e-9)


def test_windows_on_a_periodic_axis_wrap(algebra):
    data = batch()
    augment = LieAugmentation(algebra, {"space_translation": 0.1}, window=(14, 40))
    start = torch.tensor([[0, 120]] * 3)
    view, _ = augment.transform(data, {}, start)
    assert torch.allclose(view.fields, data.fields.roll(-120, dims=-1)[..., :40], atol=1e-12)
    assert torch.allclose(view.space[0][:, 0], data.space[0][:, 120])


@pytest.mark.parametrize(
    "time, frames, low, high",
    [
        ("random", 5, 0, 9),
        ("early", 5, 0, 2),
        ("late", 5, 7, 9),
        ("early", 9, 0, 0),
        ("late", 9, 5, 5),
        ("early", 14, 0, 0),
    ],
)
def test_a_window_lies_in_the_half_of_the_frames_that_is_asked_for(algebra, time, frames, low, high):
    data = Trajectories.concatenate([batch()] * 40)
    view, elements = LieAugmentation(algebra, {}, window=(frames, 40), time=time)(data, generator())
    assert (elements.start[:, 0].min(), elements.start[:, 0].max()) == (low, high)
    assert torch.allclose(view.time[:, 0], data.time.gather(1, elements.start[:, :1])[:, 0], atol=1e-12)


def test_nothing_is_read_outside_a_window(algebra):
    """What the views read, computed from the group elements, lies inside the data, and is the solution there."""
    data = batch(points=128, boundary="window")
    data = Trajectories.concatenate([data] * 40)
    strengths = {"space_translation": 0.5, "galilean_boost": 0.5, "scaling": 0.3, "projective": 0.4}
    augment = LieAugmentation(algebra, strengths, window=(10, 60))
    view, elements = augment(data, generator())
    inverse = 1 / elements.map.s[..., 0, 0]
    middle = elements.centre[:, 1:]
    target = view.space[0] - middle
    read = middle[:, :, None] + (target[:, None] - elements.map.r) * inverse[..., None]
    first, last = data.space[0][:, 0], data.space[0][:, -1]
    assert (read.amin(dim=(1, 2)) >= first - 1e-9).all()
    assert (read.amax(dim=(1, 2)) <= last + 1e-9).all()
    assert (elements.relative["scaling"].abs() > 1e-6).float().mean() > 0.9
    assert len(set(elements.start[:, 1].tolist())) > 10
    # and what is read is the solution: M u + b0 + b1 x at these places
    times = data.time.gather(1, elements.start[:, :1] + torch.arange(10))
    nu, g = data.parameters["viscosity"], elements.map
    for i in range(3):
        for k in range(10):
            u = cole_hopf(nu[:3], times[i, k].expand(3, 1), read[i, k].expand(3, -1))[i, 0]
            j = {n: min(k, getattr(g, n).shape[1] - 1) for n in ("m", "b0", "b1")}
            exact = g.m[i, j["m"], 0, 0] * u + g.b0[i, j["b0"], 0]
            exact = exact + g.b1[i, j["b1"], 0, 0] * (read[i, k] - middle[i])
            assert (view.fields[i, 0, k] - exact).abs().max() < 1e-4  # the low-pass is felt at the ends


@pytest.mark.parametrize(("name", "strength"), [("galilean_boost", 0.2), ("scaling", 0.1)])
def test_the_equation_holds_up_to_the_ends_of_the_data(algebra, name, strength):
    """A window of an exact solution, read to its first node: one-sided differences see the equation satisfied."""
    data = batch(b=1, frames=22, points=96, boundary="window", width=2.5)
    augment = LieAugmentation(algebra, {name: 1.0}, window=(22, 84))
    ends = []
    for start in range(13):
        with contextlib.suppress(SymmetryError):
            ends.append(augment.transform(data, {name: torch.tensor([strength], **F64)}, torch.tensor([[0, start]]))[0])
    for view in (ends[0], ends[-1]):
        u, x = view.fields[0, 0], view.space[0][0]
        u_t = differentiate(view.time[0], u.T).T
        worst = 0.0
        for side in (slice(0, 11), slice(-11, None)):  # polynomials of degree 10 at each end
            near = u[:, side]
            u_x = differentiate(x[side], near)
            u_xx = differentiate(x[side], u_x)
            error = u_t[:, side] + near * u_x - data.parameters["viscosity"] * u_xx
            worst = max(worst, float(error.abs().max() / u_t.abs().max()))
        assert worst < 1e-4  # of order 1 with a mirror in place of the end condition


def test_whole_bounded_axis_leaves_no_room(algebra):
    data = batch(boundary="window")
    view, elements = LieAugmentation(algebra, {"galilean_boost": 0.3})(data, generator())
    assert torch.equal(elements.strengths["galilean_boost"], torch.zeros(3, **F64))
    assert torch.allclose(view.fields, data.fields, atol=1e-12)
    with pytest.raises(SymmetryError, match="outside the data along 'x'"):
        LieAugmentation(algebra, {"galilean_boost": 0.3}).transform(data, {"galilean_boost": torch.ones(3)})


def test_whole_axis_under_scaling_keeps_its_nodes_and_its_period(algebra):
    data = batch()
    view, elements = LieAugmentation(algebra, {"scaling": 0.2})(data, generator())
    factor = elements.strengths["scaling"].exp()
    assert view.boundary == ("periodic",)
    assert torch.allclose(view.fields, data.fields / factor.reshape(-1, 1, 1, 1), rtol=1e-14)
    assert torch.allclose(view.lengths[:, 0], 2 * math.pi * factor)
    assert torch.allclose(view.grid_spacing[:, 0], data.grid_spacing[:, 0] * factor)
    assert torch.allclose(view.time_step, data.time_step * factor**2)


def test_metadata_and_coords_agree_with_the_closed_forms(algebra):
    data = batch()
    one = torch.full((3,), 0.1, **F64)
    view, elements = LieAugmentation(algebra, {"scaling": 0.2, "space_translation": 0.2}, mode="metadata").transform(
        data, {"scaling": one, "space_translation": one}
    )
    middle = elements.centre[:, 1:]
    expected = middle + math.exp(0.1) * (data.space[0] - middle + 0.1)
    assert torch.allclose(view.space[0], expected)
    assert torch.equal(view.fields, data.fields * math.exp(-0.1))
    with pytest.raises(SymmetryError, match="'metadata' cannot express 'galilean_boost'"):
        LieAugmentation(algebra, {"galilean_boost": 0.2}, mode="metadata")(data)
    augment = LieAugmentation(algebra, {"galilean_boost": 0.2}, mode="coords")
    view, elements = augment.transform(data, {"galilean_boost": one})
    assert view.field_names == ("u", "t", "x")
    shifted = data.space[0][:, None] + 0.1 * (data.time - elements.centre[:, :1])[..., None]
    assert torch.allclose(view.fields[:, 2], shifted)
    assert torch.allclose(view.fields[:, 0], data.fields[:, 0] + 0.1)


@pytest.mark.parametrize("names", [("rotation",), ("rotation", "scaling"), ("scaling",)])
def test_coordinates_of_a_map_that_is_the_same_on_every_frame(names):
    data, _ = planar("window")
    augment = LieAugmentation("burgers_2d", dict.fromkeys(names, 0.2), mode="coords", window=(4, 20, 16))
    view, elements = augment(data, generator())
    g, middle = elements.map, elements.centre
    assert g.s.shape[1] == 1
    mesh = torch.stack(
        torch.broadcast_tensors(
            (view.space[0] - middle[:, 1:2])[:, :, None], (view.space[1] - middle[:, 2:3])[:, None]
        ),
        dim=-1,
    )
    expected = torch.einsum("bij,bxyj->bixy", g.s[:, 0], mesh) + middle[:, 1:, None, None]
    assert torch.allclose(view.fields[:, 3:], expected[:, :, None].expand(-1, -1, 4, -1, -1), atol=1e-12)
    times = middle[:, :1] + g.new_time
    assert torch.allclose(view.fields[:, 2], times[..., None, None].expand(-1, -1, 20, 16), atol=1e-12)


def test_an_axis_has_walls_as_long_as_its_conditions_hold():
    """Along no-slip walls nothing is boosted or shifted; scalings, turns of time and shifts of the axis keep them."""
    data, _ = planar("wall")
    cases = [("galilean_boost_x", "window"), ("scaling", "wall"), ("time_translation", "wall")]
    for name, kind in cases:
        view, _ = LieAugmentation("burgers_2d", {name: 0.1}, window=(5, 30, 48))(data, generator())
        assert view.boundary == ("window", kind), name
    view, _ = LieAugmentation("burgers_2d", {"space_translation_y": 0.1}, mode="metadata")(data, generator())
    assert view.boundary == ("wall", "wall")


def test_reflection_is_exact_and_keeps_the_equation(algebra):
    data = batch()
    augment = LieAugmentation(algebra, {}, reflections=True)
    view, elements = augment.transform(data, {}, reflected={"x,u": torch.tensor([True, False, True])})
    assert torch.equal(view.fields[0], -data.fields[0].flip(-1))
    assert torch.equal(view.fields[1], data.fields[1])
    assert residual(view, data.parameters["viscosity"]).max() < 1e-8
    flags = augment(Trajectories.concatenate([data] * 60), generator())[1].reflected["x,u"]
    assert 0.3 < flags.double().mean() < 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strengths": {"galilean_bost": 0.1}}, "Did you mean 'galilean_boost'"),
        ({"strengths": {"scaling": -0.1}}, ">= 0"),
        ({"strengths": {"scaling": float("nan")}}, "finite"),
        ({"strengths": {"projective": 2.0}}, "projective"),
        ({"mode": "gird"}, "Did you mean 'grid'"),
        ({"moves": ("viscosty",)}, "Did you mean 'viscosity'"),
        ({"spline_order": 4}, "only 3"),
        ({"time": "erly"}, "Did you mean 'early'"),
        ({"time": "choose"}, "for recipes of pdessl pretrain"),
    ],
)
def test_bad_arguments_are_refused(algebra, arguments, message):
    with pytest.raises(SymmetryError, match=message):
        LieAugmentation(algebra, **arguments)


def test_a_window_larger_than_the_data_is_refused(algebra):
    for window in ((15, 128), (14, 129), (14,), (0, 10)):
        with pytest.raises(ShapeError, match="does not fit"):
            LieAugmentation(algebra, window=window)(batch())


def planar(kind, points=48, frames=5):
    """Band-limited (u, v) on a square, as a function of (t, x, y) and sampled."""
    g = torch.Generator().manual_seed(0)
    wave = torch.tensor([[1, 0], [0, 2], [2, -1], [-3, 1]], **F64)
    amplitude, angle = torch.randn(2, 4, generator=g, **F64), torch.randn(2, 4, generator=g, **F64)

    def field(t, x, y):
        phase = wave[:, 0] * x[..., None] + wave[:, 1] * y[..., None] + 0.7 * t[..., None]
        return torch.stack([(amplitude[i] * torch.cos(phase + angle[i])).sum(-1) for i in range(2)], dim=1)

    time = torch.linspace(0, 1, frames, **F64).expand(2, -1)
    x = torch.arange(points, **F64).expand(2, -1) * 2 * math.pi / points
    mesh = [time[:, :, None, None], x[:, None, :, None], x[:, None, None, :]]
    shape = torch.broadcast_shapes(*[m.shape for m in mesh])
    data = Trajectories(
        fields=field(*[m.expand(shape) for m in mesh]),
        time=time,
        space=(x, x),
        lengths=torch.full((2, 2), 2 * math.pi, **F64),
        parameters={"viscosity": torch.full((2,), 0.1, **F64)},
        field_names=("u", "v"),
        axis_names=("x", "y"),
        boundary=(kind, kind),
        equation="burgers_2d",
    )
    return data, field


@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize(
    "strengths",
    [
        {"rotation": 0.4},
        {"galilean_boost_x": 0.2, "scaling": 0.2, "projective": 0.3},
        {"galilean_boost_x": 0.2, "rotation": 0.4, "scaling": 0.2},
        {"space_translation_x": 0.3, "galilean_boost_y": 0.2, "rotation": 0.5, "scaling": 0.2, "projective": 0.3},
    ],
)
def test_planar_views_equal_the_closed_form(strengths, order):
    """Invert the composed map at every node of the view, evaluate the field there, and transform it forward."""
    data, field = planar("periodic")
    augment = LieAugmentation("burgers_2d", strengths, window=(4, 30, 24), spline_order=order)
    view, elements = augment(data, generator())
    g, middle = elements.map, elements.centre
    x, y = (view.space[i] - middle[:, 1 + i : 2 + i] for i in range(2))
    mesh = torch.stack(torch.broadcast_tensors(x[:, :, None], y[:, None, :]), dim=-1).reshape(2, 1, -1, 2)
    source = torch.einsum("btij,btkj->btki", torch.linalg.inv(g.s).expand(2, 4, 2, 2), mesh - g.r[:, :, None])
    time = (middle[:, :1] + g.time)[..., None].expand(source.shape[:3])
    value = field(time, source[..., 0] + middle[:, 1, None, None], source[..., 1] + middle[:, 2, None, None])
    forward = g.apply(source, value.movedim(1, -1))
    assert torch.allclose(forward[0], mesh.expand_as(forward[0]), atol=1e-12)
    error = forward[1].movedim(-1, 1).reshape(view.fields.shape) - view.fields
    assert error.norm() / view.fields.norm() < (2e-3 if order == 3 else 1e-4)


def test_planar_boosts_on_a_periodic_square_are_exact():
    data, field = planar("periodic")
    augment = LieAugmentation("burgers_2d", {"galilean_boost_x": 0.2, "space_translation_y": 0.4})
    view, elements = augment(data, generator())
    r = elements.map.r[..., None, None]
    mesh = torch.broadcast_tensors(
        data.time[:, :, None, None],
        data.space[0][:, None, :, None] - r[:, :, 0],
        data.space[1][:, None, None] - r[:, :, 1],
    )
    exact = field(*mesh)
    exact[:, 0] += elements.strengths["galilean_boost_x"].reshape(-1, 1, 1, 1)
    assert view.boundary == ("periodic", "periodic")
    assert torch.allclose(view.fields, exact, atol=1e-12)


def test_a_field_that_is_needed_but_absent_is_named():
    data, _ = planar("periodic")
    only_u = data.replace(fields=data.fields[:, :1], field_names=("u",))
    with pytest.raises(SymmetryError, match="needs v, which the data do not hold"):
        LieAugmentation("burgers_2d", {"rotation": 0.1})(only_u)
    view, _ = LieAugmentation("burgers_2d", {"galilean_boost_x": 0.1})(only_u, generator())
    assert view.fields.shape == only_u.fields.shape


def test_one_frame_and_single_precision():
    data, _ = planar("window", frames=1)
    data = data.replace(fields=data.fields.float())
    view, _ = LieAugmentation("burgers_2d", window=(1, 20, 20))(data, generator())
    assert view.fields.dtype == torch.float32
    assert torch.isfinite(view.fields).all() and torch.isfinite(view.time).all()


def test_strengths_in_standard_deviations():
    """A gauge shift of potential Burgers is drawn in units of the field's own deviation."""
    algebra = pdessl.symmetries("potential_burgers")
    name = next(g.name for g in algebra if g.strength_unit == "std")
    data = batch().replace(field_names=algebra.equation.dependent, equation="potential_burgers")
    _, elements = LieAugmentation(algebra, {name: 0.5})(data, generator())
    deviation = data.fields.flatten(1).std(dim=1, correction=0)
    assert elements.strengths[name].abs().min() > 0
    assert torch.allclose(elements.strengths[name], elements.relative[name] * deviation)


def at_nodes(view, elements, field):
    """The closed form of a view: its nodes taken back through reflections and map, the field there, and forward."""
    g, middle, d = elements.map, elements.centre, len(view.space)
    frames, points = g.time.shape[1], view.fields.shape[3:]
    axes = [
        (x - middle[:, 1 + i : 2 + i]).reshape(len(view), *[-1 if k == i else 1 for k in range(d)])
        for i, x in enumerate(view.space)
    ]
    mesh = torch.stack(torch.broadcast_tensors(*axes), dim=-1).reshape(len(view), 1, -1, d) @ elements.turn[:, None]
    inverse = torch.linalg.inv(g.s).expand(len(view), frames, d, d)
    source = torch.einsum("btij,btkj->btki", inverse, mesh - g.r[:, :, None])
    time = (middle[:, :1] + g.time)[..., None].expand(source.shape[:3])
    value = field(time, *[source[..., i] + middle[:, 1 + i, None, None] for i in range(d)])
    forward = g.apply(source, value.movedim(1, -1))[1] @ elements.field_turn.transpose(1, 2)[:, None]
    return forward.movedim(-1, 1).reshape(len(view), -1, frames, *points)


TURNS = [(True, False, False), (False, True, False), (False, False, True), (True, False, True), (True, True, True)]


@pytest.mark.parametrize("mode", ["grid", "coords"])
@pytest.mark.parametrize("flags", TURNS)
def test_reflections_and_exchanges_of_axes_equal_the_closed_form(flags, mode):
    """Mirror x, mirror y, exchange x and y: with a map before them, in every combination that makes a turn by 90°."""
    data, field = planar("periodic")
    data = data.replace(lengths=data.lengths * torch.tensor([1.0, 2.0]), space=(data.space[0], 2 * data.space[1]))
    stretched = lambda t, x, y: field(t, x, y / 2)  # noqa: E731
    augment = LieAugmentation("burgers_2d", {"galilean_boost_x": 0.2, "scaling": 0.2}, mode=mode, reflections=True)
    assert list(augment.reflections) == ["x,u", "y,v", "x<->y,u<->v"]
    strengths = {"galilean_boost_x": torch.tensor([0.4, -0.2], **F64), "scaling": torch.tensor([0.1, -0.2], **F64)}
    reflected = {n: torch.tensor([f, False]) for n, f in zip(augment.reflections, flags, strict=True)}
    view, elements = augment.transform(data, strengths, reflected=reflected)
    if mode == "grid":
        assert (view.fields - at_nodes(view, elements, stretched)).abs().max() < 1e-10
        assert torch.allclose(view.lengths[0].flip(0) if flags[2] else view.lengths[0], data.lengths[0] * math.exp(0.1))
        return
    g, middle = elements.map, elements.centre
    mesh = torch.stack(
        torch.broadcast_tensors(*[(x - middle[:, 1 + i, None]).reshape(2, *[-1 if k == i else 1 for k in range(2)])
                                  for i, x in enumerate(data.space)]), dim=-1
    ).reshape(2, 1, -1, 2).expand(2, 5, -1, 2)  # fmt: skip
    moved, values = g.apply(mesh, data.fields.flatten(3).permute(0, 2, 3, 1))
    moved = moved @ elements.turn.transpose(1, 2)[:, None] + middle[:, None, None, 1:]
    values = values @ elements.field_turn.transpose(1, 2)[:, None]
    found = view.fields.flatten(3).permute(0, 2, 3, 1)
    assert torch.allclose(found[..., :2], values, atol=1e-12)
    assert torch.allclose(found[..., 2], (middle[:, :1] + g.new_time)[..., None].expand(found.shape[:3]))
    assert torch.allclose(found[..., 3:], moved, atol=1e-12)


def test_reflections_can_be_drawn_by_name():
    data, _ = planar("periodic")
    some, every = (LieAugmentation("burgers_2d", {}, reflections=r) for r in (["x, u"], True))
    assert list(some.reflections) == ["x,u"] and not LieAugmentation("burgers_2d", {}, reflections=[]).reflections
    flags = torch.tensor([True, False])
    found = some.transform(data, {}, reflected={"x,u": flags})[0].fields
    assert torch.equal(found, every.transform(data, {}, reflected={"x,u": flags})[0].fields)
    assert torch.equal(found[1], data.fields[1]) and not torch.equal(found[0], data.fields[0])
    with pytest.raises(SymmetryError, match="no reflection 'x'.*Reflections: x,u; y,v; x<->y,u<->v"):
        LieAugmentation("burgers_2d", {}, reflections=["x"])
    with pytest.raises(SymmetryError, match="set reflections=False"):
        LieAugmentation("kdv", {"galilean_boost": 0.1}, reflections=True)


def test_axes_whose_walls_differ_are_not_exchanged(tmp_path):
    text = catalog.find("symmetries", "burgers_2d").read_text()
    assert "boundary: {x: periodic, y: periodic}" in text
    exchange, flags = "x<->y,u<->v", torch.tensor([True, False])
    for other, possible in (("noslip", True), ("zero_gradient", False)):
        path = tmp_path / "burgers_2d.yaml"
        path.write_text(text.replace("y: periodic}", f"y: {other}}}").replace("{x: periodic", "{x: noslip"))
        augment = LieAugmentation(pdessl.symmetries(path), {}, reflections=[exchange])
        data, _ = planar("wall")
        assert augment(data, generator())[0].boundary == ("wall", "wall")
        if possible:
            assert augment.transform(data, {}, reflected={exchange: flags})[0].boundary == ("wall", "wall")
            continue
        assert not augment(Trajectories.concatenate([data] * 20), generator())[1].reflected[exchange].any()
        with pytest.raises(SymmetryError, match="axes on which the view differs"):
            augment.transform(data, {}, reflected={exchange: flags})


def test_axes_that_differ_are_not_exchanged():
    data, _ = planar("periodic")
    augment = LieAugmentation("burgers_2d", {}, window=(5, 20, 30), reflections=True)
    many = Trajectories.concatenate([data] * 20)
    drawn = augment(many, generator())[1].reflected
    assert drawn["x,u"].any() and not drawn["x<->y,u<->v"].any()
    with pytest.raises(SymmetryError, match="square window"):
        augment.transform(data, {}, reflected={"x<->y,u<->v": torch.tensor([True, False])})
    square = LieAugmentation("burgers_2d", {}, window=(5, 20, 20), reflections=True)
    assert 0.2 < square(many, generator())[1].reflected["x<->y,u<->v"].double().mean() < 0.8
    alone = data.replace(fields=data.fields[:, :1], field_names=("u",))
    assert not square(alone, generator())[1].reflected["x<->y,u<->v"].any()


def spatial(points=20, frames=3):
    """Band-limited (u, v, w) in a periodic cube, as a function of (t, x, y, z) and sampled."""
    g = torch.Generator().manual_seed(0)
    wave = torch.tensor([[1, 0, 0], [0, 1, 1], [1, -1, 0], [0, 0, 2]], **F64)
    amplitude, angle = torch.randn(3, 4, generator=g, **F64), torch.randn(3, 4, generator=g, **F64)

    def field(t, x, y, z):
        phase = (wave * torch.stack([x, y, z], dim=-1)[..., None, :]).sum(-1) + 0.7 * t[..., None]
        return torch.stack([(amplitude[i] * torch.cos(phase + angle[i])).sum(-1) for i in range(3)], dim=1)

    time = torch.linspace(0, 1, frames, **F64).expand(2, -1)
    x = torch.arange(points, **F64).expand(2, -1) * 2 * math.pi / points
    mesh = torch.broadcast_tensors(
        time[:, :, None, None, None], x[:, None, :, None, None], x[:, None, None, :, None], x[:, None, None, None]
    )
    data = Trajectories(
        fields=field(*mesh),
        time=time,
        space=(x, x, x),
        lengths=torch.full((2, 3), 2 * math.pi, **F64),
        field_names=("u", "v", "w"),
        axis_names=("x", "y", "z"),
        boundary=("periodic",) * 3,
        equation="navier_stokes_3d",
    )
    return data, field


@pytest.mark.parametrize("boosted", [True, False])
def test_views_in_three_dimensions_equal_the_closed_form(boosted):
    data, field = spatial()
    algebra = pdessl.symmetries("navier_stokes_3d")
    turning = [n for n in algebra.names if n.startswith("rotation")]
    assert len(turning) == 3
    boosts = {n: 0.2 for n in algebra.names if n.startswith("galilean_boost")}
    strengths = boosts | (dict.fromkeys([*turning, "scaling"], 0.2) if not boosted else {})
    augment = LieAugmentation(algebra, strengths, window=(3, 14, 14, 14), reflections=True, spline_order=5)
    view, elements = augment(data, generator(3))
    assert any(bool(f.any()) for n, f in elements.reflected.items() if "<->" in n)
    error = view.fields - at_nodes(view, elements, field)
    assert error.norm() / view.fields.norm() < (1e-10 if boosted else 3e-3)


def test_only_what_a_view_may_read_is_read():
    """Poison everything outside the reach of a view: nothing of it arrives. Frames, and nodes under a spline."""
    size, frames = 240, 9
    for boundary in ("periodic", "window"):
        data = batch(b=2, frames=frames, points=size, boundary=boundary, dtype=torch.float32)
        augment = LieAugmentation("burgers", {"galilean_boost": 0.1, "scaling": 0.1, "projective": 0.2}, window=(5, 40))
        _, elements = augment(data, generator())
        poisoned = data.fields.clone()
        reach = 90  # 35 of the view itself under the largest strengths, then the prefilter and the low-pass
        for i in range(2):
            first = int(elements.start[i, 0])
            poisoned[i, :, :first] = math.nan
            poisoned[i, :, first + 5 :] = math.nan
            middle = int(elements.start[i, 1]) + 20
            far = (torch.arange(size) - middle).abs()
            far = torch.minimum(far, size - far) if boundary == "periodic" else far
            poisoned[i, :, :, far > reach] = math.nan
        assert poisoned.isnan().all(dim=2).any()
        clean, _ = augment.transform(data, elements.strengths, elements.start)
        view, _ = augment.transform(data.replace(fields=poisoned), elements.strengths, elements.start)
        assert torch.equal(view.fields, clean.fields)


@pytest.mark.parametrize("order", [3, 5])
def test_a_crop_changes_nothing(monkeypatch, order):
    """Small views of large data, of which only a part is filtered, are those of the whole filtered field."""
    data, field = planar("periodic", points=320, frames=4)
    strengths = {"rotation": 0.4, "scaling": 0.1, "galilean_boost_x": 0.1}
    augment = LieAugmentation("burgers_2d", strengths, window=(4, 16, 12), spline_order=order)
    view, elements = augment(data, generator())
    assert (view.fields - at_nodes(view, elements, field)).abs().max() < 3e-5
    sizes = []
    monkeypatch.setattr(
        "pdessl.augmentation.view.filter_axes", lambda f, a: sizes.append(f.shape[3:]) or filter_axes(f, a)
    )
    again, _ = augment.transform(data, elements.strengths, elements.start)
    monkeypatch.setattr("pdessl.augmentation.view.filter_reach", lambda *a: 10**6)
    whole, _ = augment.transform(data, elements.strengths, elements.start)
    assert max(sizes[0]) < 320 and tuple(sizes[-1]) == (320, 320)
    assert torch.equal(again.fields, view.fields)
    assert (whole.fields - view.fields).abs().max() < 1e-12
    shifted = data.replace(fields=data.fields.float())
    single, _ = augment.transform(shifted, elements.strengths, elements.start)
    assert (single.fields - view.fields).abs().max() < 1e-4


def test_parts_of_a_batch_do_not_show(monkeypatch):
    """Views are made a few at a time; how many makes no difference."""
    data, _ = planar("periodic")
    data = Trajectories.concatenate([data] * 3)
    for mode in ("grid", "coords"):
        augment = LieAugmentation("burgers_2d", mode=mode, window=(4, 30, 24), reflections=True)
        whole, _ = augment(data, generator())
        monkeypatch.setattr("pdessl.augmentation.view._CACHED_BYTES", 1)
        parts, _ = augment(data, generator())
        monkeypatch.undo()
        assert torch.allclose(whole.fields, parts.fields, atol=1e-12)


@pytest.mark.parametrize("mode", ["grid", "coords", "metadata"])
def test_gradients_reach_the_fields(mode):
    data, _ = planar("window", points=20, frames=2)
    strengths = {"scaling": 0.1} if mode == "metadata" else None
    augment = LieAugmentation("burgers_2d", strengths, mode=mode, window=(2, 6, 6))
    fields = data.fields.clone().requires_grad_()
    view, elements = augment(data.replace(fields=fields), generator())
    expected, _ = augment.transform(data, elements.strengths, elements.start)
    assert torch.allclose(view.fields, expected.fields, atol=1e-12)
    (slope,) = torch.autograd.grad(view.fields[:, :2].sum(), fields)
    moved = data.fields + 1e-6 * torch.sin(torch.arange(data.fields.numel(), **F64)).reshape(data.fields.shape)
    nudged, _ = augment.transform(data.replace(fields=moved), elements.strengths, elements.start)
    change = (nudged.fields[:, :2] - expected.fields[:, :2]).sum()
    assert torch.allclose(change, (slope * (moved - data.fields)).sum(), rtol=1e-5, atol=1e-12)


def test_confounded_symmetries_are_no_default_positives():
    """Scaling smoke by a hidden factor is another buoyancy to who sees the velocity only."""
    assert "scaling" in [f.name for f in LieAugmentation("boussinesq_diffusion").factors]
    blind = LieAugmentation("boussinesq_diffusion", observed=("u", "v"))
    named = [f.name for f in blind.factors]
    assert "scaling" not in named and "galilean_boost_x" in named
    asked = LieAugmentation("boussinesq_diffusion", {"scaling": 0.1}, observed=("u", "v"))
    assert [f.name for f in asked.factors] == ["scaling"]


def test_moved_parameters_are_told(algebra):
    assert LieAugmentation(algebra).moved_parameters == ()
    assert LieAugmentation(algebra, moves=("viscosity",)).moved_parameters == ("viscosity",)
    assert LieAugmentation(algebra, {"scaling": 0.1}, moves=("viscosity",)).moved_parameters == ()


def test_views_are_not_rounded_under_mixed_precision():
    data, _ = planar("window", points=40, frames=3)
    data = data.replace(fields=data.fields.float())
    for strengths in ({"scaling": 0.2, "projective": 0.2}, {"rotation": 0.2, "scaling": 0.2}):
        augment = LieAugmentation("burgers_2d", strengths, window=(3, 20, 20))
        plain, _ = augment(data, generator())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed, _ = augment(data, generator())
        assert mixed.fields.dtype == torch.float32
        assert torch.equal(mixed.fields, plain.fields)


def test_an_empty_batch_is_refused(algebra):
    with pytest.raises(ShapeError, match="no trajectories"):
        LieAugmentation(algebra)(batch()[0:0])


def test_modules_that_hold_an_augmentation_can_be_initialised():
    augment = LieAugmentation(pdessl.symmetries("burgers"), {"space_translation": 0.5})
    seen = []
    torch.nn.Sequential(torch.nn.Linear(1, 1), augment).apply(seen.append)
    assert augment in seen and len(seen) == 3
