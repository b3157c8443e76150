"""Laws of data that are read part by part."""

import dataclasses
import tempfile

import pytest
import torch

import pdessl
from pdessl.data import generate
from pdessl.errors import DataError, PdesslError, StoreError
from pdessl.experiments import discovery, discovery_parts
from pdessl.experiments.discovery_parts import Part, grams_in_parts
from pdessl.operators import Grams, Projection, Term, pile, weak_grams
from pdessl.operators.search import check


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    size = {"unlabelled": 40, "labelled": 4, "validation": 4, "test": 4}
    return generate("heat", tmp_path_factory.mktemp("heat") / "data", size=size).path


def law_of(store, monkeypatch, numbers, **options):
    """Find the law with parts of so many numbers; return it and the largest number of runs read at once."""
    most, real = [0], discovery_parts.weak_grams
    monkeypatch.setattr(discovery, "_PART_NUMBERS", numbers)
    monkeypatch.setattr(discovery_parts, "weak_grams", lambda runs, p: (most.append(len(runs)), real(runs, p))[1])
    return discovery.discover(store, half_width=(9, 6), resamples=0, **options), max(most), len(most) - 1


def test_the_law_does_not_depend_on_the_parts(store, monkeypatch):
    whole, most, parts = law_of(store, monkeypatch, 2**24)
    assert (most, parts) == (40, 1)
    runs = discovery.unlabelled_runs(store)
    numbers = 7 * runs.fields[0].numel()
    cut, most, parts = law_of(store, monkeypatch, numbers)
    assert (most, parts) == (7, 6)
    assert str(cut) == str(whole) and torch.allclose(cut.fitted.constant, whole.fitted.constant, rtol=1e-9, atol=1e-12)
    assert torch.allclose(cut.encode(runs)[0], whole.encode(runs)[0], rtol=1e-9)
    assert torch.allclose(
        discovery.discover(runs, half_width=(9, 6), resamples=0).encode(runs)[0], whole.encode(runs)[0]
    )


def test_a_law_of_more_runs_than_memory_holds_is_that_of_all(store, monkeypatch, tmp_path):
    numbers = 7 * discovery.unlabelled_runs(store, limit=1).fields[0].numel()
    whole, _, _ = law_of(store, monkeypatch, numbers)
    monkeypatch.setattr(pile, "_HELD", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen, real = [], pile.safe_open
    monkeypatch.setattr(pile, "safe_open", lambda file, kind: (seen.append(file), real(file, kind))[1])
    on_disk, _, parts = law_of(store, monkeypatch, numbers)
    assert len(set(seen)) == parts == 6 and not list(tmp_path.iterdir())  # and nothing is left there
    assert str(on_disk) == str(whole) and on_disk.count == whole.count == 40
    assert torch.allclose(on_disk.fitted.constant, whole.fitted.constant, rtol=1e-9, atol=1e-12)
    assert torch.allclose(on_disk.spread, whole.spread, rtol=1e-6)


def test_finished_parts_are_not_made_again(store, monkeypatch, tmp_path):
    numbers = 7 * discovery.unlabelled_runs(store, limit=1).fields[0].numel()
    first, _, parts = law_of(store, monkeypatch, numbers, scratch=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert parts == len(files) == 6
    files[2].write_bytes(files[2].read_bytes()[:100])  # as if the machine had gone down
    files[4].unlink()
    again, _, parts = law_of(store, monkeypatch, numbers, scratch=tmp_path)
    assert parts == 2 and torch.equal(again.fitted.constant, first.fitted.constant)
    other, _, parts = law_of(store, monkeypatch, numbers, scratch=tmp_path, noise_removed=False)
    assert parts == 0 and other.noise_removed is False  # the products are the same


def test_splits_that_there_are_not_are_told(store):
    with pytest.raises(PdesslError, match="unlabeled"):
        discovery.discover(store, split="unlabeled")


def parts_of(store, folder=None):
    """Return the dataset, and three parts of its unlabelled runs."""
    source, term = pdessl.open(store), Term((1,), (2,))
    rows = [range(0, 13), range(13, 26), range(26, 40)]
    projection = Projection((term,), (9, 6))
    return source, [Part.of(source, str(store), "unlabelled", r, projection, (), folder) for r in rows]


def same(first, second):
    for name in ("halves", "noise", "level"):
        assert torch.allclose(getattr(first, name), getattr(second, name), rtol=1e-9, atol=0)


@pytest.mark.slow  # two fresh processes import everything
def made(parts, source, **how):
    return Grams.join(list(grams_in_parts(parts, source, **how)))


@pytest.mark.slow  # two fresh processes import everything
def test_processes_find_what_one_does(store, tmp_path):
    source, parts = parts_of(store)
    runs = discovery.unlabelled_runs(store)
    whole = weak_grams(runs, parts[0].projection)
    same(made(parts, source), whole)
    source, parts = parts_of(store, tmp_path / "kept")
    same(made(parts, source, workers=2), whole)
    dates = [part.file.stat().st_mtime_ns for part in parts]
    same(made(parts, source), whole)
    assert [part.file.stat().st_mtime_ns for part in parts] == dates  # what processes made is read


def test_the_workers_of_a_cluster_find_what_one_process_does(store, monkeypatch):
    distributed = pytest.importorskip("distributed")
    source, parts = parts_of(store)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, silence_logs=50
    ) as cluster:
        address = cluster.scheduler_address
        same(made(parts, source, scheduler=address), made(parts, source))
        gone = [dataclasses.replace(parts[0], data="/not/there")]
        with pytest.raises(StoreError, match="finds no /not/there; put the data on a file system that all share"):
            made(gone, source, scheduler=address)
        monkeypatch.setattr(discovery_parts, "versions", iter([{"pdessl": "0"}, *[{"pdessl": "1"}] * 9]).__next__)
        with pytest.raises(StoreError, match="Install the same version there"):
            made(parts[:1], source, scheduler=address)


def test_a_constant_run_is_named_by_its_number(store):
    runs = discovery.unlabelled_runs(store)
    fields = runs.fields.clone()
    fields[4] = 1.0
    with pytest.raises(DataError, match="a field of run 104 is constant"):
        check(runs.replace(fields=fields), 100)
