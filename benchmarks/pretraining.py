"""Samples a second of each objective with the same encoder, and what Lightning's loop costs over a bare torch loop.

    python benchmarks/pretraining.py [--threads 2] [--batch 64] [--steps 20] [--repeats 3] [--device cuda]

One sample is one run, of which joint-embedding objectives see two views and temporal prediction two windows. The bare
loop makes the same views, losses and optimiser steps without a trainer. Both loops take turns, and the fastest of the
repeats counts; only ratios mean anything.
"""

import argparse
import logging
import platform
import time
import warnings

import lightning
import torch
from torch import nn

import pdessl
from pdessl import objectives
from pdessl.augmentation import LieAugmentation
from pdessl.data import simulate
from pdessl.models import ConvEncoder, Encoder, Projector, SpaceTimeTransformer, TokenPredictor
from pdessl.tasks import MaskedPrediction, Pretraining, TemporalPrediction

STRENGTHS = {"space_translation": 0.5, "galilean_boost": 0.25}
WIDTH = 64


def encoder():
    torch.manual_seed(0)
    return ConvEncoder(width=16, blocks=(1, 1, 1), pool="last")


def transformer():
    torch.manual_seed(0)
    return SpaceTimeTransformer(patch=(4, 8), width=64, depth=3, heads=4)


def mlp():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def joint(objective, width=WIDTH, **settings):
    net = encoder()
    views = LieAugmentation("burgers", STRENGTHS, window=(32, 64), reflections=True)
    return Pretraining(net, Projector(net.feature_dim, (128,), width), objective, views, **settings)


def tasks():
    tokens = {"width": 64, "depth": 2, "heads": 4}
    masks = {"blocks": 4, "scale": (0.2, 0.4), "time_extent": (0.4, 1.0)}
    return {
        "VICReg": lambda: joint(objectives.VICReg(debias_covariance=True)),
        "Barlow Twins": lambda: joint(objectives.BarlowTwins()),
        "W-MSE": lambda: joint(objectives.WMSE(), 16),
        "MMCR": lambda: joint(objectives.MMCR()),
        "LeJEPA": lambda: joint(objectives.LeJEPA()),
        "SimCLR": lambda: joint(objectives.SimCLR()),
        "SimSiam": lambda: joint(objectives.SimSiam(mlp())),
        "BYOL": lambda: joint(objectives.BYOL(mlp()), teacher={"start": 0.99}),
        "VICRegL": lambda: joint(objectives.VICRegL()),
        "SIE": lambda: joint(objectives.SIE(objectives.GroupAction(6, 32), invariant=32)),
        "temporal JEPA": lambda: TemporalPrediction(
            encoder(), TokenPredictor(64, **tokens), objectives.TemporalJEPA(), frames=16
        ),
        "masked JEPA (transformer)": lambda: MaskedPrediction(
            transformer(), TokenPredictor(64, **tokens), objectives.MaskedJEPA(), masks=masks, teacher={"start": 0.99}
        ),
    }


class Batches:
    """The same batch over and over: the loaders are measured elsewhere."""

    def __init__(self, batch, steps):
        self.batch, self.steps = batch, steps

    def __len__(self):
        return self.steps

    def __iter__(self):
        return (self.batch for _ in range(self.steps))


def through_lightning(task, batch, steps, device):
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    class Clock(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:  # the first steps warm up
                self.start = now(device)
            self.end = now(device)

    clock = Clock()
    trainer.callbacks.append(clock)
    trainer.fit(task, Batches(batch, steps + 2))
    return (clock.end - clock.start) / steps


def bare(batch, steps, device):
    """VICReg on views, by hand."""
    net = Encoder(encoder()).to(device)
    projector = Projector(net.feature_dim, (128,), WIDTH).to(device)
    objective = objectives.VICReg(debias_covariance=True)
    views = LieAugmentation("burgers", STRENGTHS, window=(32, 64), reflections=True)
    parameters = [*net.parameters(), *projector.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    generator = torch.Generator(device).manual_seed(0)
    batch = batch.to(device)
    net.train()
    projector.train()
    for step in range(steps + 2):
        if step == 2:
            start = now(device)
        with torch.no_grad():
            pair = [views(batch, generator)[0].fields for _ in range(2)]
        loss = objective.terms(*(projector(net(fields)) for fields in pair)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (now(device) - start) / steps


def now(device):
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64, help="at least 32: W-MSE whitens within a batch")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--objectives", nargs="*", default=None, help="of the table; all unless given")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    if options.batch < 32:
        parser.error(f"--batch {options.batch}: give at least 32")
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print(f"pdessl {pdessl.__version__}, torch {torch.__version__}, {platform.machine()}, {options.threads} threads, "
          f"{torch.cuda.get_device_name() if options.device == 'cuda' else 'CPU'}")  # fmt: skip
    runs = simulate("burgers", "benchmark", range(options.batch)).without_parameters()
    made = tasks()
    if unknown := [name for name in options.objectives or () if name not in made]:
        parser.error(f"unknown objective '{unknown[0]}'; known: {', '.join(made)}")

    def lightning_step(name):
        return through_lightning(made[name](), runs, options.steps, options.device)

    loops = {"bare": [], "lightning": []}
    for _ in range(options.repeats):
        loops["bare"].append(bare(runs, options.steps, options.device))
        loops["lightning"].append(lightning_step("VICReg"))
    fastest = {name: min(times) for name, times in loops.items()}
    extra = fastest["lightning"] / fastest["bare"] - 1
    print(f"\nVICReg, a step of {options.batch} runs: bare loop {1e3 * fastest['bare']:.1f} ms, through Lightning "
          f"{1e3 * fastest['lightning']:.1f} ms: {100 * extra:+.1f} % (aim: at most 5)\n")  # fmt: skip
    print(f"{'objective':28} samples/s   step against VICReg's")
    reference = fastest["lightning"]
    for name in options.objectives or made:
        seconds = min(lightning_step(name) for _ in range(max(1, options.repeats - 1)))
        print(f"{name:28} {options.batch / seconds:9.0f}   {seconds / reference:6.2f}")


if __name__ == "__main__":
    main()
