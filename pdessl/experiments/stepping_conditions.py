"""What the time-steppers of a comparison are told: a vector per run, of training and of test, for every condition."""

# N runs, D features, F width of a condition

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError, PdesslError, did_you_mean
from pdessl.experiments.untrained import calibrated, untrained
from pdessl.inference.conditions import Components, Condition
from pdessl.inference.encoding import RunEncoder
from pdessl.models import embed, fit_ridge
from pdessl.operators import LatentOperator, discover
from pdessl.operators.following import shortened
from pdessl.trajectory import Trajectories

__all__ = ["Told", "told"]

_RUNS_OF_A_LAW = 256
_FOLDS = 5
_PART = 128


@dataclass(frozen=True, eq=False)
class Told:
    """What one row of the table is told.

    Args:
        train, test: (N, F) each, or None.
        condition: where new runs get theirs from; None for floors, which are not saved.
        law: for the rows of a law.
        draw: makes other vectors for every seed; None: they are the same.
        notes: for the report.
    """

    train: Tensor | None = None
    test: Tensor | None = None
    condition: Condition | None = None
    law: LatentOperator | None = None
    draw: Callable[[int], tuple[Tensor, Tensor]] | None = None
    notes: tuple[str, ...] = field(default=())

    def vectors(self, seed: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the vectors of a seed."""
        return (self.train, self.test) if self.draw is None else self.draw(seed)


def told(
    encoder: nn.Module | RunEncoder | None,
    data: PDEDataModule,
    train: Trajectories,
    test: Trajectories,
    context: int,
    settings: Any,
    report: Callable[[str], None],
) -> Mapping[str, Told]:
    """Return what every condition of the settings says of the runs, from their contexts alone.

    Raises:
        DataError: no such parameter, or a condition that needs a network where there is none.
    """
    wanted = settings.conditions
    seen = tuple(runs.window(slice(0, context)) for runs in (train, test))
    found: dict[str, Told] = {}
    law = encoder if isinstance(encoder, LatentOperator) else None
    if {"operator", "law"} & set(wanted) and law is None:
        law = discover(data.unlabelled.without_parameters()[slice(0, _RUNS_OF_A_LAW)], resamples=2)
        report(f"the law of the unlabelled runs: {law}")
    for name in wanted:
        if name == "none":
            found[name] = Told(condition=Condition())
        elif name == "parameter":
            found[name] = _parameter(train, test, settings.target)
        elif name == "law":
            assert law is not None  # noqa: S101  (found above)
            found[name] = Told(law=law, notes=tuple(law.warnings()))
            _try(law, seen[1])
        elif name == "operator":
            assert law is not None  # noqa: S101  (found above)
            found[name] = _codes(law, seen)
        else:
            network = _network(encoder, name)
            found[name] = _of_encoder(name, network, seen, settings, (train, test))
    return found


def _try(law: LatentOperator, seen: Trajectories) -> None:
    """Fail before anything is trained where the law cannot be integrated."""
    from pdessl.operators import follow

    follow(law, seen[slice(0, 1)], 1, rounds=0)


def _parameter(train: Trajectories, test: Trajectories, name: str) -> Told:
    if name not in train.parameters:
        raise DataError(
            f"the runs have no parameter '{name}'.{did_you_mean(name, train.parameters)} They have "
            f"{', '.join(train.parameters) or 'none'}: --set timestepping.target=NAME, or leave out the condition "
            "'parameter'."
        )
    positive = all(bool((runs.parameters[name] > 0).all()) for runs in (train, test))
    condition = Condition("parameter", (name,), "log" if positive else "linear")
    return Told(condition.of(train), condition.of(test), condition)


def _codes(law: LatentOperator, seen: tuple[Trajectories, ...]) -> Told:
    if not law.rank:
        raise DataError("the law has no number that differs between runs (rank 0): leave out the condition 'operator'.")
    condition = Condition("operator", law=law)
    vectors = [condition.of(runs) for runs in seen]
    return Told(vectors[0], vectors[1], condition, law, notes=tuple(law.warnings()))


def _network(encoder: nn.Module | RunEncoder | None, name: str) -> nn.Module | LatentOperator:
    if isinstance(encoder, LatentOperator) and name != "random":
        return encoder
    if not isinstance(encoder, nn.Module):
        raise DataError(
            f"the condition '{name}' needs an encoder, and {'a law' if encoder is not None else 'none'} was given. "
            "Give one: --encoder FOLDER (pdessl pretrain), or choose other conditions: --condition none parameter law."
        )
    return encoder


def _features(encoder: nn.Module | LatentOperator, runs: Trajectories) -> Tensor:
    if isinstance(encoder, LatentOperator):
        return shortened(encoder, runs.fields.shape[2]).encode(runs)[0]
    parts = [runs[slice(i, i + _PART)] for i in range(0, len(runs), _PART)]
    return embed(encoder, parts).cpu()


def _of_encoder(
    name: str,
    encoder: nn.Module | LatentOperator,
    seen: tuple[Trajectories, ...],
    settings: Any,
    runs: tuple[Trajectories, ...],
) -> Told:
    if name == "random":
        assert isinstance(encoder, nn.Module)  # noqa: S101  (see _network)
        network = encoder

        def drawn(seed: int) -> tuple[Tensor, Tensor]:
            fresh = calibrated(untrained(network, 1000 + seed), [seen[0]])
            first, second = (_features(fresh, r) for r in seen)
            components = Components.fit(first, settings.components)
            return components.of(first), components.of(second)

        return Told(draw=drawn)
    features = [_features(encoder, r) for r in seen]
    if name == "predicted":
        return _predicted(features, runs, settings.target)
    components = Components.fit(features[0], settings.components)
    vectors = [components.of(f) for f in features]
    if name == "shuffled":

        def shuffled(seed: int) -> tuple[Tensor, Tensor]:
            generator = torch.Generator().manual_seed(seed)
            first, second = (v[torch.randperm(len(v), generator=generator)] for v in vectors)
            return first, second

        return Told(draw=shuffled)
    if isinstance(encoder, LatentOperator):
        condition = Condition("operator", law=encoder)
        return Told(features[0], features[1], condition, encoder)
    return Told(vectors[0], vectors[1], Condition("representation", encoder=encoder, components=components))


def _predicted(features: list[Tensor], runs: tuple[Trajectories, ...], target: str) -> Told:
    """Return log parameters as ridges on features predict them, out of fold for the runs of training."""
    condition = _parameter(*runs, target).condition
    assert condition is not None  # noqa: S101  (a parameter has one)
    truth = condition.of(runs[0])
    assert truth is not None  # noqa: S101  (as above)
    fold = torch.arange(len(truth)) % _FOLDS
    train = torch.empty_like(truth)
    try:
        for k in range(_FOLDS):
            train[fold == k] = fit_ridge(features[0][fold != k], truth[fold != k]).predict(features[0][fold == k])
        test = fit_ridge(features[0], truth).predict(features[1])
    except PdesslError as error:
        raise DataError(f"condition 'predicted': {error}") from None
    return Told(train, test)
