"""How far ahead a fast world model and a slow one on it see, in a system that amplifies errors.

    python benchmarks/far_ahead.py --low runs/ks4 --high runs/ks4_slow --data data/ks4 --out far_ahead.json
    python benchmarks/far_ahead.py --draw far_ahead.json --out far_ahead.svg

From three starts in each of the measured episodes, whose amplitudes are known, both models are rolled out. Compared is
what the slow level can claim to know: the means over its blocks of the field and of its energy, and the field at their
ends. Errors are mean squares over those of the climate, the mean over other runs under the same kind of amplitudes,
which is 1 at every horizon. Damped: the forecast's departure from the climate times one factor a horizon, the best on
those other runs, so that a model is not worse for being sure of itself. Persistence: the block, or field, before the
start. Codes: the solver, told the means that the slow model is told in place of the amplitudes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pdessl
from pdessl.control import Environment, Oracle, Situation, load_environment, record_runs
from pdessl.evaluation import plots
from pdessl.experiments.planning import HELD_OUT
from pdessl.experiments.provenance import machine, versions
from pdessl.experiments.slow_world import SlowWorld, load_slow_world
from pdessl.experiments.world import LatentWorld, load_world
from pdessl.files import write_json, write_text
from pdessl.models import fit_ridge

# W windows, T control periods, X grid points, A actuators, K blocks, s periods of a block, D width of the slow latent

CLIMATE = 700_000  # first seed of the runs that climate and damping are from
STARTS = 3
KINDS = ("zero", "smooth")  # feedback would tell in its amplitudes what the field will be
QUANTITIES = {"mean_field": "mean field of a block", "field": "field at its end", "energy": "mean energy of a block"}
Row = dict[str, Any]
Forecasts = dict[str, Tensor]


class Probes:
    """What is read from the true slow latents at both ends of a block: its mean field and mean energy, by ridge.

    Args:
        slow: whose latents.
        fields: of runs to learn from, (B, T + 1, X).
    """

    def __init__(self, slow: SlowWorld, fields: Tensor) -> None:
        stride = slow.blocks.stride
        latents = encoded(slow, fields[:, ::stride])
        blocks = block_means(fields, stride)
        count = blocks.shape[1]
        pairs = torch.cat([latents[:, :count], latents[:, 1 : count + 1]], dim=-1).flatten(0, 1)
        self._field = fit_ridge(pairs, blocks.flatten(0, 1))
        self._energy = fit_ridge(products(pairs), block_means(energy(fields)[..., None], stride).flatten(0, 1))

    def __call__(self, first: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean fields (W, K, X) and energies (W, K, 1) of blocks, from latents (W, D) and (W, K, D)."""
        before = torch.cat([first[:, None], latents[:, :-1]], dim=1)
        pairs = torch.cat([before, latents], dim=-1).double()
        rows = pairs.flatten(0, 1)
        found = self._field.predict(rows), self._energy.predict(products(rows))
        return found[0].unflatten(0, pairs.shape[:2]), found[1].unflatten(0, pairs.shape[:2])


def products(rows: Tensor) -> Tensor:
    """Return rows (n, D) and their products, (n, D (D + 3) / 2)."""
    i, j = torch.triu_indices(rows.shape[1], rows.shape[1])
    return torch.cat([rows[:, i] * rows[:, j], rows], dim=1)


def energy(fields: Tensor) -> Tensor:
    """Return the mean of u² over the grid."""
    return fields.square().mean(dim=-1)


def block_means(values: Tensor, stride: int) -> Tensor:
    """Return the means (W, K, X) over the frames after the first of (W, T + 1, X); what fills no block is left out."""
    count = (values.shape[1] - 1) // stride
    return values[:, 1 : 1 + count * stride].unflatten(1, (count, stride)).mean(dim=2)


def encoded(slow: SlowWorld, fields: Tensor) -> Tensor:
    """Return the slow latents (W, T, D), float64, of fields (W, T, X)."""
    with torch.no_grad():
        found = slow.encoder(fields.flatten(0, 1).float()[:, None, None])
    return found.unflatten(0, fields.shape[:2]).double()


