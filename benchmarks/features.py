"""Features of runs averaged over common views, many runs at a time, beside two other ways.

    python benchmarks/features.py --runs 256 --views 8

Baseline: each run alone, its views in one batch (what a saved model did before). Beside it: draws of its own for every
run, a pass over all runs per view (what tables did before), which gives other features.
"""

import argparse
import platform
import statistics
import time

import torch

import pdessl
from pdessl.inference import Views, features
from pdessl.models import ConvEncoder, Encoder, embed

STRENGTHS = {"space_translation": 0.5, "galilean_boost": 0.25}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    changes = {"observation.points": 64, "observation.frames": 40}
    runs = pdessl.simulate(
        pdessl.data.load_recipe("burgers_small", overrides=changes), "labelled", range(arguments.runs)
    ).without_parameters()
    views = Views(STRENGTHS, window=(32, 64), count=arguments.views)
    torch.manual_seed(0)
    encoder = Encoder(ConvEncoder(width=16, blocks=(1, 1, 1)), [0.0], [0.5]).eval()
    augmentation = views.augmentation("burgers")

    def one_by_one():
        return torch.cat([features(encoder, run, views, "burgers") for run in runs])

    ways = {
        "each run alone": one_by_one,
        "own draws, a pass per view": lambda: embed(encoder, runs, augmentation, views.count),
        "common draws, many runs (ours)": lambda: features(encoder, runs, views, "burgers"),
    }
    seconds = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    baseline = statistics.median(seconds["each run alone"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:32s} {middle:7.3f} s  {baseline / middle:5.1f} x")
    print(f"{arguments.runs} runs, {arguments.views} views; {platform.machine()}, torch {torch.__version__}, 1 thread")


if __name__ == "__main__":
    main()
