"""Pairs of runs of one group: never the same run, never of another group or split, the same however they are read."""

import json
import os
import socket

import lightning
import numpy as np
import pytest
import torch
from toy_source import ToySource

import pdessl.data
from pdessl.data.cuts import batch_edges
from pdessl.data.datamodule import PDEDataModule
from pdessl.data.groups import GroupPairs, describe_groups, group_numbers
from pdessl.data.sampling import IndexBatches
from pdessl.data.selection import Selection
from pdessl.data.splits import assign_roles
from pdessl.data.windows import Crop
from pdessl.errors import CatalogError, DataError
from pdessl.solvers import random_stream
from pdessl.trajectory import Trajectories

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning")  # about loaders and workers
UNEVEN = np.repeat(np.arange(9), [1, 2, 3, 4, 5, 6, 7, 1, 8])


def epoch(groups, batch_size=4, number=0, seed=0):
    return GroupPairs(groups).epoch(random_stream(seed, "batches", number, "order"), batch_size)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_two_runs_of_one_group_and_every_run_is_in_one(seed):
    pairs = epoch(UNEVEN, seed=seed)
    assert len(pairs) == len(GroupPairs(UNEVEN)) == sum(-(-n // 2) for n in np.bincount(UNEVEN))
    assert np.array_equal(UNEVEN[pairs[:, 0]], UNEVEN[pairs[:, 1]])
    alone = np.bincount(UNEVEN)[UNEVEN] == 1
    assert np.array_equal(pairs[:, 0] == pairs[:, 1], alone[pairs[:, 0]]) and GroupPairs(UNEVEN).alone == 2
    times = np.bincount(np.concatenate([pairs[:, 0], pairs[~alone[pairs[:, 0]], 1]]), minlength=len(UNEVEN))
    odd = np.bincount(UNEVEN) % 2 * (np.bincount(UNEVEN) > 1)
    assert times.min() == 1 and times.max() == 2 and (times == 2).sum() == odd.sum()


def test_the_numbers_of_groups_do_not_matter_and_partners_change():
    renamed = np.random.default_rng(0).permutation(100)[UNEVEN]
    # Which group is which has no meaning: the same runs are together.
    together = {frozenset(p) for n in range(60) for p in epoch(renamed, number=n).tolist()}
    assert together == {frozenset(p) for n in range(60) for p in epoch(UNEVEN, number=n).tolist()}
    partners = {tuple(p) for n in range(60) for p in epoch(UNEVEN, number=n).tolist() if UNEVEN[p[0]] == 3}
    assert {frozenset(p) for p in partners} == {frozenset((6 + i, 6 + j)) for i in range(4) for j in range(i)}
    assert np.array_equal(epoch(UNEVEN), epoch(UNEVEN)) and not np.array_equal(epoch(UNEVEN), epoch(UNEVEN, number=1))


@pytest.mark.parametrize("groups, batch_size", [(np.repeat(np.arange(32), 8), 16), (UNEVEN, 4), (UNEVEN, 3)])
def test_batches_hold_different_groups_where_they_can(groups, batch_size):
    found = GroupPairs(groups)
    edges = batch_edges(len(found), batch_size)
    for number in range(10):
        pairs = epoch(groups, batch_size, number)
        counts = [np.bincount(groups[b[:, 0]]).max() for b in np.split(pairs, edges[1:-1])]
        assert max(counts) <= found.repeats(batch_size) == -(-max((found.sizes + 1) // 2) // (len(edges) - 1))
    assert GroupPairs(np.repeat(np.arange(2), 16)).repeats(8) == 4


def draws(replicas=1, rank=0, start=0, number=0):
    settings = {"window_axes": 2, "pairs": GroupPairs(UNEVEN)}
    sampler = IndexBatches(len(UNEVEN), 3, replicas=replicas, rank=rank, **settings)
    sampler.set_epoch(number)
    sampler.start = start
    found = [torch.stack([d.runs.numbers, d.partners.numbers]).tolist() for d in sampler]
    sampler.start = start
    return found, [torch.stack([d.runs.places, d.partners.places]).tolist() for d in sampler]


def test_processes_and_resumed_runs_draw_the_same_pairs():
    whole, places = draws()
    assert np.array_equal(np.concatenate(whole, axis=1).T, epoch(UNEVEN, 3))
    for shared, of_one in zip(zip(draws(2, 0), draws(2, 1), strict=True), (whole, places), strict=True):
        joined = [np.concatenate(shares, axis=1).tolist() for shares in zip(*shared, strict=True)]
        assert joined == of_one
    rest = draws(start=2)
    assert rest == (whole[2:], places[2:])
    assert places[0][0] != places[0][1] and draws(number=1)[0] != whole
    with pytest.raises(DataError, match="leave out the weights"):
        IndexBatches([5, 5], 2, weights=[1, 2], pairs=GroupPairs(np.repeat(np.arange(5), 2)))


def test_what_makes_a_group(tmp_path):
    source = ToySource(train=20, test=8)
    whole = Selection.whole(source, ["train"])
    own = group_numbers(whole, "file")
    assert own.tolist() == np.repeat(np.arange(5), 4).tolist()
    assert np.array_equal(own, group_numbers(whole, "buoyancy")) and np.array_equal(own, group_numbers(whole, ["file"]))
    listed = tmp_path / "groups.txt"
    listed.write_text("\n".join([*("ab" * 10), *("c" * 8)]))
    assert group_numbers(whole, str(listed)).tolist() == [0, 1] * 10
    both = group_numbers(whole, ["file", str(listed)])
    assert len(set(both)) == 10 and both[0] == both[2] != both[1]
    listed.write_text("a\n" * 27)
    with pytest.raises(DataError, match=r"27 groups, toy has 28 .*train 20, test 8.*one group per line"):
        group_numbers(whole, str(listed))
    with pytest.raises(DataError, match="cannot be read"):
        group_numbers(whole, "nowhere.txt")
    with pytest.raises(CatalogError, match="no parameter 'buoyanc'. Did you mean 'buoyancy'"):
        group_numbers(whole, "buoyanc")
    with pytest.raises(DataError, match="group of its own"):
        GroupPairs.of([whole], "trajectory")
    with pytest.raises(DataError, match="all 4 training runs are in one group"):
        GroupPairs.of([whole[:4]], "file")


class SharesTheStart(ToySource):
    """Its own groups are of one initial field: the parameter differs inside."""

    def parameter_values(self, split):
        values = 0.1 * (np.arange(self.splits[split]) % 4 + 1)
        values[-1] = np.nan
        return {"buoyancy": values}


def test_groups_that_share_something_else_are_refused_and_unknown_values_are_alone():
    whole = Selection.whole(SharesTheStart(), ["all"])
    with pytest.raises(DataError, match=r"share none of its parameters \(buoyancy\).*initial field"):
        group_numbers(whole, "file")
    numbers = group_numbers(whole, "buoyancy")
    assert np.bincount(numbers).tolist() == [10, 10, 10, 9, 1]
    assert describe_groups(SharesTheStart())["by"] == "buoyancy"


def test_only_equality_of_a_setting_counts(monkeypatch):
    """Permuting the values of the groups changes no pair: the value is no label."""
    source = ToySource(all=40)
    before = group_numbers(Selection.whole(source, ["all"]), "buoyancy")
    values = np.random.default_rng(1).permutation(10) ** 2.0
    monkeypatch.setattr(source, "parameter_values", lambda split: {"buoyancy": values[source.groups(split)]})
    assert np.array_equal(before, group_numbers(Selection.whole(source, ["all"]), "buoyancy"))


@pytest.mark.parametrize("by", ["file", "buoyancy"])
def test_groups_are_whole_in_training_or_in_what_scores(by):
    roles = assign_roles(ToySource(all=100), group_by=by)
    held = {role: set(group_numbers_of(selection)) for role, selection in roles.items()}
    assert not held["unlabelled"] & (held["validation"] | held["test"])


def group_numbers_of(selection):
    return selection.groups().tolist()


# ------------------------------------------------------------------------------------------------ with stores


@pytest.fixture(scope="module")
def grouped_store(tmp_path_factory):
    """Groups of 4 in the unlabelled split, the last of 3; no labels are stored there."""
    return pdessl.data.generate(
        "burgers_small",
        tmp_path_factory.mktemp("grouped") / "data",
        size={"unlabelled": 31, "labelled": 8, "validation": 8, "test": 8},
        overrides={"parameters.viscosity.per": 4},
        progress=False,
    )


def group_of(batch):
    return (batch.index // 4).tolist()


@pytest.mark.parametrize(
    "settings", [{}, {"memory": 0, "crop": Crop(frames=6)}, {"grouped": "viscosity"}], ids=["memory", "disk", "setting"]
)
def test_batches_hold_runs_and_partners(grouped_store, settings):
    data = PDEDataModule(grouped_store.path, **{"grouped": "file", "batch_size": 4, **settings})
    assert str(data.pairs) == "8 groups of 3 to 4 runs, 16 pairs an epoch"
    for number in range(2):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        for batch in loader:
            assert isinstance(batch.partner, Trajectories) and len(batch) == 4 and not batch.parameters
            assert group_of(batch) == group_of(batch.partner)
            assert all(a != b for a, b in zip(batch.index.tolist(), batch.partner.index.tolist(), strict=True))
            held = grouped_store.load("unlabelled", batch.partner.index)
            first = int(torch.searchsorted(held.time[0], batch.partner.time[0, 0]))
            frames = slice(first, first + batch.fields.shape[2])
            assert torch.equal(batch.partner.fields[:1], held.fields[:1, :, frames])
    assert batch[[1, 0]].partner.index.tolist() == batch.partner.index[[1, 0]].tolist()
    assert batch.to("cpu").partner.fields.shape == batch.fields.shape
    assert all(b.partner is None and b.parameters for loader in data.val_dataloader() for b in loader)


def test_a_data_set_says_that_it_has_groups(grouped_store, small_store):
    found = pdessl.data.inspect(grouped_store.path)
    assert found["groups"]["by"] == "file" and found["groups"]["splits"]["unlabelled"] == [8, 3, 4]
    assert "8 of 3 to 4 runs in unlabelled, " in str(found) and "--data.grouped file takes two" in str(found)
    without = pdessl.data.inspect(small_store.path)
    assert without["groups"] == {} and "grouped" not in str(without)


def test_what_cannot_be_grouped_is_refused(small_store, grouped_store):
    with pytest.raises(DataError, match="48 training runs is in a group of its own.*pdessl inspect says"):
        PDEDataModule(small_store.path, grouped="file").train_dataloader()
    with pytest.raises(DataError, match="batch_size 32 exceeds the 16 pairs of an epoch; lower it to 16"):
        PDEDataModule(grouped_store.path, grouped="file", batch_size=32).train_dataloader()
    with pytest.raises(DataError, match="with train: labelled leave it out"):
        PDEDataModule(grouped_store.path, grouped="file", train="labelled")
    with pytest.raises(DataError, match="Noter does not take pairs of runs; leave grouped out"):
        fit(grouped_store.path, Noter(takes=False))


# ----------------------------------------------------------------------------------- Lightning, two processes


class Noter(lightning.LightningModule):
    """Notes the pairs it sees; its weight depends on their order. Can save itself after a given step."""

    def __init__(self, save_at=None, path=None, takes=True):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.save_at, self.path, self.takes_partners = [], save_at, path, takes

    def training_step(self, batch, _):
        self.seen.append([batch.index.tolist(), batch.partner.index.tolist(), batch.partner.time[:, 0].tolist()])
        return (self.weight - batch.fields.mean() * 100 + batch.partner.fields.mean()).square()

    def on_train_batch_end(self, *_):
        if self.global_step == self.save_at:
            self.trainer.save_checkpoint(self.path)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path, task, checkpoint=None, world=1):
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = PDEDataModule(path, batch_size=2, grouped="file", crop=Crop(frames=6), seed=3)
    trainer.fit(task, datamodule=data, ckpt_path=checkpoint)
    return {"seen": task.seen, "weight": task.weight.item()}


def test_a_resumed_run_sees_the_pairs_it_would_have_seen(grouped_store, tmp_path):
    whole = fit(grouped_store.path, Noter(5, tmp_path / "part.ckpt"))
    resumed = fit(grouped_store.path, Noter(), tmp_path / "part.ckpt")
    assert len(whole["seen"]) == 16 and resumed["seen"] == whole["seen"][5:] and resumed["weight"] == whole["weight"]


def process(rank, port, store, folder):
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    whole = fit(store, Noter(3, f"{folder}/part.ckpt"), world=2)
    resumed = fit(store, Noter(), f"{folder}/part.ckpt", world=2)
    torch.distributed.destroy_process_group()
    with open(f"{folder}/{rank}.json", "w", encoding="utf-8") as file:
        json.dump({"whole": whole, "resumed": resumed}, file)


@pytest.mark.slow
def test_two_processes_share_the_pairs_of_one_and_resume_exactly(grouped_store, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(process, (port, str(grouped_store.path), str(tmp_path)), nprocs=2)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    seen = [rank["whole"]["seen"] for rank in ranks]
    joined = [[a + b for a, b in zip(*shares, strict=True)] for shares in zip(*seen, strict=True)]
    settings = {"batch_size": 2, "grouped": "file", "crop": Crop(frames=6), "seed": 3}
    loader = PDEDataModule(grouped_store.path, **settings).train_dataloader()
    alone = []
    for number in range(2):
        loader.sampler.set_epoch(number)
        alone += [[b.index.tolist(), b.partner.index.tolist(), b.partner.time[:, 0].tolist()] for b in loader]
    assert joined == alone
    for rank in ranks:
        assert rank["resumed"]["seen"] == rank["whole"]["seen"][3:]
        assert rank["resumed"]["weight"] == rank["whole"]["weight"] == ranks[0]["whole"]["weight"]
