"""Batches: what they hold, their order, and resuming in the middle of an epoch."""

import lightning
import pytest
import torch

import pdessl.data
from pdessl import Trajectories
from pdessl.data.datamodule import Crop, Ingredient, PDEDataModule
from pdessl.errors import CatalogError, DataError, ShapeError, StoreError


@pytest.fixture
def module(small_store):
    made = PDEDataModule(small_store.path, batch_size=10, labels=6, seed=1)
    made.setup()
    return made


def test_pretraining_batches_hold_every_run_once_and_have_no_parameters(module):
    batches = list(module.train_dataloader())
    assert [len(b) for b in batches] == [10, 10, 10, 9, 9]  # 48 runs, at most 10 at a time
    assert all(isinstance(b, Trajectories) and b.parameters == {} for b in batches)
    assert sorted(torch.cat([b.index for b in batches]).tolist()) == list(range(48))
    whole = module.unlabelled
    assert torch.equal(batches[2].fields, whole.fields[batches[2].index])


def test_labels_never_reach_pretraining_even_if_the_file_has_them(small_store, tmp_path):
    store = pdessl.data.generate(
        "burgers_small",
        tmp_path / "s",
        size={"labelled": 0, "test": 0, "validation": 0},
        overrides={"splits.unlabelled.labels": True},
        progress=False,
    )
    assert "viscosity" in store.load("unlabelled").parameters
    made = PDEDataModule(store.path, batch_size=8)
    made.setup()
    assert all(b.parameters == {} for b in made.train_dataloader())


def test_validation_has_labels_in_fixed_order(module):
    labelled, validation = module.val_dataloader()
    assert [len(b) for b in labelled] == [6] and [len(b) for b in validation] == [8]
    assert next(iter(validation)).index.tolist() == list(range(8))
    assert "viscosity" in next(iter(labelled)).parameters
    assert next(iter(module.test_dataloader())).index.tolist() == list(range(8))


def test_labelled_subsets_are_known_by_number(small_store):
    data = PDEDataModule(small_store.path)
    data.setup()
    numbers = data.labelled_numbers(3, seed=1)
    assert len(set(numbers.tolist())) == 3 and (numbers[:2] == data.labelled_numbers(2, seed=1)).all()
    subset, whole = data.labelled_subset(3, seed=1), data.labelled_subset(None)
    for runs in (data.labelled_runs(numbers), whole[numbers.tolist()]):
        assert torch.equal(runs.fields, subset.fields)


def test_supervised_training_uses_the_labelled_subset(small_store):
    made = PDEDataModule(small_store.path, batch_size=4, labels=6, train="labelled")
    made.setup()
    batches = list(made.train_dataloader())
    assert [len(b) for b in batches] == [3, 3] and "viscosity" in batches[0].parameters
    assert sorted(torch.cat([b.index for b in batches]).tolist()) == sorted(made.labelled.index.tolist())


def test_labelled_subsets_are_nested_and_depend_on_the_seed(module):
    first, more = module.labelled_subset(4, seed=3).index.tolist(), module.labelled_subset(9, seed=3).index.tolist()
    assert more[:4] == first
    assert first != module.labelled_subset(4, seed=4).index.tolist()
    assert module.labelled_subset(None).index.tolist() == list(range(16))
    with pytest.raises(DataError, match="17 labels asked for, the store has 16.*--size labelled=17"):
        module.labelled_subset(17)


def test_statistics_come_from_the_training_split_only(module, small_store):
    values = small_store.load("unlabelled").fields.double()
    assert module.statistics["u"].mean == pytest.approx(values.mean().item(), abs=1e-12)
    assert module.statistics["u"].std == pytest.approx(values.std().item(), rel=1e-12)
    supervised = PDEDataModule(small_store.path, labels=6, train="labelled", seed=1)
    supervised.setup()
    assert supervised.statistics["u"].std == pytest.approx(module.labelled.fields.double().std().item(), rel=1e-12)


# Lightning remarks on the size of this machine and of this toy run.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{words}")
    for words in ("does not have many workers", "log_every_n_steps", "tensorboard", "have no `validation_step`")
]