def windows(env: Environment, seeds: range, kind: str, ahead: int, stride: int) -> tuple[Tensor, Tensor]:
    """Return fields (W, s + ahead + 1, X) and amplitudes (W, ahead, A); start after the first block of the fields."""
    runs = record_runs(env, seeds, (kind,))
    fields = torch.from_numpy(runs["u"].values).double()
    actions = torch.from_numpy(runs["actions"].values).transpose(1, 2)
    last = env.steps - ahead
    starts = [stride + (last - stride) * n // max(1, STARTS - 1) for n in range(STARTS)]
    return (
        torch.cat([fields[:, start - stride : start + ahead + 1] for start in starts]),
        torch.cat([actions[:, start : start + ahead] for start in starts]),
    )


def truth(fields: Tensor, stride: int) -> Forecasts:
    """Return what is to be foreseen."""
    after = fields[:, stride:]
    means = block_means(after, stride)
    return {
        "mean_field": means,
        "field": after[:, stride::stride],
        "energy": block_means(energy(after)[..., None], stride),
    }


def forecasts(
    env: Environment, fast: LatentWorld, slow: SlowWorld, probes: Probes, fields: Tensor, actions: Tensor
) -> dict[str, Forecasts]:
    """Return what every forecaster says of the three quantities, (W, K, X) or (W, K, 1)."""
    stride = slow.blocks.stride
    start = fields[:, stride]
    now = Situation(start, env.state(start), None, 0, tuple(range(len(start))))
    candidates = actions[:, None]
    with torch.no_grad():
        latents = fast.latents(now, candidates)[:, 0]
        decoded, energies = fast.readout(latents)[..., 0, :].double(), fast.readout.observe(latents)[..., :1].double()
        codes = slow.blocks.codes(candidates)
        coarse = slow.slow_latents(now, codes)[:, 0]
        means, mean_energies = probes(slow.encoder(start.float()[:, None, None]).double(), coarse)
        told = env.field(Oracle(env).imagine(now, slow.blocks.amplitudes(codes))[:, 0])
    count = means.shape[1]

    def of_blocks(values: Tensor) -> Tensor:
        return values[:, : count * stride].unflatten(1, (count, stride)).mean(dim=2)

    before = fields[:, 1 : stride + 1]
    still = (before.mean(dim=1), start, energy(before).mean(dim=1)[:, None])
    return {
        "fast": {
            "mean_field": of_blocks(decoded), "field": decoded[:, stride - 1 :: stride], "energy": of_blocks(energies),
        },
        "slow": {"mean_field": means, "field": slow.readout(coarse)[..., 0, :].double(), "energy": mean_energies},
        "codes": {
            "mean_field": of_blocks(told), "field": told[:, stride - 1 :: stride],
            "energy": of_blocks(energy(told)[..., None]),
        },
        "persistence": {
            name: value[:, None].expand(-1, count, -1) for name, value in zip(QUANTITIES, still, strict=True)
        },
    }  # fmt: skip


def damped(said: Tensor, climate: Tensor, others: tuple[Tensor, Tensor]) -> Tensor:
    """Return the climate and a share of the departure from it, the best of each horizon on other runs."""
    found, true = others
    departure = found - found.mean(dim=0)
    share = (departure * (true - climate)).sum(dim=(0, 2)) / departure.square().sum(dim=(0, 2))
    return climate + share.clamp(0, 1)[:, None] * (said - found.mean(dim=0))


def measured(
    env: Environment, fast: LatentWorld, slow: SlowWorld, probes: Probes, first: int, episodes: int, ahead: int
) -> list[Row]:
    """Return the errors of all forecasters after every block."""
    rows, stride = [], slow.blocks.stride
    for kind in KINDS:
        sets = [windows(env, range(n, n + episodes), kind, ahead, stride) for n in (CLIMATE, first)]
        said = [forecasts(env, fast, slow, probes, *one) for one in sets]
        true = [truth(fields, stride) for fields, _ in sets]
        for quantity in QUANTITIES:
            other, real = true[0][quantity], true[1][quantity]
            climate = other.mean(dim=(0, 1))
            if quantity != "energy":
                climate = climate.mean().expand_as(climate)  # a field has no place of its own
            errors = {}
            for name in said[1]:
                found, before = said[1][name][quantity], said[0][name][quantity]
                errors[name] = (found - real).square().mean(dim=-1)
                if name != "persistence":
                    steadied = damped(found, climate, (before, other))
                    errors[f"{name}_damped"] = (steadied - real).square().mean(dim=-1)
            unit = (climate - real).square().mean(dim=(0, 2))
            rows += rows_of(kind, quantity, errors, unit, stride, episodes)
    return rows


def rows_of(kind: str, quantity: str, errors: Forecasts, unit: Tensor, stride: int, episodes: int) -> list[Row]:
    """Return a row for every horizon; gains are of the slow model over the fast one, standard errors over episodes."""
    gains: Row = {}
    for suffix in ("", "_damped"):
        gain = (errors[f"fast{suffix}"] - errors[f"slow{suffix}"]) / unit
        each = gain.unflatten(0, (STARTS, episodes)).mean(dim=0)
        gains[f"gain{suffix}"] = gain.mean(dim=0)
        gains[f"gain{suffix}_standard_error"] = each.std(dim=0) / episodes**0.5
    shares = {name: error.mean(dim=0) / unit for name, error in errors.items()} | gains
    return [
        {"amplitudes": kind, "quantity": quantity, "periods": stride * (k + 1)}
        | {name: float(values[k]) for name, values in shares.items()}
        for k in range(len(unit))
    ]


def beyond(rows: list[Row], suffix: str) -> int | None:
    """Return the horizon beyond which the slow model is better at all that were measured; None: there is none."""
    found = None
    for row in reversed(rows):
        if row[f"gain{suffix}"] <= 0:
            break
        found = row["periods"]
    return found


def draw(rows: list[Row], place: Path) -> None:
    """Write the figure of error against horizon."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.0), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(KINDS), len(QUANTITIES), sharex=True, squeeze=False)
    lines = (
        ("fast", "fast", "#0072B2", "-"), ("fast_damped", "fast, damped", "#0072B2", "--"),
        ("slow", "slow", "#D55E00", "-"), ("slow_damped", "slow, damped", "#D55E00", "--"),
        ("persistence", "persistence", "#7F7F7F", ":"),
    )  # fmt: skip
    for line, kind in enumerate(KINDS):
        for column, (quantity, title) in enumerate(QUANTITIES.items()):
            axis = axes[line, column]
            held = [row for row in rows if row["amplitudes"] == kind and row["quantity"] == quantity]
            periods = [row["periods"] for row in held]
            for name, label, colour, style in lines:
                axis.plot(periods, [row[name] for row in held], style, color=colour, label=label)
            axis.axhline(1.0, color="black", linewidth=0.8, label="climate")
            axis.set_ylim(0, 2.2)
            axis.set_title(f"{title}, {'no' if kind == 'zero' else kind} amplitudes", fontsize=9)
    axes[0, 0].legend(fontsize=7, frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel("control periods ahead")
    for axis in axes[:, 0]:
        axis.set_ylabel("error / climate's")
    write_text(place, plots.svg(figure) + "\n")


def main() -> None:
    """Parse, measure or draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--low", type=Path, help="run of world/ks4")
    parser.add_argument("--high", type=Path, help="run of world/ks4_slow on it")
    parser.add_argument(
        "--data", type=Path, help="runs both were trained on: what is read from slow latents is fitted on them"
    )
    parser.add_argument("--environment", default="ks_control_4")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument(
        "--first", type=int, default=HELD_OUT, help="seed of the first episode; choose settings on others"
    )
    parser.add_argument("--ahead", type=int, default=160, help="control periods")
    parser.add_argument("--seed", type=int, default=0, help="of the training, for the rows")
    parser.add_argument("--draw", type=Path, help="rows to draw instead")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.draw is not None:
        draw(json.loads(given.draw.read_text(encoding="utf-8"))["rows"], given.out)
        return
    if None in (given.low, given.high, given.data):
        parser.error("give --low, --high and --data, or --draw.")
    torch.set_num_threads(1)
    env = load_environment(given.environment, given.set)
    fast = load_world(given.low, env)
    slow = load_slow_world(given.high, fast)
    probes = Probes(slow, pdessl.open(given.data).load("unlabelled").fields[:, 0].double())
    rows = measured(env, fast, slow, probes, given.first, given.episodes, given.ahead)
    for kind in KINDS:
        for quantity in QUANTITIES:
            held = [row for row in rows if row["amplitudes"] == kind and row["quantity"] == quantity]
            print(f"{kind:8} {quantity:11} slow better from {beyond(held, '')}, damped from {beyond(held, '_damped')}")
    rows = [{"training_seed": given.seed, **row} for row in rows]
    command = shlex.join(["python", "benchmarks/far_ahead.py", *sys.argv[1:]])
    write_json(given.out, {"command": command, "versions": versions(), "machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
