"""Small files in the byte layouts of public data sets, for the tests of the readers."""

import h5py
import numpy as np

STREAM = np.random.default_rng(7)


def numbers(*shape, dtype="<f8"):
    """Values that float32 holds exactly, so that every reader must return them bit for bit."""
    return STREAM.standard_normal(shape).astype("<f4").astype(dtype)


def write(path, arrays, group=None, attributes=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        place = file.create_group(group) if group else file
        for name, values in arrays.items():
            chosen = options if np.ndim(values) else {}
            place.create_dataset(name, data=values, **chosen)
        for name, value in (attributes or {}).items():
            file.attrs[name] = value


# ---------------------------------------------------------------------- PDEArena, LPSDA


def box_flow(n, frames, points, length=32.0):
    """A smoke density and a velocity on lower faces, divergence-free between closed walls."""
    corner = np.zeros((n, frames, points + 1, points + 1))
    corner[..., 1:-1, 1:-1] = STREAM.standard_normal((n, frames, points - 1, points - 1))
    h = length / points
    vx = np.diff(corner, axis=-1)[..., :-1, :] / h  # stream function at the corners of the cells
    vy = -np.diff(corner, axis=-2)[..., :, :-1] / h
    smoke = np.abs(STREAM.standard_normal((n, frames, points, points)))
    return [a.astype("<f4").astype("<f8") for a in (smoke, vx, vy)]


def pdearena_smoke(path, mode, buoyancy, n=3, frames=5, points=8, step=1.5, swapped=False):
    u, vx, vy = box_flow(n, frames, points)
    stored = [vy, vx] if swapped else [vx, vy]
    row = np.ones((n, 1))
    arrays = {
        "u": u,
        "vx": stored[0],
        "vy": stored[1],
        "t": row * np.linspace(18, 102, frames),
        "dt": np.full(n, step),
        "x": row * np.linspace(0, 32, points),
        "dx": np.full(n, 32 / (points - 1)),
        "y": row * np.linspace(0, 32, points),
        "dy": np.full(n, 32 / (points - 1)),
        "buo_y": np.full(n, buoyancy),
    }
    write(path, arrays, mode)
    return np.stack([vx, vy, u], axis=1).astype("<f4")


def smoke_folder(folder):
    """Return {split: fields} of a folder of the conditioned set; its name holds the names of splits, as a trap."""
    held = {"train": [], "validation": [], "test": []}
    names = [
        ("train", "NavierStokes2D_train_198010_0.39216_3.h5", 0.39216),
        ("train", "NavierStokes2D_train_198010_0.21000_3.h5", 0.21),
        ("valid", "NavierStokes2D_valid_198110_0.47113.h5", 0.47113),
        ("test", "NavierStokes2D_test_198210_0.33000.h5", 0.33),
    ]
    for mode, name, buoyancy in sorted(names, key=lambda n: n[1]):
        split = "validation" if mode == "valid" else mode
        held[split].append(pdearena_smoke(folder / name, mode, buoyancy))
    return {split: np.concatenate(parts) for split, parts in held.items()}


def lpsda(path, mode, name="pde_6-16", n=4, frames=6, points=16, failed=None, full=True, viscosity=False, field=None):
    u = numbers(n, frames, points) if field is None else field
    if failed is not None:
        u[failed] = 0.0
    length = STREAM.uniform(57, 70, n)
    total = STREAM.uniform(90, 110, n)
    frames_all = frames + 3
    arrays = {name: u}
    if full:
        arrays["x"] = np.stack([np.linspace(0, (1 - 1.0 / points) * v, points) for v in length])
    arrays["dx"] = length / points
    if full:
        arrays["t"] = np.stack([np.linspace(0, v, frames_all)[-frames:] for v in total])
    arrays["dt"] = total / (frames_all - 1)
    if viscosity:
        arrays["v"] = STREAM.uniform(0.5, 1.5, n)
    write(path, arrays, mode)
    return u[:, None], arrays


def lpsda_heat(path, n=2, frames=5, points=64, viscosity=0.01):
    """Solutions of the heat equation on a period of 2 pi, positive, with exact modes."""
    length, times = 2 * np.pi, np.linspace(4.0, 5.0, frames)
    x = np.linspace(0, (1 - 1.0 / points) * length, points)
    psi = np.full((n, frames, points), 3.0)
    slope = np.zeros_like(psi)
    for k in (1, 2, 3):
        a, p = STREAM.uniform(-0.7, 0.7, (n, 1, 1)), STREAM.uniform(0, 6, (n, 1, 1))
        decay = np.exp(-viscosity * k**2 * times)[None, :, None]
        psi += a * decay * np.cos(k * x + p)
        slope -= a * decay * k * np.sin(k * x + p)
    row = np.ones((n, 1))
    arrays = {f"pde_{frames}-{points}": psi, "x": row * x, "dx": np.full(n, length / points), "t": row * times}
    write(path, arrays | {"dt": np.full(n, times[1] - times[0])}, path.stem.split("_")[1])
    return psi, slope, x, times


# ---------------------------------------------------------------------- PDEBench


def pdebench_1d(path, attributes, n=10, frames=5, points=12):
    tensor = numbers(n, frames, points, dtype="<f4")
    centres = ((np.arange(points) + 0.5) / points).astype("<f4")
    times = (0.01 * np.arange(frames + 1)).astype("<f4")
    write(path, {"tensor": tensor, "x-coordinate": centres, "t-coordinate": times}, attributes=attributes)
    return tensor[:, None]


def pdebench_compressible(path, dimensions, attributes, n=10, frames=3, points=6):
    axes = "xyz"[:dimensions]
    names = ["density", "pressure", *(f"V{a}" for a in axes)]
    arrays = {name: numbers(n, frames, *[points] * dimensions, dtype="<f4") for name in names}
    for axis in axes:
        arrays[f"{axis}-coordinate"] = ((np.arange(points) + 0.5) / points).astype("<f4")
    write(path, arrays | {"t-coordinate": (0.05 * np.arange(frames + 1)).astype("<f4")}, attributes=attributes)
    return np.stack([arrays[name] for name in names], axis=1)


def pdebench_incompressible(path, n=2, frames=4, points=8, viscosity=0.01):
    arrays = {
        "velocity": numbers(n, frames, points, points, 2, dtype="<f4"),
        "particles": numbers(n, frames, points, points, 1, dtype="<f4"),
        "force": numbers(n, points, points, 2, dtype="<f4"),
        "t": np.tile(0.005 * np.arange(frames), (n, 1)).astype("<f4"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            chunks = (1, 1, *values.shape[2:])
            file.create_dataset(name, data=values, chunks=chunks, compression="lzf", shuffle=True)
        file.attrs["config"], file.attrs["latestIndex"] = f"grid_size:\n- {points}\nNU: {viscosity}\nseed: 1\n", n - 1
    fields = [arrays["velocity"][..., 0], arrays["velocity"][..., 1], arrays["particles"][..., 0]]
    return np.stack(fields, axis=1)


def pdebench_seeds(path, n=10, frames=4, points=(6, 8), components=2, dimensions=2, entry=None):
    """A group per seed; a plane is stored (time, y, x, component), with the configuration as YAML text."""
    values, points = [], points[:dimensions]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for seed in range(n):
            group = file.create_group(f"{seed:04d}")
            data = numbers(components, frames, *points, dtype="<f4")
            stored = data if entry else data.swapaxes(2, -1)  # the dam break has x before y
            group.create_dataset("data", data=np.moveaxis(stored, 0, -1), compression="lzf")
            for axis, size in zip("xy", points, strict=False):
                nodes = (np.arange(size) + 0.5) / size * 2 - 1
                group.create_dataset(f"grid/{axis}", data=nodes.astype("<f4"), compression="lzf")
            group.create_dataset("grid/t", data=np.linspace(0, 1, frames).astype("<f4"), compression="lzf")
            line = f"  {entry}: {0.3 + seed / 100}\n" if entry else ""
            group.attrs["config"] = f"name: run\nsim:\n  xdim: {points[0]}\n{line}  seed: {seed}\n"
            values.append(data)
    return np.stack(values)


# ---------------------------------------------------------------------- mae-pdes


def mae_1d(path, mode, repeated=True, n=3, frames=4, points=9, **coefficients):
    u = numbers(n, frames, points, dtype="<f4")
    if repeated:
        u[..., -1] = u[..., 0]
    arrays = {"u": u, "x": np.linspace(0, 16, points).astype("<f4"), "t": np.linspace(0, 2, frames).astype("<f4")}
    write(path, arrays | {k: np.full(n, v, dtype="<f4") for k, v in coefficients.items()}, mode)
    return u[:, None]


def mae_2d(path, mode, indexing, n=2, frames=3, points=(5, 6)):
    x, y = np.linspace(-1, 0.6, points[0]), np.linspace(-1, 0.8, points[1])
    grid = np.stack(np.meshgrid(x, y, indexing=indexing)).astype("<f4")
    u = numbers(n, frames, *grid.shape[1:], dtype="<f4")
    arrays = {"u": u, "x": grid, "t": np.linspace(0, 2, frames).astype("<f4")}
    write(path, arrays | {k: numbers(n, dtype="<f4") for k in ("nu", "ax", "ay", "cx", "cy")}, mode)
    return (u if indexing == "ij" else u.swapaxes(-1, -2))[:, None]


# ---------------------------------------------------------------------- The Well


def the_well(path, n=3, frames=5, points=(6, 8), viscosity=0.3, mask=True, sample_varying_time=False, order=("b", "a")):
    """Two scalars named against the alphabet, one of them constant in time; a vector; a tensor."""
    fields = {name: numbers(n, frames, *points, dtype="<f4") for name in order}
    static = numbers(*points, dtype="<f4")
    ribbed = numbers(n, frames, points[1], dtype="<f4")  # does not vary along x
    velocity, stress = numbers(n, frames, *points, 2, dtype="<f4"), numbers(n, frames, *points, 2, 2, dtype="<f4")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "toy", "grid_type": "cartesian", "n_spatial_dims": 2, "n_trajectories": n})
        file.attrs["simulation_parameters"] = ["viscosity"]
        file.attrs["viscosity"] = viscosity
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        times = np.linspace(0, 1, frames, dtype="<f4")
        stored = np.tile(times, (n, 1)) if sample_varying_time else times
        dimensions.create_dataset("time", data=stored).attrs.update(
            {"sample_varying": sample_varying_time, "time_varying": True}
        )
        boundaries = file.create_group("boundary_conditions")
        for axis, size, kind in (("x", points[0], "PERIODIC"), ("y", points[1], "WALL")):
            nodes = (np.arange(size) / size).astype("<f4")
            dimensions.create_dataset(axis, data=nodes).attrs.update({"sample_varying": False, "time_varying": False})
            group = boundaries.create_group(f"{axis}_{kind.lower()}")
            group.attrs.update(
                {"associated_dims": [axis], "bc_type": kind, "sample_varying": False, "time_varying": False}
            )
            group.attrs["associated_fields"] = []
            where = np.zeros(size, dtype=bool)
            where[[0, -1]] = mask
            group.create_dataset("mask", data=where)
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["viscosity"]
        scalars.create_dataset("viscosity", data=viscosity).attrs.update(
            {"sample_varying": False, "time_varying": False}
        )

        def field(group, name, values, sample, time, dims=(True, True), **more):
            flags = {"dim_varying": list(dims), "sample_varying": sample, "time_varying": time, **more}
            group.create_dataset(name, data=values).attrs.update(flags)

        t0 = file.create_group("t0_fields")
        t0.attrs["field_names"] = [*order, "static", "ribbed"]
        for name in order:
            field(t0, name, fields[name], True, True)
        field(t0, "static", static, False, False)
        field(t0, "ribbed", ribbed, True, True, (False, True))
        t1 = file.create_group("t1_fields")
        t1.attrs["field_names"] = ["velocity"]
        field(t1, "velocity", velocity, True, True)
        t2 = file.create_group("t2_fields")
        t2.attrs["field_names"] = ["D"]
        field(t2, "D", stress, True, True, symmetric=False, antisymmetric=False)
    shape = (n, frames, *points)
    channels = [
        *(fields[name] for name in order),
        np.broadcast_to(static, shape),
        np.broadcast_to(ribbed[:, :, None], shape),
    ]
    channels += [velocity[..., 0], velocity[..., 1], *(stress[..., i, j] for i in (0, 1) for j in (0, 1))]
    return np.stack(channels, axis=1)


# ---------------------------------------------------------------------- PDEInvBench


def pdeinvbench_1d(path, frames=5, points=12):
    """One run, with its parameter in the file's name."""
    tensor = numbers(frames, points, dtype="<f4")
    nodes = (128 * np.arange(points) / points).astype("<f4")
    write(path, {"tensor": tensor, "x-coordinate": nodes, "t-coordinate": 0.73 * np.arange(frames) + 40})
    return tensor[None, None]


def pdeinvbench_2d(path, n=2, frames=4, points=(6, 8), channels=1, low=0.0, length=1.0, centres=False):
    """A group per run, fields (time, x, y, channel), the parameters in the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = numbers(n, frames, *points, channels, dtype="<f4")
    with h5py.File(path, "w") as file:
        for run in range(n):
            group = file.create_group(f"{run + 1:04d}")
            group["data"] = values[run]
            for axis, size in zip("xy", points, strict=True):
                nodes = low + length * (np.arange(size) + 0.5 * centres) / size
                group[f"grid/{axis}"] = nodes.astype("<f4")
            group["grid/t"] = np.linspace(0, 1, frames).astype("<f4")
    return np.moveaxis(values, -1, 1)
