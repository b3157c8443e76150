"""Parameters that a dataset sets once for all are no labels: unlabelled trajectories have them too."""

import torch

from pdessl.augmentation import LieAugmentation
from pdessl.data import PDEDataModule, StreamingDataModule, generate

SIZE = {"unlabelled": 8, "labelled": 4, "validation": 2, "test": 2}
SHORT = {"observation.frames": 6, "observation.end": 1.0}


def test_constants_reach_unlabelled_batches_and_labels_do_not(tmp_path):
    generate("kdv", tmp_path / "data", size=SIZE, overrides=SHORT)
    data = PDEDataModule(tmp_path / "data", batch_size=4)
    data.setup()
    for batch in (data.unlabelled, next(iter(data.train_dataloader()))):
        assert {n: set(p.tolist()) for n, p in batch.parameters.items()} == {"steepening": {1.0}}
    assert set(data.labelled.parameters) == {"steepening", "dispersion"}
    assert data.store.constants == {"steepening": 1.0}
    # a boost x + a t needs the coefficient a of u u_x, and no label
    augment = LieAugmentation("kdv_coefficients", {"galilean_boost": 0.2})
    view, _ = augment(data.unlabelled, torch.Generator().manual_seed(0))
    assert torch.isfinite(view.fields).all() and set(view.parameters) == {"steepening"}


def test_the_same_on_a_stream():
    data = StreamingDataModule("kdv", batch_size=4, batches=1, size={"labelled": 2, "validation": 2, "test": 2},
                               overrides=SHORT, statistics_from=4)  # fmt: skip
    data.setup("fit")
    assert set(next(iter(data.train_dataloader())).parameters) == {"steepening"}
