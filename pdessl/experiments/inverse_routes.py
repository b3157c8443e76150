"""Routes from a window of frames to the parameters of its equation: constants, least squares, simulators, networks."""

# B runs, T frames, P targets, D features

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pdessl.errors import ShapeError
from pdessl.evaluation.classical import weak_form
from pdessl.evaluation.energy_balance import energy_balance
from pdessl.evaluation.frame_terms import frame_terms
from pdessl.experiments.inverse_degradation import Degradation, despiked
from pdessl.experiments.inverse_network import Network, TailoringSweep, tailor, train
from pdessl.experiments.inverse_sets import Held, windows
from pdessl.inference.frame_shooting import shoot_frames, smoothed
from pdessl.inference.tailoring import Tailoring
from pdessl.operators.search import discover
from pdessl.schema import Count, Natural
from pdessl.trajectory import Trajectories

__all__ = ["LABELLED", "Reader", "Route", "Setting", "best_constant", "reader"]

#: Kinds that read labels; the others have one row, whatever the number of labels.
LABELLED = ("constant", "network", "operator")
_CANDIDATES = 9
_WEAK = 5  # frames for a test function with one on each side of its centre, and a second one

#: Gives estimates (B, P), as they are shown, and what novelty is judged by, (B, D), of windows.
Reader = Callable[[Trajectories], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Route:
    """One way to find parameters.

    Args:
        kind: ``constant`` (the one number that fits the labels best), ``least_squares`` (the equation between frames,
            :func:`pdessl.evaluation.frame_terms.frame_terms`), ``weak_form``
            (:func:`pdessl.evaluation.classical.weak_form`), ``energy_balance`` (of flows that nothing drives, whose one
            unknown is the viscosity, :func:`pdessl.evaluation.energy_balance.energy_balance`), ``shooting`` (the
            simulator from frame to frame, :func:`pdessl.inference.frame_shooting.shoot_frames`), ``network``, or
            ``operator`` (a law found in the training runs without labels, whose code is read from few).
        smooth: least squares, weak form, energy balance and operator: whether windows go through the filter of
            :func:`pdessl.inference.frame_shooting.smoothed` first.
        despike: these and shooting: whether outliers are taken out before
            (:func:`pdessl.experiments.inverse_degradation.despiked`).
        network: how a network is made.
        tailoring: whether and how it is trained at test time.
        windows, noise, labels: the cases that it is run in; default all of the study's. Labels of 0 are all there are.
        sets: names of sets that it is run on; default all.
        degradations: those of the study that it is run with; default all.
    """

    kind: Literal["constant", "least_squares", "weak_form", "energy_balance", "shooting", "network", "operator"]
    smooth: bool = False
    despike: bool = False
    network: Network = Network()
    tailoring: TailoringSweep | None = None
    windows: tuple[Count, ...] | None = None
    noise: tuple[Natural, ...] | None = None
    labels: tuple[Natural, ...] | None = None
    sets: tuple[str, ...] | None = None
    degradations: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """What a route is run on.

    Args:
        held: the set.
        labelled: training runs whose labels may be read, whole.
        looked_at: windows of validation runs, whose labels choose among trainings.
        frames: T.
        noise: standard deviation over that of the fields.
        seed: of everything that is drawn.
        degradation: what else is done to the frames.
    """

    held: Held
    labelled: Trajectories
    looked_at: Trajectories
    frames: int
    noise: float
    seed: int
    degradation: Degradation = Degradation()

    def training(self, runs: Trajectories) -> Trajectories:
        """Return a window of each training run."""
        return windows(runs, self.frames, self.noise, self.seed, "training", self.degradation)


def best_constant(truth: Tensor) -> Tensor:
    """Return per column the number c with the least mean |c - y|/y: the median of y with weights 1/y, (P,)."""
    found = []
    for column in truth.unbind(dim=1):
        values, order = column.sort()
        weight = (1 / column[order].abs()).cumsum(dim=0)
        found.append(values[int(torch.searchsorted(weight, weight[-1] / 2))])
    return torch.stack(found)


def reader(route: Route, setting: Setting) -> Reader:
    """Return what reads windows; a network is trained, and a law is found, here.

    Raises:
        PdesslError: windows that the route cannot read.
    """
    return {
        "constant": _constant, "least_squares": _least_squares, "weak_form": _weak_form,
        "energy_balance": _energy_balance, "shooting": _shooting, "network": _network, "operator": _operator,
    }[route.kind](route, setting)  # fmt: skip


def _constant(route: Route, setting: Setting) -> Reader:
    value = best_constant(setting.held.truth(setting.labelled))
    return lambda runs: (value.expand(len(runs), -1).clone(), torch.zeros(len(runs), 1, dtype=torch.float64))


def _filtered(route: Route, setting: Setting, runs: Trajectories) -> Trajectories:
    bare = _bare(route, setting, runs)
    return bare.replace(fields=smoothed(bare.fields)[0]) if route.smooth else bare


def _bare(route: Route, setting: Setting, runs: Trajectories) -> Trajectories:
    bare = setting.held.bare(runs)
    return bare.replace(fields=despiked(bare.fields.double())) if route.despike else bare


def _equation(held: Held) -> str:
    return held.of.equation or held.recipe.equation


def _logarithms(values: Tensor) -> Tensor:
    return values.clamp_min(1e-12).log()


def _least_squares(route: Route, setting: Setting) -> Reader:
    held = setting.held

    def read(runs: Trajectories) -> tuple[Tensor, Tensor]:
        terms = frame_terms(_equation(held), _filtered(route, setting, runs), list(held.of.targets))
        shown = held.of.shown(terms.solve())
        return shown, _logarithms(shown)

    return read


def _weak_form(route: Route, setting: Setting) -> Reader:
    held = setting.held

    if setting.frames < _WEAK:
        raise ShapeError(f"windows of {setting.frames} frames; test functions of the weak form need {_WEAK} or more.")

    def read(runs: Trajectories) -> tuple[Tensor, Tensor]:
        shown = held.of.shown(weak_form(_equation(held), _filtered(route, setting, runs), list(held.of.targets)))
        return shown, _logarithms(shown)

    return read


def _energy_balance(route: Route, setting: Setting) -> Reader:
    held = setting.held

    if len(held.of.targets) > 1:
        raise ShapeError(f"the energy balance has one unknown; the set has {', '.join(held.of.targets)}.")

    def read(runs: Trajectories) -> tuple[Tensor, Tensor]:
        shown = held.of.shown(energy_balance(_filtered(route, setting, runs))[:, :1])
        return shown, _logarithms(shown)

    return read


def _candidates(held: Held) -> Tensor:
    """Return hidden values over the prior: in equal ratios for one target, its middle for several, (S, P)."""
    low, high = (torch.tensor([r[i] for r in (held.of.prior[n] for n in held.of.targets)]).double() for i in (0, 1))
    count = _CANDIDATES if len(low) == 1 else 1
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return held.of.hidden(low * (high / low) ** shares[:, None])


def _shooting(route: Route, setting: Setting) -> Reader:
    held = setting.held
    kind, names = held.recipe.simulator, list(held.of.targets)
    arguments = held.recipe.content["solver"].get("arguments", {})

    def read(runs: Trajectories) -> tuple[Tensor, Tensor]:
        bare = _bare(route, setting, runs)
        filtered = bare.replace(fields=smoothed(bare.fields)[0])
        start = frame_terms(_equation(held), filtered, names).solve()
        found = shoot_frames(kind, bare, names, start, arguments, iterations=6, candidates=_candidates(held))
        shown = held.of.shown(found.value.nan_to_num(0.0))
        return shown, _logarithms(shown)

    return read


def _network(route: Route, setting: Setting) -> Reader:
    held = setting.held
    trained = train(
        route.network, held, setting.labelled, setting.frames, setting.noise, setting.seed, setting.looked_at,
        setting.degradation,
    )  # fmt: skip
    if route.tailoring is None:
        return trained.read
    chosen = route.tailoring
    names, equation = list(held.of.targets), _equation(held)

    def tailored(runs: Trajectories, rate: float) -> Tensor:
        terms = frame_terms(equation, _filtered(route, setting, runs), names)
        return tailor(trained, Tailoring(chosen.steps, rate, chosen.anchor), held, runs, terms)

    truth = held.truth(setting.looked_at)
    errors = {
        rate: float(((tailored(setting.looked_at, rate) - truth).abs() / truth).mean())
        for rate in chosen.learning_rates
    }
    best = min(errors, key=lambda rate: errors[rate])
    return lambda runs: (tailored(runs, best), trained.read(runs)[1])


def _operator(route: Route, setting: Setting) -> Reader:
    held = setting.held
    whole = setting.training(held.training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a law says against itself is in its row's error
        law = discover(_filtered(route, setting, whole), rank=len(held.of.targets))

    def code(runs: Trajectories) -> Tensor:
        return law.encode(_filtered(route, setting, runs))[0]

    z = code(setting.training(setting.labelled))
    middle, spread = z.mean(dim=0), z.std(dim=0).clamp_min(1e-300)
    columns = torch.cat([torch.ones(len(z), 1, dtype=torch.float64), (z - middle) / spread], dim=1)
    slopes = torch.linalg.lstsq(columns, held.of.hidden(held.truth(setting.labelled))).solution

    def read(runs: Trajectories) -> tuple[Tensor, Tensor]:
        z = (code(runs) - middle) / spread
        shown = held.of.shown(torch.cat([torch.ones(len(z), 1, dtype=torch.float64), z], dim=1) @ slopes)
        return shown, z

    return read
