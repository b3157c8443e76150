"""The order of batches: a function of seed and epoch, divided among processes, in the proportions asked for."""

import numpy as np
import pytest
import torch

from pdessl.data.sampling import IndexBatches
from pdessl.errors import DataError


def epoch(number=0, **settings):
    sampler = IndexBatches(**{"size": 20, "batch_size": 4, **settings})
    sampler.set_epoch(number)
    return list(sampler)


def numbers(draws):
    return torch.cat([draw.numbers for draw in draws]).tolist()


def test_order_is_a_function_of_seed_and_epoch():
    assert numbers(epoch()) == numbers(epoch()) and sorted(numbers(epoch(3))) == list(range(20))
    assert numbers(epoch(0)) != numbers(epoch(1)) and numbers(epoch()) != numbers(epoch(seed=1))
    assert numbers(epoch(shuffle=False)) == list(range(20))


def test_windows_are_a_function_of_seed_and_epoch():
    places = torch.cat([draw.places for draw in epoch(window_axes=3)])
    assert places.shape == (20, 3) and ((places >= 0) & (places < 1)).all()
    assert torch.equal(places, torch.cat([draw.places for draw in epoch(window_axes=3, batch_size=7)]))
    assert not torch.equal(places, torch.cat([draw.places for draw in epoch(1, window_axes=3)]))
    assert all(draw.places is None for draw in epoch(window_axes=3, shuffle=False))


@pytest.mark.parametrize("size, batch_size", [(47, 7), (15, 8), (16, 8), (20, 20)])
@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_processes_share_every_batch_row_by_row(size, batch_size, replicas):
    settings = {"size": size, "batch_size": batch_size, "window_axes": 2}
    parts = [epoch(replicas=replicas, rank=rank, **settings) for rank in range(replicas)]
    alone = epoch(**settings)
    assert {len(part) for part in parts} == {len(alone)} and len(alone) == -(-size // batch_size)
    for shares, whole in zip(zip(*parts, strict=True), alone, strict=True):
        assert torch.equal(torch.cat([d.numbers for d in shares]), whole.numbers)
        assert torch.equal(torch.cat([d.places for d in shares]), whole.places)
        rows = [len(d.numbers) for d in shares]
        assert min(rows) >= 1 and max(rows) - min(rows) <= 1
    sizes = [len(d.numbers) for d in alone]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    assert sorted(numbers(alone)) == list(range(size))  # every run once


def test_more_processes_than_runs_of_a_batch_are_refused():
    with pytest.raises(DataError, match=r"a batch of 3 trajectories cannot be shared by 4 processes.*Raise batch_size"):
        IndexBatches(7, 4, replicas=4)


def test_resuming_skips_batches_once():
    sampler = IndexBatches(20, 4, window_axes=1)
    whole = list(sampler)
    sampler.start = 3
    rest = list(sampler)
    assert numbers(rest) == numbers(whole[3:]) and torch.equal(rest[0].places, whole[3].places)
    assert numbers(sampler) == numbers(whole)


def test_datasets_are_mixed_in_exact_proportion():
    sizes, weights = [100, 40, 10], [1, 2, 1]
    sampler = IndexBatches(sizes, 10, weights=weights)
    assert sampler.quotas() == [38, 75, 37]
    drawn = np.array(numbers(sampler))
    owner = np.searchsorted(np.cumsum(sizes), drawn, side="right")
    assert np.bincount(owner).tolist() == sampler.quotas()
    assert all(abs(q - 150 * w / 4) < 1 for q, w in zip(sampler.quotas(), weights, strict=True))
    counts = np.bincount(drawn, minlength=150)
    assert counts[:100].max() == 1  # drawn less often than it is large: none twice
    assert set(counts[100:140]) <= {1, 2} and set(counts[140:]) <= {3, 4}  # more often: evenly
    halves = owner[:75].mean(), owner[75:].mean()
    assert abs(halves[0] - halves[1]) < 0.3  # shuffled, not one dataset after the other
    sampler.set_epoch(1)
    again = set(np.array(numbers(sampler))) & set(range(100))
    assert again != set(drawn) & set(range(100))


def test_a_mixture_without_weights_has_every_trajectory_once():
    assert sorted(numbers(epoch(size=[12, 5, 3]))) == list(range(20))
    assert sorted(numbers(epoch(size=[5, 12, 3], weights=[5, 12, 3]))) == list(range(20))
    with pytest.raises(DataError, match="expected 2 weights > 0, one per dataset"):
        IndexBatches([5, 5], 2, weights=[1, 2.5, 0.5])
    with pytest.raises(DataError, match=r"found \[1.0, -1.0\]"):
        IndexBatches([5, 5], 2, weights=[1.0, -1.0])
