"""Which futures are possible? Forecasters of runs under a force that nobody sees.

    python benchmarks/futures.py --only burgers --out results/rows/imagination/futures_burgers.json

Trained are the recipe ``world/burgers_futures`` (or ``ks22_futures``), whose predictor has a latent variable, and the
same without; each is rolled out from one frame of every test run, 39 times where it knows of more than one future.
Errors and energy scores are in deviations of the field; the energy score is that of whole fields, coverage that of
single nodes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdessl.data import PDEDataModule, generate
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.evaluation.futures import best_error, energy_score, sample_coverage
from pdessl.evaluation.metrics import r2
from pdessl.experiments.pretraining import pretrain
from pdessl.experiments.provenance import machine, versions
from pdessl.experiments.training import quietly
from pdessl.files import write_json
from pdessl.models import GridActionPredictor, fit_ridge
from pdessl.solvers import random_stream
from pdessl.tasks import WorldModel
from pdessl.trajectory import Trajectories

CASES = {
    "burgers": ("burgers_random_force", "world/burgers_futures"),
    "ks": ("kuramoto_sivashinsky_random_force", "world/ks22_futures"),
}
SAMPLES, FEW, START = 39, 4, 8
WITHOUT = ["model.predictor.init_args.undetermined=0", "model.latent_variable=null"]
# The number of sines and cosines of the force: what a dimension that is known limits ξ to.
KNOWN = {"burgers": 4, "ks": 6}

Step = Callable[[Tensor, torch.Generator], Tensor]  # latents (n, X, 1) -> one of the next ones


def trained(recipe: str, data: Path, out: Path, words: list[str], seed: int = 0) -> WorldModel:
    """Return a world model of a recipe."""
    given = [
        *words,
        f"data.path={data}",
        f"model.seed={seed}",
        f"seed_everything={seed}",
        "trainer.enable_progress_bar=false",
    ]
    with quietly():
        task = pretrain(recipe, given, out).task
    assert isinstance(task, WorldModel)
    return task.eval()


def latents_of(task: WorldModel, runs: Trajectories) -> Tensor:
    """Return the standardised fields of all frames, (B, T, X, 1)."""
    fields = runs.fields
    with torch.no_grad():
        found = task.latent(fields.transpose(1, 2).flatten(0, 1)[:, :, None])
    return found.unflatten(0, (len(fields), fields.shape[2]))


def plain(task: WorldModel) -> Step:
    """Return the most likely step."""
    return lambda z, generator: task.predictor(z, z.new_zeros(len(z), 0))


def free(task: WorldModel) -> Step:
    """Return a step with ξ drawn."""
    return lambda z, generator: task.predictor(z, task.latent_variable.sample(len(z), generator))


def residuals(task: WorldModel, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return latents (n, X) and the errors of one step from them."""
    before, after = z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1)
    with torch.no_grad():
        return before, (after - task.predictor(before, before.new_zeros(len(before), 0)))[..., 0]


def correlated(task: WorldModel, held: Tensor) -> Step:
    """Return a step with Gaussian errors of the covariance over all nodes that they have on held-out runs."""
    errors = residuals(task, held)[1].double()
    covariance = errors.T @ errors / len(errors)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp_min(0).sqrt()).float()
    likely = plain(task)

    def step(z: Tensor, generator: torch.Generator) -> Tensor:
        return likely(z, generator) + (torch.randn(len(z), root.shape[1], generator=generator) @ root.T)[..., None]

    return step