class Recorder(lightning.LightningModule):
    """Notes which trajectories it sees; its one weight depends on their order. Can save itself after a given step."""

    def __init__(self, save_at=None, path=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.save_at, self.path = [], save_at, path

    def training_step(self, batch, _):
        self.seen.append((batch.index.tolist(), batch.time[:, 0].tolist()))
        return (self.weight - batch.fields.mean() * 100).square()

    def on_train_batch_end(self, *_):
        if self.global_step == self.save_at:
            self.trainer.save_checkpoint(self.path)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path, recorder, checkpoint=None, **settings):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, datamodule=PDEDataModule(path, batch_size=12, seed=5, **settings), ckpt_path=checkpoint)
    return recorder


MODES = {"memory": {}, "disk": {"memory": 0, "crop": Crop(frames=6, points=20), "stride": 2}}


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
@pytest.mark.parametrize("step", [2, 4, 5, 7])
def test_a_run_resumed_in_the_middle_or_at_the_end_of_an_epoch_sees_what_it_would_have_seen(
    small_store, tmp_path, step, settings
):
    whole = fit(small_store.path, Recorder(step, tmp_path / "stop.ckpt"), **settings)
    assert len(whole.seen) == 12 and whole.seen[:4] != whole.seen[4:8]
    resumed = fit(small_store.path, Recorder(), tmp_path / "stop.ckpt", **settings)
    assert resumed.seen == whole.seen[step:]
    assert torch.equal(resumed.weight, whole.weight)


def test_a_checkpoint_of_other_data_is_refused(small_store, tmp_path):
    fit(small_store.path, Recorder(1, tmp_path / "a.ckpt"))
    other = pdessl.data.generate(
        "burgers_small",
        tmp_path / "other",
        overrides={"seed": 1},
        size={"labelled": 0, "validation": 0, "test": 0},
        progress=False,
    )
    with pytest.raises(StoreError, match="trained on data with recipe"):
        fit(other.path, Recorder(), tmp_path / "a.ckpt")


def test_missing_store(tmp_path):
    with pytest.raises(StoreError, match="pdessl generate burgers --out"):
        PDEDataModule(tmp_path / "nothing").setup()
    sizes = {"unlabelled": 6, "labelled": 2, "validation": 2, "test": 2}
    made = PDEDataModule(tmp_path / "made", batch_size=3, dataset="burgers_small", size=sizes)
    made.prepare_data()
    made.setup()
    assert len(list(made.train_dataloader())) == 2


def test_bad_arguments(small_store):
    for arguments, message in [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"labels": 0}, "labels must be at least 1"),
        ({"train": "labeled"}, "found 'labeled'"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"statistics_from": 0}, "statistics_from must be at least 1"),
        ({"memory": -1.0}, "memory is a number of GiB"),
    ]:
        with pytest.raises(DataError, match=message):
            PDEDataModule(small_store.path, **arguments)
    for paths in (None, []):
        with pytest.raises(DataError, match="give path .one dataset. or paths"):
            PDEDataModule(paths=paths)
    with pytest.raises(DataError, match="give each entry its own mapping"):
        PDEDataModule(paths=[Ingredient("a")], mapping="b")
    with pytest.raises(DataError, match="num_workers and ahead must be at least 0"):
        PDEDataModule(small_store.path, batch_size=8, memory=0, ahead=-1).train_dataloader()
    large = PDEDataModule(small_store.path, batch_size=64)
    large.setup()
    with pytest.raises(DataError, match="lower it to 48"):
        large.train_dataloader()


def test_workers_give_the_same_batches(module, small_store):
    with_workers = PDEDataModule(small_store.path, batch_size=10, labels=6, seed=1, num_workers=1)
    with_workers.setup()
    for a, b in zip(module.train_dataloader(), with_workers.train_dataloader(), strict=True):
        assert torch.equal(a.fields, b.fields) and torch.equal(a.time, b.time)


# ------------------------------------------------------------------------------ from disk, in pieces


def test_batches_from_disk_are_those_from_memory(small_store):
    held = PDEDataModule(small_store.path, batch_size=10, labels=6, seed=1)
    read = PDEDataModule(small_store.path, batch_size=10, labels=6, seed=1, memory=0)
    loaders = [(held.train_dataloader(), read.train_dataloader()), (held.test_dataloader(), read.test_dataloader())]
    for one, other in [*loaders, *zip(held.val_dataloader(), read.val_dataloader(), strict=True)]:
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.fields, b.fields) and torch.equal(a.lengths, b.lengths) and a.boundary == b.boundary
            assert torch.equal(a.index, b.index) and a.parameters.keys() == b.parameters.keys()
            assert all(torch.equal(v, b.parameters[n]) for n, v in a.parameters.items())
    assert torch.equal(held.labelled.fields, read.labelled.fields) and torch.equal(held.test.time, read.test.time)
    assert held.statistics == pytest.approx(read.statistics)


