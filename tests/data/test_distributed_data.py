"""Two processes of Lightning's DDP: they share an epoch, and a run goes on in the middle of one."""

import json
import os
import socket

import lightning
import pytest
import torch
from test_datamodule import MODES, Recorder

from pdessl.data.datamodule import PDEDataModule

WORLD, SAVED, SETTINGS = 2, 4, {"batch_size": 14, "seed": 5}
pytestmark = pytest.mark.slow


def fit(store, recorder, checkpoint=None, **settings):
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=WORLD,
        strategy="ddp",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, datamodule=PDEDataModule(store, **SETTINGS, **settings), ckpt_path=checkpoint)
    return {"seen": recorder.seen, "weight": recorder.weight.item()}


def process(rank, port, store, folder):
    """Train, stop in the middle of the second epoch and go on; what this process saw goes to a file of its own."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    found = {}
    for name, settings in MODES.items():
        stopped = f"{folder}/{name}.ckpt"
        whole = fit(store, Recorder(SAVED, stopped), **settings)
        found[name] = {"whole": whole, "resumed": fit(store, Recorder(), stopped, **settings)}
    torch.distributed.destroy_process_group()
    with open(f"{folder}/{rank}.json", "w", encoding="utf-8") as file:
        json.dump(found, file)


@pytest.fixture(scope="module")
def ranks(small_store, tmp_path_factory):
    """What each process reports: ``{mode: {whole, resumed: {seen: [(indices, first times) per batch], weight}}}``."""
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(process, (port, str(small_store.path), str(folder)), nprocs=WORLD)
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(WORLD)]


@pytest.mark.parametrize("mode", MODES)
def test_processes_share_every_epoch_without_overlap_or_gap(ranks, small_store, mode):
    alone = PDEDataModule(small_store.path, **SETTINGS, **MODES[mode]).train_dataloader()
    seen = [rank[mode]["whole"]["seen"] for rank in ranks]
    steps = len(seen[0]) // 2
    for epoch in range(2):
        alone.sampler.set_epoch(epoch)
        parts = [one[epoch * steps : (epoch + 1) * steps] for one in seen]
        indices = [index for part in parts for batch, _ in part for index in batch]
        assert sorted(indices) == list(range(48))
        joined = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(*parts, strict=True)]
        assert joined == [[b.index.tolist(), b.time[:, 0].tolist()] for b in alone]
    assert seen[0][:steps] != seen[0][steps:]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_of_two_processes_goes_on_in_the_middle_of_an_epoch(ranks, mode):
    for rank in ranks:
        whole, resumed = rank[mode]["whole"], rank[mode]["resumed"]
        assert len(whole["seen"]) == 8 and resumed["seen"] == whole["seen"][SAVED:]
        assert resumed["weight"] == whole["weight"] == ranks[0][mode]["whole"]["weight"]
