"""Windows: bitwise slices of whole trajectories, from disk and from memory, of one dataset and of mixtures."""

import gc

import h5py
import numpy as np
import pytest
import torch
from toy_source import ToySource

import pdessl
from pdessl.data.sampling import Draw
from pdessl.data.selection import Selection
from pdessl.data.splits import assign_roles
from pdessl.data.windows import Crop, Windows
from pdessl.errors import DataError, ShapeError


def windows(source=None, split="all", **settings):
    return Windows([Selection.whole(source or ToySource(), [split])], **settings)


def draw(numbers, places=None):
    return Draw(torch.tensor(numbers), None if places is None else torch.tensor(places, dtype=torch.float64))


CROPS = {
    "whole": (None, 1),
    "frames": (Crop(frames=5), 1),
    "points": (Crop(points=(4, 3)), 1),
    "both": (Crop(frames=4, points=(6, 2)), 2),
    "stride": (None, 5),
}


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(("crop", "stride"), CROPS.values(), ids=CROPS)
def test_a_window_is_the_slice_of_the_whole_trajectory(crop, stride, held):
    made = windows(crop=crop, stride=stride, held=held)
    assert len(made) == 40 and made.held_bytes == held * 40 * 2 * 12 * 30 * 4
    rng = np.random.default_rng(0)
    numbers, places = rng.integers(40, size=30), rng.random((30, 3))
    batch = made[draw(numbers, places)]
    source = ToySource()
    whole = source.load("all", numbers)
    sizes = made.batch_shape[1:]
    spans = ((sizes[0] - 1) * stride + 1, *sizes[1:])
    starts = np.floor(places * (np.array(source.size) - spans + 1)).astype(int)
    for k, start in enumerate(starts):
        steps = (stride, 1, 1)
        cuts = [slice(s, s + n, step) for s, n, step in zip(start, spans, steps, strict=True)]
        one = whole[k].window(*cuts)
        assert torch.equal(batch.fields[k], one.fields[0].float())
        assert torch.equal(batch.time[k], one.time[0]) and torch.equal(batch.lengths[k], one.lengths[0])
        assert all(torch.equal(a[k], b[0]) for a, b in zip(batch.space, one.space, strict=True))
        assert batch.boundary == one.boundary and batch.equation == one.equation
    assert torch.equal(batch.parameters["buoyancy"], whole.parameters["buoyancy"])
    assert batch.index.tolist() == numbers.tolist() and batch.fields.dtype == torch.float32
    if crop is not None:
        reached = starts.max(axis=0) - (np.array(source.size) - spans)
        assert (reached == 0).all() and (starts.min(axis=0) == 0).all()  # every place there is


def test_windows_without_a_place_lie_in_the_middle():
    batch = windows(crop=Crop(frames=4, points=(2, 5)), stride=2)[draw([7])]
    whole = ToySource().load("all", [7])
    assert torch.equal(batch.fields, whole.window(slice(2, 9, 2), slice(2, 4)).fields.float())
    assert torch.equal(windows(stride=5)[draw([7])].time, whole.time[:, ::5])
    everything = windows(crop=Crop(frames=4)).everything()
    assert everything.fields.shape == (40, 2, 4, 6, 5)


@pytest.mark.parametrize("held", [False, True])
def test_fields_and_labels_can_be_left_out(held):
    batch = windows(fields=["u"], labels=False, held=held)[draw([3, 1])]
    assert batch.field_names == ("u",) and batch.parameters == {}
    assert torch.equal(batch.fields, ToySource().load("all", [3, 1], fields=["u"]).fields.float())


@pytest.mark.parametrize("held", [False, True])
def test_datasets_are_joined_in_one_batch(held):
    larger = ToySource("larger", size=(20, 8, 5), per_group=1)
    parts = [Selection.whole(ToySource(), ["all"]), Selection.whole(larger, ["all"])[np.arange(5, 15)]]
    made = Windows(parts, Crop(frames=6, points=(6, 5)), held=held)
    assert len(made) == 50 and made.sizes_of_parts == [40, 10]
    batch = made[draw([45, 3, 41, 0], [[0.0] * 3] * 4)]
    # The first axis is whole in one dataset and cut in the other: a batch has one kind of boundary.
    assert batch.boundary == ("window", "wall")
    cut = (slice(6), slice(6))
    assert torch.equal(batch.fields[::2], larger.load("all", [10, 6]).window(*cut).fields.float())
    assert torch.equal(batch.fields[1::2], ToySource().load("all", [3, 0]).window(*cut).fields.float())
    assert batch.index.tolist() == [10, 3, 6, 0]
    assert torch.equal(batch.lengths[:, 0], batch.space[0][:, -1] - batch.space[0][:, 0])
    expected = [larger.parameter_values("all")["buoyancy"][k] for k in (10, 6)]
    assert batch.parameters["buoyancy"][::2].tolist() == expected


