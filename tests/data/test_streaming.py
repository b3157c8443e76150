"""Trajectories simulated while training are those of a store, none comes twice, and a stream goes on where it was."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

import pdessl.data
from pdessl.data import SimulatedDataset, StreamingDataModule
from pdessl.errors import CatalogError, DataError, StoreError

NAME = "burgers_small"
HERE = str(Path(__file__).parent)


def numbers(batches):
    return [batch.index.tolist() for batch in batches]


def stream(batch_size=8, **settings):
    return SimulatedDataset(NAME, batch_size=batch_size, **settings)


def take(dataset, count):
    return list(itertools.islice(iter(dataset), count))


def test_the_stream_is_the_store(small_store):
    """48 trajectories in six batches, simulated four and two at a time, against shards of 16."""
    batches = take(stream(), 6)
    assert numbers(batches) == [list(range(8 * i, 8 * i + 8)) for i in range(6)]
    stored = small_store.load("unlabelled")
    fields = torch.cat([b.fields for b in batches])
    torch.testing.assert_close(fields, stored.fields, rtol=0, atol=2e-6)
    assert float((fields == stored.fields).float().mean()) > 0.99  # bitwise, but for how groups were made
    assert not batches[0].parameters and batches[0].equation == "burgers"


def test_a_split_with_labels_has_its_parameters(small_store):
    batch = take(stream(split="test"), 1)[0]
    assert torch.equal(batch.parameters["viscosity"], small_store.load("test").parameters["viscosity"])
    assert not take(stream(split="test", labels=False), 1)[0].parameters


def test_it_does_not_end_with_the_size_of_the_file_and_never_repeats():
    seen = numbers(take(stream(batch_size=16), 9))
    flat = [k for batch in seen for k in batch]
    assert flat == list(range(9 * 16))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_deal_out_the_same_batches_in_the_same_order(workers):
    alone = take(stream(batches=7, together=2), 99)
    shared = list(DataLoader(stream(batches=7, together=2), batch_size=None, num_workers=workers))
    assert numbers(shared) == numbers(alone)
    for one, other in zip(shared, alone, strict=True):
        torch.testing.assert_close(one.fields, other.fields, rtol=0, atol=2e-6)


def test_processes_share_the_numbers_without_overlap():
    dealt = [numbers(take(stream(rank=r, replicas=3, batches=2), 99)) for r in range(3)]
    joined = [sum(shares, []) for shares in zip(*dealt, strict=True)]
    assert joined == numbers(take(stream(batches=2), 99)) == [list(range(8)), list(range(8, 16))]
    assert dealt[1][1] == [10, 11, 12]


def test_its_position_is_kept():
    whole, first = stream(), stream()
    taken = take(first, 3)
    assert first.state_dict() == {"position": 3}
    second = stream()
    second.load_state_dict(first.state_dict())
    rest = take(second, 2)
    expected = take(whole, 5)
    assert numbers(taken) + numbers(rest) == numbers(expected)
    torch.testing.assert_close(rest[1].fields, expected[4].fields, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"rank": 2, "replicas": 2}, "0 <= rank < replicas"),
        ({"position": -1}, "position >= 0"),
        ({"device": "cuda:99"}, "no device 'cuda:99' here"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(DataError, match=message):
        stream(**settings)


class Watching(lightning.LightningModule):
    """Notes which trajectories each step gets."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.checked = [], []

    def training_step(self, batch, _):
        assert not batch.parameters
        self.seen.append(batch.index.tolist())
        return self.weight * batch.fields.mean()

    def validation_step(self, batch, _, dataloader_idx=0):
        self.checked.append((dataloader_idx, batch.index.tolist(), float(batch.parameters["viscosity"].mean())))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    quiet["enable_checkpointing"] = False
    return lightning.Trainer(default_root_dir=folder, accelerator="cpu", **quiet, **settings)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*`isinstance\\(treespec, LeafSpec\\)")
def test_epochs_go_on_and_a_restart_in_the_middle_of_one_loses_nothing(tmp_path):
    def module():
        return StreamingDataModule(NAME, batch_size=4, batches=5, size={"labelled": 4, "validation": 4})

    whole = Watching()
    trainer(tmp_path, max_epochs=3).fit(whole, datamodule=module())
    assert [k for batch in whole.seen for k in batch] == list(range(60))
    assert [c[:2] for c in whole.checked] == [(0, [0, 1, 2, 3]), (1, [0, 1, 2, 3])] * 3

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
            if len(task.seen) == 7:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")
                raise KeyboardInterrupt

    part = Watching()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer(tmp_path, max_epochs=3, callbacks=[Stop()]).fit(part, datamodule=module())
    rest = Watching()
    trainer(tmp_path, max_epochs=3).fit(
        rest, datamodule=module(), ckpt_path=tmp_path / "middle.ckpt", weights_only=True
    )
    assert part.seen + rest.seen == whole.seen


TWO_PROCESSES = """
import json

import lightning
from test_streaming import NAME, StreamingDataModule, Watching, trainer

class Telling(Watching):
    def on_train_end(self):
        with open(f"rank{self.global_rank}.json", "w") as file:  # the lines of two processes on one pipe may mix
            json.dump(self.seen, file)

if __name__ == "__main__":
    fit = trainer(".", max_epochs=2, devices=2, strategy="ddp_fork", limit_val_batches=0).fit
    fit(Telling(), datamodule=StreamingDataModule(NAME, batch_size=7, batches=2))
"""


def test_two_processes_of_lightning_train_on_different_trajectories(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([HERE, *sys.path])}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TWO_PROCESSES],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for rank in range(2):
        seen = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert seen == [list(range(7 * i + 3 * rank, 7 * i + 3 + 4 * rank)) for i in range(4)]  # rows 0-2 and 3-6


def test_the_module_has_the_splits_and_statistics_of_the_store(small_store):
    module = StreamingDataModule(NAME, batch_size=8, labels=6, statistics_from=48, path="recipes/name/one")
    on_disk = pdessl.data.PDEDataModule(small_store.path, batch_size=8, labels=6)
    for part in ("labelled", "validation", "test"):
        mine, theirs = getattr(module, part), getattr(on_disk, part)
        torch.testing.assert_close(mine.fields, theirs.fields, rtol=0, atol=2e-6)
        assert torch.equal(mine.parameters["viscosity"], theirs.parameters["viscosity"])
        assert mine.index.tolist() == theirs.index.tolist()
    mine, theirs = module.statistics["u"], on_disk.statistics["u"]
    assert mine.mean == pytest.approx(theirs.mean, abs=1e-6) and mine.std == pytest.approx(theirs.std, rel=1e-6)
    assert module.batches == 48 // 8


def test_a_checkpoint_of_another_dataset_is_refused():
    state = StreamingDataModule(NAME, statistics_from=4).state_dict()
    other = StreamingDataModule(NAME, overrides={"observation.noise": 0.5})
    with pytest.raises(StoreError, match="Stream the dataset it was trained on"):
        other.load_state_dict(state)
    with pytest.raises(CatalogError, match="Did you mean 'burgers_small'"):
        StreamingDataModule("burgers_smal")
    with pytest.raises(DataError, match="99 labels asked for"):
        _ = StreamingDataModule(NAME, labels=99).labelled
