"""Laws of windows on sizes that are drawn: each is a slice, together they tile, and an epoch is a partition."""

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy_source import ToySource

from pdessl.data.sampling import Draw, IndexBatches
from pdessl.data.selection import Selection
from pdessl.data.windows import Crop, Windows
from pdessl.errors import ShapeError

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=60)
SIZE = (7, 5, 4)
crops = st.builds(
    Crop,
    frames=st.none() | st.integers(1, SIZE[0] + 1),
    points=st.none() | st.tuples(st.integers(1, SIZE[1] + 1), st.integers(1, SIZE[2] + 1)),
)
numbers = st.lists(st.integers(0, 8), min_size=1, max_size=6)


def made(crop, stride=1, **settings):
    source = ToySource(size=SIZE, all=5, more=4)
    return source, Windows([Selection.whole(source, ["all", "more"])], crop, stride, **settings)


@LAW
@given(crops, st.integers(1, 3), st.booleans(), numbers, st.data())
def test_a_window_is_a_slice_or_refused(crop, stride, held, chosen, data):
    wanted = (crop.frames or -(-SIZE[0] // stride), *(crop.points or SIZE[1:]))
    fits = wanted[0] <= -(-SIZE[0] // stride) and all(w <= n for w, n in zip(wanted[1:], SIZE[1:], strict=True))
    try:
        source, windows = made(crop, stride, held=held)
    except ShapeError:
        assert not fits
        return
    assert fits and windows.batch_shape == (2, *wanted)
    places = data.draw(
        st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3), min_size=len(chosen), max_size=len(chosen))
    )
    batch = windows[Draw(torch.tensor(chosen), torch.tensor(places, dtype=torch.float64))]
    for k, number in enumerate(chosen):
        split, row = ("all", number) if number < 5 else ("more", number - 5)
        spans = ((wanted[0] - 1) * stride + 1, *wanted[1:])
        starts = [int(p * (n - s + 1)) for p, n, s in zip(places[k], SIZE, spans, strict=True)]
        whole = source.values(split, np.array([row]))[0]
        cuts = [slice(a, a + s, stride if i == 0 else 1) for i, (a, s) in enumerate(zip(starts, spans, strict=True))]
        assert np.array_equal(batch.fields[k].numpy(), whole[:, *cuts].astype(np.float32))
        time = (1 + 0.1 * row) * np.arange(SIZE[0])
        assert np.allclose(batch.time[k].numpy(), time[cuts[0]], rtol=1e-12)
        assert batch.index[k] == row


@LAW
@given(st.integers(1, SIZE[0]), st.integers(1, 3))
def test_places_at_equal_steps_reach_every_frame_equally_often(frames, stride):
    span = (frames - 1) * stride + 1
    if span > SIZE[0]:
        return
    source, windows = made(Crop(frames=frames), stride)
    room = SIZE[0] - span + 1
    places = torch.full((room, 3), 0.5, dtype=torch.float64)
    places[:, 0] = (torch.arange(room, dtype=torch.float64) + 0.5) / room
    batch = windows[Draw(torch.zeros(room, dtype=torch.int64), places)]
    assert batch.time[:, 0].tolist() == [float(k) for k in range(room)]
    assert float(batch.time.max()) == SIZE[0] - 1


@LAW
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(1, 9), st.booleans(), st.integers(0, 3),
    st.integers(0, 3), st.integers(1, 3),
)  # fmt: skip
def test_an_epoch_has_every_trajectory_once_over_all_processes(sizes, batch, shuffle, seed, epoch, processes):
    assume(sum(sizes) // -(-sum(sizes) // batch) >= processes)  # the smallest batch has a row for each
    seen, lengths = [], set()
    for rank in range(processes):
        sampler = IndexBatches(sizes, batch, shuffle=shuffle, seed=seed, replicas=processes, rank=rank)
        sampler.set_epoch(epoch)
        drawn = [draw.numbers.tolist() for draw in sampler]
        assert len(drawn) == len(sampler) and min(map(len, drawn)) >= 1
        lengths.add(len(drawn))
        seen += [number for one in drawn for number in one]
    assert len(lengths) == 1  # no process waits for another
    assert sorted(seen) == list(range(sum(sizes)))