def by_node(task: WorldModel, z: Tensor, steps: int, seed: int = 0) -> Step:
    """Return a step with Gaussian errors, independent between nodes; a network tells their variances from the state."""
    before, errors = residuals(task, z)
    torch.manual_seed(seed)
    sizes = {n: task.predictor.init_args[n] for n in ("latent", "tokens", "width", "blocks")}
    head = GridActionPredictor(actions=0, **sizes)
    level = nn.Parameter(errors.square().mean().log())
    optimiser = torch.optim.Adam([*head.parameters(), level], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)

    def spread(state: Tensor) -> Tensor:
        return (level + head(state, state.new_zeros(len(state), 0)) - state)[..., 0].clamp(-25, 5)

    for _ in range(steps):
        rows = torch.randint(len(before), (128,), generator=generator)
        found = spread(before[rows])
        loss = (found + errors[rows].square() * (-found).exp()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    likely = plain(task)

    def step(state: Tensor, noise: torch.Generator) -> Tensor:
        deviation = (spread(state) / 2).exp()
        return likely(state, noise) + (deviation * torch.randn(deviation.shape, generator=noise))[..., None]

    return step


@torch.no_grad()
def rolled(step: Step, z: Tensor, horizon: int, samples: int, seed: int = 0) -> Tensor:
    """Return futures (M, B, H, X) of latents z (B, X, 1)."""
    generator = torch.Generator().manual_seed(seed)
    now, found = z.repeat(samples, 1, 1), []
    for _ in range(horizon):
        now = step(now, generator)
        found.append(now[..., 0])
    return torch.stack(found, dim=1).unflatten(0, (samples, len(z)))


def solved(recipe: DatasetRecipe, runs: Trajectories, start: int, horizon: int, samples: int) -> Tensor:
    """Return futures (M, B, H, X) of the true equation under new draws of the force, in units of the field."""
    family, points = recipe.forcing, recipe.content["solver"]["points"]
    assert family is not None
    nodes = runs.fields.shape[3]
    modes = torch.fft.rfft(runs.fields[:, 0, start].double(), norm="forward")
    fine = torch.fft.irfft(modes, n=points, norm="forward")[:, None]
    drawn = [family.draw(random_stream(1, "futures", i, "forcing")) for i in range(samples * len(runs))]
    simulator = recipe.simulator(
        **recipe.constants, domain_length=float(runs.lengths[0, 0]), points=points, check_resolution=False,
        dtype=torch.float64,
        forcing=family.forcing(torch.stack(drawn), points),
    )  # fmt: skip
    times = float(runs.time_step[0]) * torch.arange(horizon + 1, dtype=torch.float64)
    found = simulator(fine.repeat(samples, 1, 1), times).fields[:, 0, 1:, :: points // nodes]
    return found.unflatten(0, (samples, len(runs)))


def scored(name: str, futures: Tensor, truth: Tensor, horizons: list[int]) -> list[dict[str, Any]]:
    """Return a row per horizon, of futures (M, B, H, X) and the truth (B, H, X)."""
    rows = []
    for horizon in horizons:
        x, y = futures[:, :, horizon - 1], truth[:, horizon - 1]
        score = energy_score(x, y)
        row = {
            "forecaster": name,
            "steps": horizon,
            "energy_score": float(score.mean()),
            "standard_error": float(score.std() / len(score) ** 0.5),
            "error_of_the_mean": float((x.double().mean(dim=0) - y).square().mean(dim=1).sqrt().mean()),
            f"best_of_{FEW}": float(best_error(x, y, FEW).mean()) if len(x) >= FEW else None,
            f"best_of_{SAMPLES}": float(best_error(x, y, SAMPLES).mean()) if len(x) >= SAMPLES else None,
        }
        if len(x) > 1:
            inside, promised = sample_coverage(x, y)
            row |= {"coverage": 100 * inside, "promised": 100 * promised}
        rows.append(row)
    return rows


def force_of(recipe: DatasetRecipe, split: str, runs: Trajectories) -> Tensor:
    """Return the numbers of the force that acts after each frame but the last, (B, T - 1, 2 K)."""
    family = recipe.forcing
    assert family is not None
    numbers = torch.stack([family.draw(random_stream(recipe.seed, split, i, "forcing", 0)) for i in range(len(runs))])
    first = round(float(runs.time[0, 0]) / float(runs.time_step[0]))
    return numbers[:, :, first : first + runs.fields.shape[2] - 1].transpose(1, 2)


def read(inputs: list[Tensor], targets: list[Tensor]) -> float:
    """Return the R² on test runs, all targets together, of a ridge fitted on validation runs."""
    readout = fit_ridge(inputs[0], targets[0])
    weight = readout.weights / readout.scale[:, None]
    found = readout.intercept + (inputs[1] - readout.centre) @ weight
    return float(r2(found, targets[1]))


@torch.no_grad()
def examined(task: WorldModel, sets: dict[str, Trajectories], recipe: DatasetRecipe) -> dict[str, Any]:
    """Return what ξ holds: how many of its numbers, and whether the past, or the force, tells them."""
    past, xi, force, nats = [], [], [], 0.0
    for split, runs in sets.items():
        z = latents_of(task, runs)
        mean, spread = task.inferred(z[:, 1:-1], z[:, 2:], z.new_zeros(len(z), z.shape[1] - 2, 0))
        nats = float(task.latent_variable.price(mean.flatten(0, 1), spread.flatten(0, 1)))
        rows = torch.cat([z[:, 1:-1, :, 0], z[:, :-2, :, 0], z[:, 1:-1, :, 0] ** 2], dim=2).flatten(0, 1).double()
        past.append(rows)
        xi.append(mean.flatten(0, 1).double())
        force.append(force_of(recipe, split, runs)[:, 1:].flatten(0, 1))
    used = xi[0].var(dim=0) > 0.1
    found: dict[str, Any] = {"numbers_in_use": int(used.sum()), "of": len(used), "nats": nats}
    if bool(used.any()):
        held = [part[:, used] for part in xi]
        found["r2_of_xi_from_the_past"] = read(past, held)
        if recipe.forcing.amplitude:
            found["r2_of_the_force_from_xi"] = read(held, force)
    return found


def measured(case: str, options: argparse.Namespace, folder: Path, amplitude: float | None) -> list[dict[str, Any]]:
    """Train and measure all forecasters (without a force: one with ξ and one without)."""
    dataset, recipe_name = CASES[case]
    changes = {} if amplitude is None else {"forcing.amplitude": amplitude}
    recipe = load_recipe(dataset, overrides=changes)
    data = folder / f"{case}_{amplitude}"
    size = {"unlabelled": options.unlabelled, "labelled": 1, "validation": 64, "test": options.runs}
    generate(dataset, data, size=size, overrides=changes, progress=False)
    module = PDEDataModule(path=str(data))
    module.setup()
    sets = {"validation": module.validation, "test": module.test}
    words = list(options.set)
    without = [
        trained(recipe_name, data, folder / f"{data.name}_w{i}", [*words, *WITHOUT], i)
        for i in range(1 if amplitude == 0 else options.members)
    ]
    kinds = {"latent variable, KL": []}
    if amplitude is None:
        size = KNOWN[case]
        kinds["latent variable, known dimension and noise"] = [
            f"model.predictor.init_args.undetermined={size}", f"model.latent_variable.init_args.size={size}",
            "model.latent_variable.init_args.regularised=noise", "model.latent_variable.init_args.noise=0.1",
        ]  # fmt: skip
    latent = {
        n: trained(recipe_name, data, folder / f"{data.name}_{i}", [*words, *w])
        for i, (n, w) in enumerate(kinds.items())
    }
    z = latents_of(without[0], sets["test"])
    start, horizons = z[:, START], [h for h in (1, 4, 16) if START + h < z.shape[1]]
    truth, most = z[:, START + 1 :, :, 0], horizons[-1]
    rows = scored("deterministic", rolled(plain(without[0]), start, most, 1), truth, horizons)
    if amplitude is None:
        futures = torch.cat([rolled(plain(task), start, most, 1) for task in without])
        rows += scored(f"ensemble of {len(without)}", futures, truth, horizons)
        seen = latents_of(without[0], module.unlabelled)
        head = by_node(without[0], seen, options.head_steps)
        rows += scored("Gaussian head, node by node", rolled(head, start, most, SAMPLES), truth, horizons)
        wide = correlated(without[0], latents_of(without[0], sets["validation"]))
        rows += scored("Gaussian errors, full covariance", rolled(wide, start, most, SAMPLES), truth, horizons)
    for name, task in latent.items():
        off = scored(f"{name}, ξ = 0", rolled(plain(task), start, most, 1), truth, horizons)
        on = scored(name, rolled(free(task), start, most, SAMPLES), truth, horizons)
        on[0] |= examined(task, sets, recipe) | {"table": "xi"}
        rows += [*on, *off]
    if amplitude is None:
        mean, std = (torch.tensor(without[0].encoder.statistics[n]) for n in ("mean", "std"))
        exact = solved(recipe, sets["test"], START, most, SAMPLES)
        rows += scored("the solver, other draws of the force", (exact - mean) / std, truth, horizons)
    return [{"data": case if amplitude is None else f"{case}_unforced", **row} for row in rows]


def main() -> None:
    """Print a row per forecaster and horizon, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--unlabelled", type=int, default=512)
    parser.add_argument("--runs", type=int, default=48, help="test runs")
    parser.add_argument("--members", type=int, default=4, help="of the ensemble")
    parser.add_argument("--head-steps", type=int, default=400, help="of the Gaussian head")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other values of the recipes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun, rows = time.process_time(), []
    with tempfile.TemporaryDirectory() as folder:
        for case in options.only:
            for amplitude in (None, 0.0):
                rows += measured(case, options, Path(folder), amplitude)
    for row in rows:
        inside = f"{row['coverage']:.0f} of {row['promised']:.0f} %" if "coverage" in row else ""
        best = " ".join(
            f"{row[f'best_of_{n}']:.4f}" if row[f"best_of_{n}"] is not None else "-" for n in (FEW, SAMPLES)
        )
        print(
            f"{row['data']:18s} {row['forecaster']:50s} {row['steps']:3d} steps: energy score "
            f"{row['energy_score']:.4f} best {best} {inside}"
        )
        if "nats" in row:
            print({n: row[n] for n in row if n in ("numbers_in_use", "of", "nats") or n.startswith("r2")})
    if options.out is not None:
        command = shlex.join(["python", "benchmarks/futures.py", *sys.argv[1:]])
        seconds = round(time.process_time() - begun)
        write_json(options.out, {
            "rows": rows, "command": command, "versions": versions(), "machine": machine(), "seconds": seconds,
        })  # fmt: skip


if __name__ == "__main__":
    main()
