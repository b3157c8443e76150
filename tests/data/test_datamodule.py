"""Batches: what they hold, their order, and resuming in the middle of an epoch."""

import lightning
import pytest
import torch

import pdessl.data
from pdessl import Trajectories
from pdessl.data.datamodule import PDEDataModule
from pdessl.data.sampling import IndexBatches
from pdessl.errors import DataError, StoreError


@pytest.fixture
def module(small_store):
    made = PDEDataModule(small_store.path, batch_size=10, labels=6, seed=1)
    made.setup()
    return made


def test_pretraining_batches_are_full_and_have_no_parameters(module):
    batches = list(module.train_dataloader())
    assert [len(b) for b in batches] == [10, 10, 10, 10]
    assert all(isinstance(b, Trajectories) and b.parameters == {} for b in batches)
    seen = torch.cat([b.index for b in batches])
    assert len(set(seen.tolist())) == 40
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


def test_supervised_training_uses_the_labelled_subset(small_store):
    made = PDEDataModule(small_store.path, batch_size=4, labels=6, train="labelled")
    made.setup()
    batches = list(made.train_dataloader())
    assert [len(b) for b in batches] == [4, 2] and "viscosity" in batches[0].parameters
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


def test_order_is_a_function_of_seed_and_epoch():
    def order(epoch, seed=0):
        sampler = IndexBatches(20, 4, seed=seed)
        sampler.set_epoch(epoch)
        return torch.cat([draw.numbers for draw in sampler]).tolist()

    assert order(0) == order(0) and sorted(order(3)) == list(range(20))
    assert order(0) != order(1) and order(0) != order(0, seed=1)


@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_the_batches(drop_last):
    parts = [IndexBatches(23, 4, drop_last=drop_last, replicas=2, rank=r) for r in range(2)]
    assert len({len(p) for p in parts}) == 1
    batches = [b for pair in zip(*parts, strict=True) for b in pair]
    alone = list(IndexBatches(23, 4, drop_last=drop_last))
    assert all(torch.equal(a.numbers, b.numbers) for a, b in zip(batches, alone, strict=False))
    assert len(batches) == 2 * len(parts[0]) == 6


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
        self.seen.append(batch.index.tolist())
        return (self.weight - batch.fields.mean() * 100).square()

    def on_train_batch_end(self, *_):
        if self.global_step == self.save_at:
            self.trainer.save_checkpoint(self.path)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path, recorder, checkpoint=None):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, datamodule=PDEDataModule(path, batch_size=10, seed=5), ckpt_path=checkpoint)
    return recorder


@pytest.mark.parametrize("step", [2, 4, 5, 7])
def test_a_run_resumed_in_the_middle_or_at_the_end_of_an_epoch_sees_what_it_would_have_seen(
    small_store, tmp_path, step
):
    whole = fit(small_store.path, Recorder(step, tmp_path / "stop.ckpt"))
    assert len(whole.seen) == 12 and whole.seen[:4] != whole.seen[4:8]
    resumed = fit(small_store.path, Recorder(), tmp_path / "stop.ckpt")
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
    ]:
        with pytest.raises(DataError, match=message):
            PDEDataModule(small_store.path, **arguments)
    large = PDEDataModule(small_store.path, batch_size=64)
    large.setup()
    with pytest.raises(DataError, match="lower it to 48"):
        large.train_dataloader()


def test_workers_give_the_same_batches(module, small_store):
    with_workers = PDEDataModule(small_store.path, batch_size=10, labels=6, seed=1, num_workers=1)
    with_workers.setup()
    for a, b in zip(module.train_dataloader(), with_workers.train_dataloader(), strict=True):
        assert torch.equal(a.fields, b.fields) and torch.equal(a.time, b.time)
