"""The parts of the comparison: fair floors, batches, the bottleneck."""

import pytest
import torch
from torch import nn

from pdessl.data import simulate
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import CheckpointError, DataError
from pdessl.experiments.processes import Shared, each
from pdessl.experiments.supervision import FixedBatches, ShuffledBatches
from pdessl.experiments.untrained import calibrated, untrained
from pdessl.inference import Views, features
from pdessl.models import ConvEncoder, Encoder


@pytest.fixture(scope="module")
def runs():
    return simulate("burgers_small", "labelled", range(12))


def test_the_untrained_network_is_the_same_architecture_with_other_weights(runs):
    encoder = Encoder(ConvEncoder(width=4), [0.5], [2.0])
    one, same, other = untrained(encoder, 1), untrained(encoder, 1), untrained(encoder, 2)
    assert one.statistics == encoder.statistics
    weights = [e.module.stem[0].convolution.weight for e in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    with pytest.raises(CheckpointError, match="Linear has no attribute init_args"):
        untrained(nn.Linear(2, 2), 0)


def test_calibration_gives_the_random_encoder_the_statistics_of_the_data(runs):
    encoder = calibrated(untrained(Encoder(ConvEncoder(width=4)), 0), [runs])
    norm = encoder.module.stem[1]
    output = encoder.module.stem[0](runs.fields)
    assert torch.allclose(norm.running_mean, output.mean(dim=(0, 2, 3)), atol=1e-5)
    assert not encoder.training
    assert norm.momentum == 0.1


def test_a_pass_of_shuffled_batches_repeats_no_run(runs):
    batches = ShuffledBatches(runs, 4, batches=3, seed=0)
    seen = [i for _ in range(2) for batch in batches for i in batch.index.tolist()]
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]
    assert [len(b) for b in FixedBatches(runs, 5)] == [5, 5, 2]
    assert len(FixedBatches(runs, 5)) == 3


def test_views_that_draw_nothing_are_no_augmentation(runs):
    assert Views().augmentation("burgers") is None
    augmentation = Views(strengths={"space_translation": 0.5}, window=(12, 16)).augmentation("burgers")
    view, _ = augmentation(runs, torch.Generator().manual_seed(0))
    assert view.fields.shape == (12, 1, 12, 16)


def test_the_random_floor_keeps_all_pooled_values(runs):
    encoder = Encoder(ConvEncoder(width=4, features=2, hidden=8), [0.5], [2.0]).eval()
    trunk = features(encoder, runs, layer="trunk")
    assert trunk.shape == (12, encoder.module.trunk_dim)
    assert torch.allclose(encoder.module.head(trunk.float()).double(), features(encoder, runs), atol=1e-6)
    both = features(encoder, runs, layer="both")
    assert torch.equal(both[:, 2:], trunk) and torch.allclose(both[:, :2], features(encoder, runs), atol=1e-6)
    headless = Encoder(ConvEncoder(width=4), [0.5], [2.0]).eval()
    assert torch.equal(features(headless, runs, layer="trunk"), features(headless, runs))


def _features_of(shared, job):
    if job < 0:
        raise DataError(f"no run {job}")
    with torch.no_grad():
        return shared.encoder(shared.data.labelled.fields[job : job + 2]).numpy() * shared.settings["scale"]


def test_two_workers_give_what_one_process_gives_in_order(small_store):
    data = PDEDataModule(small_store)
    data.setup()
    torch.manual_seed(0)
    shared = Shared(Encoder(ConvEncoder(width=4)).eval(), data, {"scale": 2.0})
    alone = list(each(_features_of, [3, 0, 5], shared))
    spread = list(each(_features_of, [3, 0, 5], shared, workers=2))
    for a, b in zip(alone, spread, strict=True):
        assert (a == b).all()
    with pytest.raises(DataError, match="no run -1"):
        list(each(_features_of, [0, -1], shared, workers=2))
