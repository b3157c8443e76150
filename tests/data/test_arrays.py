"""Pieces of arrays in HDF5 files: what is read, from where, and what happens when the file is not what it was."""

import os
import pickle
import threading

import h5py
import numpy as np
import pytest

from pdessl.data.arrays import MAX_OPEN, FileArray, open_files
from pdessl.errors import FormatError

VALUES = np.random.default_rng(0).standard_normal((5, 12, 9, 8))


def written(path, values=VALUES, name="g/u", **how):
    with h5py.File(path, "w", userblock_size=how.pop("userblock_size", 0)) as file:
        file.create_dataset(name, data=values, **how)
    return path


LAYOUTS = {
    "float64": {},
    "float32": {"dtype": "<f4"},
    "big endian": {"dtype": ">f8"},
    "user block": {"userblock_size": 512},
    "chunks": {"chunks": (2, 5, 9, 3)},
    "compressed": {"chunks": (1, 4, 9, 8), "compression": "gzip", "shuffle": True},
}
KEYS = [
    (3,),
    (0, slice(2, 10)),
    (slice(1, 5, 2), slice(0, 12, 3)),
    (4, slice(1, 12, 4), slice(2, 7), slice(1, 8, 3)),
    (slice(None), slice(None), 3, slice(5, 6)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_piece_is_bitwise_the_slice_of_what_was_written(tmp_path, layout, key):
    how = dict(LAYOUTS[layout])
    stored = VALUES.astype(how.get("dtype", "f8"))
    array = FileArray(written(tmp_path / "a.h5", **how), "g/u")
    assert array.mapped == (layout not in ("chunks", "compressed")) and array.shape == VALUES.shape
    piece = array[key]
    assert piece.dtype.isnative and np.array_equal(piece, stored[key])
    out = np.full(piece.shape, np.nan, np.float32)
    array.read(key, out)
    assert np.array_equal(out, stored[key].astype(np.float32))


def test_unwritten_arrays_are_left_to_hdf5_and_those_of_other_files_refused(tmp_path):
    written(tmp_path / "source.h5", name="u")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout = h5py.VirtualLayout(VALUES.shape, "f8")
        layout[:] = h5py.VirtualSource(tmp_path / "source.h5", "u", VALUES.shape)
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("unwritten", (3, 4), "f4", fillvalue=7)
        file.create_dataset("external", (3, 4), "u1", external=[(str(tmp_path / "source.h5"), 0, 12)])
    for name in ("virtual", "external"):
        with pytest.raises(FormatError, match=f"'{name}' keeps its values in other files.*copy the values"):
            FileArray(tmp_path / "a.h5", name)
    assert np.array_equal(FileArray(tmp_path / "a.h5", "unwritten")[1:3], np.full((2, 4), 7.0))


def test_only_the_bytes_of_the_piece_are_read(tmp_path):
    """All other chunks are destroyed; and a piece is read of an array that is larger than the memory."""
    path = written(tmp_path / "a.h5", chunks=(1, 4, 9, 8), compression="gzip")
    with h5py.File(path) as file:
        chunks = [file["g/u"].id.get_chunk_info(i) for i in range(file["g/u"].id.get_num_chunks())]
    content = bytearray(path.read_bytes())
    for chunk in chunks:
        if chunk.chunk_offset != (3, 4, 0, 0):
            content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\0" * chunk.size
    path.write_bytes(bytes(content))
    array = FileArray(path, "g/u")
    assert np.array_equal(array[3, 4:8], VALUES[3, 4:8])
    with pytest.raises(FormatError, match=r"a\.h5 is damaged: 'g/u' cannot be read"):
        _ = array[3, 3:8]

    with h5py.File(tmp_path / "large.h5", "w") as file:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        shape = (1000, 1000, 100, 100)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, b"u", h5py.h5t.IEEE_F64LE, space, how)
    large = FileArray(tmp_path / "large.h5", "u")
    assert large.mapped and large.shape == shape  # 80 GB, hardly any of which is stored
    assert np.array_equal(large[700, 10:26, 30:60], np.zeros((16, 30, 100)))


def test_few_files_are_held_open(tmp_path):
    plain = [FileArray(written(tmp_path / f"{i}.h5", VALUES + i), "g/u") for i in range(12)]
    packed = [FileArray(written(tmp_path / f"c{i}.h5", VALUES + i, chunks=(1, 1, 9, 8)), "g/u") for i in range(12)]
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(2):
        for arrays in (plain, packed):
            for i, array in enumerate(arrays):
                assert np.array_equal(array[0, 0], VALUES[0, 0] + i)
    assert open_files() <= 2 * MAX_OPEN
    if before:
        assert len(os.listdir("/proc/self/fd")) - before <= 2 * MAX_OPEN


def test_a_mapping_that_was_let_go_can_still_be_read(tmp_path):
    """Threads that read more files than are held open must not close each other's."""
    arrays = [FileArray(written(tmp_path / f"{i}.h5", VALUES + i), "g/u") for i in range(3 * MAX_OPEN)]
    wrong = []

    def read(offset):
        for i in range(5 * len(arrays)):
            k = (i * 7 + offset) % len(arrays)
            if not np.array_equal(arrays[k][2, 3:5], VALUES[2, 3:5] + k):
                wrong.append(k)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_arrays_travel_between_processes(tmp_path):
    array = FileArray(written(tmp_path / "a.h5"), "g/u")
    _ = array[0]
    copy = pickle.loads(pickle.dumps(array))
    assert len(pickle.dumps(array)) < 1000 and np.array_equal(copy[1], VALUES[1])


@pytest.mark.parametrize("how", [{}, {"chunks": (1, 12, 9, 8)}], ids=["mapped", "chunked"])
@pytest.mark.parametrize("opened", [False, True])
def test_a_file_cut_short_is_refused_not_a_crash(tmp_path, how, opened):
    path = written(tmp_path / "a.h5", **how)
    array = FileArray(path, "g/u")
    if opened:
        _ = array[0]
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(FormatError, match=r"a\.h5.*(Restore it|Open the dataset again)"):
        for row in range(5):
            _ = array[row]
    if not (opened and how):  # HDF5 shares what it knows among the handles of one file
        with pytest.raises(FormatError, match=r"a\.h5 is truncated.*Restore it"):
            FileArray(path, "g/u")


def test_a_changed_or_missing_file_is_refused(tmp_path):
    path = written(tmp_path / "a.h5")
    array = FileArray(path, "g/u")
    written(path, VALUES[:3])
    with pytest.raises(FormatError, match=r"has changed since it was opened .*Open the dataset again"):
        _ = array[0]
    path.unlink()
    with pytest.raises(FormatError, match=r"no file .*a\.h5"):
        _ = array[0]
    with pytest.raises(FormatError, match=r"no file .*a\.h5"):
        FileArray(path, "g/u")


def test_what_is_no_array_of_numbers_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["words"] = ["a", "b"]
        file.create_group("group")
    with pytest.raises(FormatError, match=r"no array 'u'; it holds group, words"):
        FileArray(tmp_path / "a.h5", "u")
    with pytest.raises(FormatError, match=r"no array 'group'"):
        FileArray(tmp_path / "a.h5", "group")
    with pytest.raises(FormatError, match=r"'words' holds object, expected numbers"):
        FileArray(tmp_path / "a.h5", "words")
    (tmp_path / "b.h5").write_bytes(b"not HDF5" * 100)
    with pytest.raises(FormatError, match=r"b\.h5 is truncated or not an HDF5 file"):
        FileArray(tmp_path / "b.h5", "u")
