"""What a surrogate is told: a vector per run, from its parameters, or from the frames of its context."""

# B runs, N runs of training, M draws, F width of the condition, D features, P parameters, T frames, d space axes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdessl.errors import DataError, did_you_mean
from pdessl.models import embed, fit_ridge, to_scale
from pdessl.operators import LatentOperator, codes_of
from pdessl.operators.following import shortened
from pdessl.trajectory import Trajectories

__all__ = ["Components", "Condition", "Prediction", "spacing"]

_BATCH = 128
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Components:
    """Leading principal components of features, each of deviation 1 over the runs they were fitted on.

    Args:
        mean: (D,).
        directions: (D, F).
    """

    mean: Tensor
    directions: Tensor

    @staticmethod
    def fit(features: Tensor, count: int) -> Components:
        """Fit on features (N, D); directions without variance are left out, so that F <= count."""
        mean = features.double().mean(dim=0)
        _, singular, directions = torch.linalg.svd(features.double() - mean, full_matrices=False)
        kept = max(min(count, int((singular > 1e-9 * singular[0]).sum())), 1)
        scale = (singular[:kept] / max(len(features) - 1, 1) ** 0.5).clamp_min(torch.finfo(torch.float64).tiny)
        return Components(mean, directions[:kept].T / scale)

    def of(self, features: Tensor) -> Tensor:
        """Return components (N, F) of features (N, D)."""
        return (features.double() - self.mean) @ self.directions


@dataclass(frozen=True, eq=False)
class Prediction:
    """Parameters as a ridge on features predicts them, and how far off it is for runs that are like a given one.

    The posterior of a run is that of its neighbours: its own prediction plus the errors that the ridge made on the M
    runs of training with the closest predictions, each of which was predicted by a ridge that had not seen it. No shape
    is assumed, errors may depend on the parameter, and nothing is drawn at random.

    Args:
        weights: (D, P), of the features as they are.
        offset: (P,).
        held_out: predictions of the runs of training, out of fold, (N, P).
        errors: true minus these, (N, P).
    """

    weights: Tensor
    offset: Tensor
    held_out: Tensor
    errors: Tensor

    @staticmethod
    def fit(features: Tensor, truth: Tensor) -> Prediction:
        """Fit on features (N, D) and parameters (N, P), N >= 15.

        Raises:
            DataError: fewer runs than 3 for each of 5 folds, or values that are not finite.
        """
        if len(truth) < 3 * _FOLDS:
            raise DataError(
                f"{len(truth)} labelled runs; predicting a parameter with its errors takes {3 * _FOLDS} or more. Give "
                "more, or leave out the conditions 'predicted' and 'posterior'."
            )
        fold, held_out = torch.arange(len(truth)) % _FOLDS, torch.empty_like(truth)
        for k in range(_FOLDS):
            held_out[fold == k] = fit_ridge(features[fold != k], truth[fold != k]).predict(features[fold == k])
        ridge = fit_ridge(features, truth)
        weights = ridge.weights / ridge.scale[:, None]
        return Prediction(weights, ridge.intercept - ridge.centre @ weights, held_out, truth - held_out)

    def of(self, features: Tensor) -> Tensor:
        """Return predictions (B, P) for features (B, D)."""
        return features.double() @ self.weights + self.offset

    def draws(self, features: Tensor, count: int) -> Tensor:
        """Return M draws of the posterior of each run, (M, B, P), for features (B, D); M = ``count`` or all runs."""
        found = self.of(features)
        spread = self.held_out.std(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
        distance = torch.cdist(found / spread, self.held_out / spread)
        nearest = distance.topk(min(count, len(self.errors)), dim=1, largest=False).indices
        return found + self.errors[nearest].transpose(0, 1)


def spacing(runs: Trajectories) -> Tensor:
    """Return the logarithms of time step and node distances of runs, (B, 1 + d), float64."""
    return torch.cat([runs.time_step[:, None], runs.grid_spacing], dim=1).double().log()


@dataclass(frozen=True, eq=False)
class Condition:
    """Where the condition of a surrogate comes from.

    Args:
        kind: ``none``; ``parameter``: read from the runs; ``representation``: features of a network on the context;
            ``operator``: codes of a law on the context; ``predicted``: parameters as a ridge on one of these predicts
            them; ``posterior``: the same, with what it does not know of them; ``hybrid``: codes of a law one step of
            which the surrogate corrects; ``law``: no network at all, the law itself is integrated.
        parameters: names, for ``parameter``, and for ``predicted`` and ``posterior`` those that are predicted.
        scale: ``log`` or ``linear``, of the parameters.
        encoder: network, for ``representation``, ``predicted`` and ``posterior``.
        components: of its features; None: the features themselves.
        law: for ``operator``, ``hybrid`` and ``law``; for ``predicted`` and ``posterior`` instead of an encoder.
        prediction: for ``predicted`` and ``posterior``.
        draws: M, rollouts of a ``posterior``, each told another draw.
        spacing: the logarithms of time step and node distances follow whatever else is told.
    """

    kind: str = "none"
    parameters: tuple[str, ...] = ()
    scale: str = "log"
    encoder: nn.Module | None = None
    components: Components | None = None
    law: LatentOperator | None = None
    prediction: Prediction | None = None
    draws: int = 1
    spacing: bool = False

    def of(self, context: Trajectories) -> Tensor | None:
        """Return the condition of runs of which these frames were seen, float64; None without one.

        Returns:
            (B, F); of a posterior (M, B, F).

        Raises:
            DataError: a parameter that the runs do not hold.
        """
        found = self._told(context)
        if not self.spacing:
            return found
        steps = spacing(context)
        if found is None:
            return steps
        return torch.cat([found, steps.expand(*found.shape[:-1], -1)], dim=-1)

    def _told(self, context: Trajectories) -> Tensor | None:
        if self.kind == "parameter":
            return torch.stack([to_scale(_known(context, n), self.scale, n) for n in self.parameters], dim=1)
        if self.kind == "hybrid" and self.law is not None:
            return codes_of(self.law, context) if self.law.rank else None  # a law without a code is corrected, too
        if self.kind == "posterior" and self.prediction is not None:
            return self.prediction.draws(self.features(context), self.draws)
        if self.kind == "predicted" and self.prediction is not None:
            return self.prediction.of(self.features(context))
        if self.kind in ("representation", "operator"):
            found = self.features(context)
            return found if self.components is None else self.components.of(found)
        return None

    def features(self, context: Trajectories) -> Tensor:
        """Return what the encoder, or the law, says of runs, (B, D)."""
        if self.encoder is None:
            assert self.law is not None  # noqa: S101  (one of the two is set for every kind that asks)
            return shortened(self.law, context.fields.shape[2]).encode(context)[0]
        parts = [context[slice(i, i + _BATCH)] for i in range(0, len(context), _BATCH)]
        return embed(self.encoder, parts).cpu()


def _known(runs: Trajectories, name: str) -> Tensor:
    if name not in runs.parameters:
        held: Sequence[str] = tuple(runs.parameters)
        raise DataError(
            f"the surrogate is conditioned on '{name}', which the runs do not hold; they hold "
            f"{', '.join(held) or 'no parameter'}.{did_you_mean(name, held)} Give it: ds['{name}'] = ('trajectory', "
            f"[...]), or rollout(ds, steps, parameters={{'{name}': ...}})."
        )
    return runs.parameters[name].double()