def test_pooled_splits_are_read_from_where_they_are():
    source = ToySource(train=30, valid=20, test=10)
    pooled = assign_roles(source, {"validation": 0.2, "test": 0.2})["unlabelled"]
    made = Windows([pooled], Crop(frames=3))
    batch = made[draw(np.arange(len(pooled))[::-1].copy(), np.zeros((len(pooled), 3)))]
    for k, number in enumerate(range(len(pooled) - 1, -1, -1)):
        split, row = pooled.splits[pooled.split[number]], int(pooled.rows[number])
        one = source.load(split, [row], frames=slice(3))
        assert torch.equal(batch.fields[k], one.fields[0].float()) and torch.equal(batch.time[k], one.time[0])


def test_subsets_share_the_data():
    made = windows(held=True)
    some = made.subset(np.array([5, 9, 2]))
    assert len(some) == 3 and some.sizes_of_parts == [3] and some.held_bytes == made.held_bytes
    assert some[draw([2, 0])].index.tolist() == [2, 5]
    assert some.subset(np.array([1]))[draw([0])].index.tolist() == [9]
    exact = ToySource().load("all", [5, 9, 2]).fields.float()
    assert torch.equal(torch.cat(list(some.whole_fields(np.arange(3), at_once=2 * 2 * 12 * 30 * 4))), exact)
    pieces = list(some.whole_fields(np.arange(3), at_once=2 * 5 * 30 * 4))
    assert [p.shape[2] for p in pieces] == [5, 5, 2] * 3
    assert torch.equal(torch.cat(pieces, dim=2), exact.transpose(0, 1).flatten(1, 2)[None])


def test_memory_is_used_again_only_when_nothing_refers_to_it():
    made = windows(crop=Crop(frames=4))
    first = made[draw([0, 1])]
    place, content = first.fields.data_ptr(), first.fields.clone()
    view = first.fields[1:, :, 2]  # keeps the memory alive when the batch is gone
    del first
    gc.collect()
    second = made[draw([2, 3])]
    assert second.fields.data_ptr() != place and torch.equal(view, content[1:, :, 2])
    array = second.fields.numpy()
    del second, view
    gc.collect()
    third = made[draw([4, 5])]
    assert third.fields.data_ptr() == place  # the first one's
    assert array[0, 0, 0, 0, 0] == made[draw([2])].fields[0, 0, 0, 0, 0]
    smaller = made[draw([6])]
    assert torch.equal(smaller.fields, ToySource().load("all", [6]).window(slice(4, 8)).fields.float())


def test_values_that_are_not_finite_are_refused():
    class Broken(ToySource):
        def values(self, split, rows):
            values = super().values(split, rows)
            values[rows == 23, 1, 8] = np.nan
            return values

    for held in (False, True):
        with pytest.raises(DataError, match="field 'u' is not finite in"):
            windows(Broken("broken"), held=held)[draw([22, 23])]
    with pytest.raises(DataError, match="broken: field 'u' is not finite in trajectory 23 of split 'all'"):
        windows(Broken("broken"))[draw([22, 23])]
    assert len(windows(Broken("broken"), crop=Crop(frames=4))[draw([23], [[0.0, 0.0, 0.0]])]) == 1


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_told_from_large_ones(value):
    class Large(ToySource):
        def values(self, split, rows):
            large = np.full_like(super().values(split, rows), 3e38)  # finite, but their sum in float32 is not
            large[rows == 7, 0, 2] = value
            return large

    assert (windows(Large("large"))[draw([6])].fields == torch.tensor(3e38)).all()
    with pytest.raises(DataError, match="not finite in trajectory 7"):
        windows(Large("large"))[draw([6, 7])]