def test_crops_differ_between_epochs_and_lie_in_the_middle_elsewhere(small_store):
    made = PDEDataModule(small_store.path, batch_size=48, crop={"frames": 8, "points": 16}, memory=0)
    loader = made.train_dataloader()

    def corners(epoch):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        order = batch.index.argsort()
        assert batch.fields.shape == (48, 1, 8, 16) and batch.boundary == ("window",)
        return torch.stack([batch.time[order, 0], batch.space[0][order, 0]])

    assert torch.equal(corners(0), corners(0)) and not torch.equal(corners(0), corners(1))
    whole = small_store.load("test")
    middle = whole.window(slice(8, 16), slice(8, 24))
    assert torch.equal(made.test.fields, middle.fields) and torch.equal(made.test.space[0], middle.space[0])
    assert torch.equal(next(iter(made.val_dataloader()[1])).time, small_store.load("validation").time[:, 8:16])


def test_the_way_of_reading_is_chosen_by_size_and_logged(small_store, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")

    def told(**settings):
        caplog.clear()
        made = PDEDataModule(small_store.path, batch_size=8, **settings)
        made.train_dataloader()
        made.val_dataloader()
        return [r.message for r in caplog.records if "trajectories of" in r.message]

    assert [line.split(": ")[-1].split(" (")[0] for line in told()] == ["in memory"] * 3
    assert told(memory=0)[0].startswith("unlabelled: 48 trajectories of 1 x 24 x 32, 144 KiB: memory-mapped (0 bytes")
    # 48 unlabelled and 16 labelled trajectories of 3 KiB: one of the two fits.
    some = told(memory=150 / 2**20)
    assert "in memory" in some[0] and "memory-mapped" in some[1]
    small_store.__class__.mapped, before = (lambda self, split: False), small_store.__class__.mapped
    try:
        assert "streamed from disk" in told(memory=0)[0]
    finally:
        small_store.__class__.mapped = before


def test_more_than_fits_is_refused_before_it_is_read(small_store, monkeypatch):
    from pdessl.data import datamodule

    monkeypatch.setattr(datamodule, "available_memory", lambda: 4000)
    made = PDEDataModule(small_store.path, batch_size=8)
    assert len(next(iter(made.train_dataloader()))) == 8
    with pytest.raises(DataError, match="test: 24 KiB of trajectories asked for at once, 3.91 KiB are avail"):
        _ = made.test
    assert len(PDEDataModule(small_store.path, labels=1).labelled) == 1


def test_statistics_of_part_of_the_training_split(small_store, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")
    made = PDEDataModule(small_store.path, statistics_from=12, memory=0)
    std = made.statistics["u"].std
    assert "12 of 48 training trajectories" in caplog.text
    whole = small_store.load("unlabelled").fields.double()
    assert std != pytest.approx(whole.std().item(), rel=1e-6) and std == pytest.approx(whole.std().item(), rel=0.3)
    assert PDEDataModule(small_store.path, statistics_from=12).statistics["u"].std == pytest.approx(std, rel=1e-12)


def test_mixtures(small_store, tmp_path):
    other = pdessl.data.generate(
        "burgers_small",
        tmp_path / "other",
        overrides={"seed": 1},
        size={"unlabelled": 16, "labelled": 4, "validation": 4, "test": 4},
        progress=False,
    )
    paths = [Ingredient(str(small_store.path), 1.0), {"path": str(other.path), "weight": 3.0}]
    made = PDEDataModule(paths=paths, batch_size=16)
    fields = torch.cat([b.fields for b in made.train_dataloader()])
    of_other = other.load("unlabelled").fields
    from_other = sum(any(torch.equal(f, g) for g in of_other) for f in fields)
    assert len(fields) == 64 and from_other == 48
    assert len(made.test) == 8 + 4 and torch.equal(made.test.fields[8:], other.load("test").fields)
    both = torch.cat([small_store.load("unlabelled").fields, of_other]).double()
    assert made.statistics["u"].std == pytest.approx(both.std().item(), rel=1e-12)
    plain = PDEDataModule(paths=[Ingredient(str(small_store.path)), Ingredient(str(other.path))], batch_size=16)
    assert len({f.flatten()[0].item() for b in plain.train_dataloader() for f in b.fields}) == 64
    coarse = pdessl.data.generate(
        "burgers_small", tmp_path / "coarse", overrides={"observation.points": 16}, size=8, progress=False
    )
    with pytest.raises(ShapeError, match="24 x 16 and 24 x 32 .*Cut windows of one size"):
        PDEDataModule(paths=[Ingredient(str(small_store.path)), Ingredient(str(coarse.path))]).train_dataloader()


def test_external_files(smoke_folder):
    made = PDEDataModule(smoke_folder, batch_size=4, crop=Crop(frames=3), labels=2, group_by="buoyancy")
    batch = next(iter(made.train_dataloader()))
    assert batch.fields.shape[:3] == (4, 3, 3) and batch.fields.dtype == torch.float32
    assert batch.parameters.keys() == {"viscosity"}  # one for all runs, by the mapping; the label is not among them
    assert batch.boundary == ("wall", "wall") and set(made.statistics) == set(made.store.field_names)
    assert set(made.labelled.parameters) >= {"buoyancy"} and len(made.labelled) == 2
    train, test = (made.selections(role)[0].parameter_values()["buoyancy"] for role in ("unlabelled", "test"))
    assert len(test) and not set(train) & set(test)
    with pytest.raises(DataError, match="99 labels asked for, the dataset has .*raise its share, e.g. splits"):
        made.labelled_subset(99)
    state = made.state_dict()
    again = PDEDataModule(smoke_folder, batch_size=4)
    again.load_state_dict(state)
    assert again.statistics == made.statistics
    (smoke_folder / sorted(p.name for p in smoke_folder.iterdir())[0]).unlink()
    with pytest.raises(StoreError, match="Give the path of the data it was trained on"):
        PDEDataModule(smoke_folder, batch_size=4).load_state_dict(state)


@pytest.fixture
def smoke_folder(tmp_path):
    import h5py
    import numpy as np

    rng = np.random.default_rng(0)
    for number in range(10):
        with h5py.File(tmp_path / f"NavierStokes2D_train_{number}_{0.2 + 0.03 * number:.5f}_4.h5", "w") as file:
            group = file.create_group("train")
            for name in ("u", "vx", "vy"):
                group[name] = rng.standard_normal((4, 6, 8, 8)).astype("f4").astype("f8")
            group["t"], group["dt"] = np.tile(np.linspace(18.0, 102.0, 6), (4, 1)), np.full(4, 1.5)
            for axis in "xy":
                group[axis], group[f"d{axis}"] = np.tile(np.linspace(0.0, 32.0, 8), (4, 1)), np.full(4, 32 / 7)
            group["buo_y"] = np.full(4, 0.2 + 0.03 * number)
    return tmp_path


def test_roles_that_are_not_there(small_store, smoke_folder):
    with pytest.raises(CatalogError, match="nothing that serves as training; it has labelled, test, unlabelled, valid"):
        PDEDataModule(small_store.path).selections("training")
    made = PDEDataModule(smoke_folder, splits={"validation": 0, "test": 0.1})
    with pytest.raises(CatalogError, match="nothing that serves as validation"):
        _ = made.validation
    # Pretraining, which chooses nothing by validation, is watched on what there is; supervised training is refused.
    assert len(made.val_dataloader()) == 1
    with pytest.raises(CatalogError, match="nothing that serves as validation"):
        PDEDataModule(smoke_folder, splits={"validation": 0, "test": 0.1}, train="labelled").val_dataloader()


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
def test_processes_share_an_epoch(small_store, settings):
    """What each of three processes of a distributed run reads: together every trajectory at most once."""
    from types import SimpleNamespace

    seen = []
    for rank in range(3):
        made = PDEDataModule(small_store.path, batch_size=20, seed=2, **settings)
        made.trainer = SimpleNamespace(world_size=3, global_rank=rank, num_devices=3)
        batches = list(made.train_dataloader())
        assert {len(b) for b in batches} <= {5, 6}  # of 16, 16, 16
        seen.append([(b.index, b.time[:, 0]) for b in batches])
    joined = [tuple(torch.cat(parts) for parts in zip(*shares, strict=True)) for shares in zip(*seen, strict=True)]
    alone = PDEDataModule(small_store.path, batch_size=20, seed=2, **settings).train_dataloader()
    for (index, first), whole in zip(joined, alone, strict=True):
        assert torch.equal(index, whole.index) and torch.equal(first, whole.time[:, 0])
