"""What the time-steppers of a comparison are told: a vector per run, of training and of test, for every condition."""

# N runs, M draws, D features, F width of a condition

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError, PdesslError, did_you_mean
from pdessl.experiments.untrained import calibrated, untrained
from pdessl.inference.conditions import Components, Condition, Prediction, spacing
from pdessl.inference.encoding import RunEncoder
from pdessl.operators import CoarseStep, LatentOperator, discover
from pdessl.trajectory import Trajectories

__all__ = ["Told", "told"]

_RUNS_OF_A_LAW = 256
_OF_A_LAW = ("operator", "law", "hybrid")


@dataclass(frozen=True, eq=False)
class Told:
    """What one row of the table is told.

    Args:
        train, test: (N, F) each, or None; of test runs also (M, N, F), of which every draw is rolled out.
        condition: where new runs get theirs from; None for floors, which are not saved.
        law: for the rows of a law.
        coarse: the step that a network corrects; None: none.
        draw: makes other vectors for every seed; None: they are the same.
        notes: for the report.
    """

    train: Tensor | None = None
    test: Tensor | None = None
    condition: Condition | None = None
    law: LatentOperator | None = None
    coarse: CoarseStep | None = None
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
    if set(_OF_A_LAW) & set(wanted) and law is None:
        law = discover(data.unlabelled.without_parameters()[slice(0, _RUNS_OF_A_LAW)], resamples=2)
        report(f"the law of the unlabelled runs: {law}")
    for name in wanted:
        if name == "none":
            found[name] = Told(condition=Condition())
        elif name == "parameter":
            found[name] = _parameter(train, test, _targets(settings))
        elif name == "law":
            assert law is not None  # noqa: S101  (found above)
            found[name] = Told(law=law, notes=tuple(law.warnings()))
            _try(law, seen[1])
        elif name == "recomputed":
            continue  # the network of the representation
        elif name in _OF_A_LAW:
            assert law is not None  # noqa: S101  (found above)
            found[name] = _codes(name, law, seen)
        else:
            network = _network(encoder, name)
            found[name] = _of_encoder(name, network, seen, settings, train)
    return {n: _with_spacing(m, train, test) for n, m in found.items()} if settings.spacing else found


def _targets(settings: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys((settings.target, *settings.also)))


def _with_spacing(what: Told, train: Trajectories, test: Trajectories) -> Told:
    """Return the same, followed by time step and node distances."""

    def joined(vectors: Tensor | None, runs: Trajectories) -> Tensor:
        steps = spacing(runs)
        return steps if vectors is None else torch.cat([vectors, steps.expand(*vectors.shape[:-1], -1)], dim=-1)

    def drawn(seed: int) -> tuple[Tensor, Tensor]:
        first, second = what.vectors(seed)
        return joined(first, train), joined(second, test)

    condition = None if what.condition is None else replace(what.condition, spacing=True)
    return replace(what, draw=drawn, condition=condition)


def _try(law: LatentOperator, seen: Trajectories) -> None:
    """Fail before anything is trained where the law cannot be integrated."""
    from pdessl.operators import follow

    follow(law, seen[slice(0, 1)], 1, rounds=0)


def _parameter(train: Trajectories, test: Trajectories, names: tuple[str, ...]) -> Told:
    condition = _scaled(train, names)
    if any(n not in test.parameters for n in names):
        raise DataError(
            f"the test runs have no parameter {' or '.join(names)}: leave out the condition 'parameter', which is "
            "told it."
        )
    if condition.scale == "log" and any(bool((test.parameters[n] <= 0).any()) for n in names):
        condition = replace(condition, scale="linear")
    return Told(condition.of(train), condition.of(test), condition)


def _scaled(train: Trajectories, names: tuple[str, ...]) -> Condition:
    """Return the condition on parameters of the runs of training, on the scale that their values allow."""
    missing = [n for n in names if n not in train.parameters]
    if missing:
        raise DataError(
            f"the runs have no parameter '{missing[0]}'.{did_you_mean(missing[0], train.parameters)} They have "
            f"{', '.join(train.parameters) or 'none'}: --set timestepping.target=NAME, or leave out the condition "
            "'parameter'."
        )
    positive = all(bool((train.parameters[n] > 0).all()) for n in names)
    return Condition("parameter", names, "log" if positive else "linear")


def _codes(name: str, law: LatentOperator, seen: tuple[Trajectories, ...]) -> Told:
    if not law.rank and name == "operator":
        raise DataError("the law has no number that differs between runs (rank 0): leave out the condition 'operator'.")
    condition, coarse = Condition(name, law=law), None
    if name == "hybrid":
        coarse = CoarseStep(law)
        _try(law, seen[1])
    vectors = [condition.of(runs) for runs in seen]
    return Told(vectors[0], vectors[1], condition, law, coarse, notes=tuple(law.warnings()))


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
    return _reader("representation", encoder).features(runs)


def _reader(kind: str, encoder: nn.Module | LatentOperator) -> Condition:
    law = isinstance(encoder, LatentOperator)
    return Condition(kind, law=encoder) if law else Condition(kind, encoder=encoder)  # type: ignore[arg-type]


def _of_encoder(
    name: str,
    encoder: nn.Module | LatentOperator,
    seen: tuple[Trajectories, ...],
    settings: Any,
    runs: Trajectories,
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
    if name in ("predicted", "posterior"):
        return _predicted(_reader(name, encoder), features, runs, settings)
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


def _predicted(reader: Condition, features: list[Tensor], runs: Trajectories, settings: Any) -> Told:
    """Return parameters as ridges on features predict them, out of fold for the runs of training.

    A posterior is of no use to a network that was trained on predictions, which hedges already: it is trained on the
    true parameters, and told draws of the posterior of each test run.
    """
    condition = _scaled(runs, _targets(settings))
    truth = condition.of(runs)
    assert truth is not None  # noqa: S101  (a parameter has it)
    try:
        prediction = Prediction.fit(features[0], truth)
    except PdesslError as error:
        raise DataError(f"condition '{reader.kind}': {error}") from None
    reader = replace(
        reader, parameters=condition.parameters, scale=condition.scale, prediction=prediction, draws=settings.draws
    )
    if reader.kind == "posterior":
        return Told(truth, prediction.draws(features[1], settings.draws), reader)
    return Told(prediction.held_out, prediction.of(features[1]), reader)
