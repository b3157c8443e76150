"""What a few-label comparison compares, and how much is spent on each method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pdessl.experiments.estimates import Classical
from pdessl.experiments.robustness import Intervals, Robustness
from pdessl.experiments.supervision import Supervision
from pdessl.inference.views import Views
from pdessl.schema import Count, Size

__all__ = ["CLOSED", "METHODS", "Regression"]

Closed: TypeAlias = Literal["law", "frozen", "trunk", "neighbours", "mean", "random", "physics", "balance", "energy"]
# Methods in closed form: their rows are fitted models. Those that are run unless others are named:
CLOSED: tuple[Closed, ...] = ("law", "frozen", "trunk", "neighbours", "mean", "random", "physics")

# method -> title and group of the table, in the order of the table
METHODS = {
    "law": ("law found in the unlabelled runs, its code", "pretrained"),
    "energy": ("law found in the unlabelled runs, code by least forecast error", "pretrained"),
    "frozen": ("frozen encoder, ridge on its features", "pretrained"),
    "trunk": ("frozen encoder, ridge on the values below its head", "pretrained"),
    "neighbours": ("frozen encoder, nearest neighbours", "pretrained"),
    "finetuned": ("fine-tuned encoder", "pretrained"),
    "mean": ("predict the mean", "floor"),
    "random": ("random encoder, same ridge", "floor"),
    "physics": ("hand-made physics features, ridge on every view", "floor"),
    "balance": ("energy balance, calibrated", "floor"),
    "scratch": ("supervised from scratch", "floor"),
    "moved": ("supervised, views that move the label", "floor"),
    "decay": ("energy balance itself, no label", "classical"),
    "least_squares": ("least squares, pointwise", "classical"),
    "weak_form": ("least squares, weak form", "classical"),
    "shooting": ("fitted through the simulator, from the weak form", "classical"),
}


@dataclass(frozen=True)
class Regression:
    """What is compared, and how much is spent on each method.

    Args:
        target: name of the parameter.
        scale: ``log`` or ``linear``; default what dataset and equation declare.
        labels: numbers of labelled runs; 0 means all there are.
        seeds: number of seeds; each draws its own labelled runs and initial weights. Of all labelled runs there is one
            draw only.
        views: views that features are averaged over for the frozen and the random encoder.
        methods: those in closed form: ``law`` (the code of the law that the unlabelled runs obey, see
            :func:`pdessl.discover`), ``frozen`` (ridge on the encoder's features), ``trunk`` (ridge on the values below
            its head, where it has one), ``neighbours`` (nearest neighbours of the features), ``mean``, ``random``
            (ridge on the same network untrained), ``physics`` (ridge on hand-made features of every view of the
            labelled runs, see :func:`pdessl.evaluation.physics_features.physics_features`), ``balance`` (a map of the
            energy balance alone, see :func:`pdessl.evaluation.energy_balance.energy_balance`; where labelled runs are
            left out in turn it is among them by default, elsewhere not).
        scratch: training of the same network from random weights; None leaves it out.
        moved: the same with views that move the label (``views.moves``); None leaves it out.
        finetune: training that starts from the pretrained encoder; None leaves it out.
        others: further trainings from the pretrained encoder, by a short name: other heads, other parts trained.
        classical: classical estimates; None leaves them out (equations that are not linear in the target).
        intervals: kinds of intervals, measured; None leaves them out.
        robustness: what becomes of errors and intervals on other runs; None leaves it out.
        shown: number of labels of the figure of predictions; default the smallest.
        first_seed: number of the first seed.
    """

    target: str = "viscosity"
    scale: Literal["log", "linear"] | None = None
    labels: tuple[Size, ...] = (32, 64, 256)
    seeds: Count = 3
    views: Views = field(default_factory=Views)
    methods: tuple[Closed, ...] = CLOSED
    scratch: Supervision | None = None
    moved: Supervision | None = None
    finetune: Supervision | None = None
    others: dict[str, Supervision] | None = None
    classical: Classical | None = None
    intervals: Intervals | None = None
    robustness: Robustness | None = None
    shown: Count | None = None
    first_seed: Size = 0

    def trainings(self) -> dict[str, Supervision]:
        """Return the trainings by gradient, by method."""
        own = {"finetuned": self.finetune, "scratch": self.scratch, "moved": self.moved}
        return {name: value for name, value in own.items() if value is not None} | (self.others or {})

    def title(self, method: str) -> tuple[str, str]:
        """Return what readers see of a method, and its group of the table."""
        if method in METHODS:
            return METHODS[method]
        return self.trainings()[method].title or method, "pretrained"

    def ordered(self, methods: object) -> list[str]:
        """Return methods in the order of the table."""
        own = [method for method, (_, group) in METHODS.items() if group == "pretrained"]
        order = [*own, *(self.others or {}), *(method for method in METHODS if method not in own)]
        return sorted(dict.fromkeys(methods), key=order.index)  # type: ignore[call-overload, no-any-return]