def test_windows_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"window of 13 x 6 x 5 .*does not fit into trajectories of 12 x 6 x 5"):
        windows(crop=Crop(frames=13))
    with pytest.raises(ShapeError, match=r"does not fit into trajectories of 3 x 6 x 5 at stride 5. Lower crop.frames"):
        windows(crop=Crop(frames=4), stride=5)
    with pytest.raises(ShapeError, match="crop.points has 3 numbers for the axes x, y"):
        windows(crop=Crop(points=(1, 2, 3)))
    with pytest.raises(ShapeError, match="does not fit"):
        windows(crop=Crop(points=(-1, 2)))


def test_datasets_that_cannot_be_mixed():
    def mixed(other, **settings):
        Windows([Selection.whole(ToySource("one"), ["all"]), Selection.whole(other, ["all"])], **settings)

    with pytest.raises(ShapeError, match=r"12 x 6 x 5 and 14 x 6 x 5 .*cannot be in one batch. Cut windows of one"):
        mixed(ToySource(size=(14, 6, 5)))
    for name, value, message in [
        ("equation", "other", "one and two cannot be mixed: equation toy and other"),
        ("boundary", ("wall", "wall"), "cannot be mixed: boundary"),
        ("axis_names", ("y", "x"), "cannot be mixed: axes"),
    ]:
        other = ToySource("two")
        setattr(other, name, value)
        with pytest.raises(ShapeError, match=message):
            mixed(other)
    unlabelled = ToySource("two")
    unlabelled.parameter_values = lambda split: {}
    with pytest.raises(ShapeError, match=r"cannot be mixed: parameters \['buoyancy'\] and \[\]"):
        mixed(unlabelled)
    mixed(unlabelled, labels=False)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Two files in the layout of PDEArena's conditioned set, small, one of them compressed."""
    folder, rng = tmp_path_factory.mktemp("smoke"), np.random.default_rng(0)
    for seed, (buoyancy, how) in enumerate([(0.3, {}), (0.4, {"chunks": (1, 3, 8, 8), "compression": "gzip"})]):
        with h5py.File(folder / f"NavierStokes2D_train_{seed}_{buoyancy:.5f}_4.h5", "w") as file:
            group = file.create_group("train")
            for name in ("u", "vx", "vy"):
                values = rng.standard_normal((4, 10, 8, 8)).astype("f4")
                group.create_dataset(name, data=values.astype("f8"), **how)
            group["t"] = np.tile(np.linspace(18.0, 102.0, 10), (4, 1))
            group["dt"] = np.full(4, 1.5)
            for axis in "xy":
                group[axis] = np.tile(np.linspace(0.0, 32.0, 8), (4, 1))
                group[f"d{axis}"] = np.full(4, 32 / 7)
            group["buo_y"] = np.full(4, buoyancy)
    return folder


@pytest.mark.parametrize("settings", [{}, {"crop": Crop(frames=4, points=(5, 3)), "stride": 2}], ids=["whole", "cut"])
def test_windows_of_external_files_are_bitwise_what_was_written(smoke, settings):
    source = pdessl.open(smoke, mapping="pdearena_smoke_conditioned")
    made = windows(source, "train", **settings)
    rng = np.random.default_rng(1)
    numbers, places = rng.integers(8, size=12), rng.random((12, 3))
    batch = made[draw(numbers, places)]
    t, x, y = made.batch_shape[1:]
    stride = settings.get("stride", 1)
    for k, number in enumerate(numbers):
        path = sorted(smoke.iterdir())[number // 4]
        room = np.array([10 - (t - 1) * stride, 8 - x + 1, 8 - y + 1])
        a, b, c = np.floor(places[k] * room).astype(int)
        with h5py.File(path) as file:
            for channel, name in enumerate(source.field_names):
                stored = file["train"][{"u": "vx", "v": "vy", "s": "u"}[name]][number % 4]
                cut = stored[a : a + (t - 1) * stride + 1 : stride, b : b + x, c : c + y]
                assert np.array_equal(batch.fields[k, channel].numpy(), cut.astype("f4"))
    assert torch.equal(batch.parameters["buoyancy"], torch.from_numpy(np.where(numbers < 4, 0.3, 0.4)))
