"""Laws of data that are read part by part."""

import pytest
import torch

from pdessl.data import generate
from pdessl.errors import PdesslError
from pdessl.experiments import discovery


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    size = {"unlabelled": 40, "labelled": 4, "validation": 4, "test": 4}
    return generate("heat", tmp_path_factory.mktemp("heat") / "data", size=size).path


def law_of(store, monkeypatch, numbers, **options):
    """Find the law with parts of so many numbers; return it and the largest number of runs read at once."""
    most, real = [0], discovery.weak_grams
    monkeypatch.setattr(discovery, "_PART_NUMBERS", numbers)
    monkeypatch.setattr(discovery, "weak_grams", lambda runs, p: (most.append(len(runs)), real(runs, p))[1])
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
