"""What a surrogate is told: a vector per run, from its parameters, or from the frames of its context."""

# B runs, F width of the condition, D features, T frames

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdessl.errors import DataError, did_you_mean
from pdessl.models import embed, to_scale
from pdessl.operators import LatentOperator
from pdessl.operators.following import shortened
from pdessl.trajectory import Trajectories

__all__ = ["Components", "Condition"]

_BATCH = 128


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
class Condition:
    """Where the condition of a surrogate comes from.

    Args:
        kind: ``none``; ``parameter``: read from the runs; ``representation``: features of a network on the context;
            ``operator``: codes of a law on the context; ``law``: no network at all, the law itself is integrated.
        parameters: names, for ``parameter``.
        scale: ``log`` or ``linear``, of the parameters.
        encoder: network, for ``representation``.
        components: of its features; None: the features themselves.
        law: for ``operator`` and ``law``.
    """

    kind: str = "none"
    parameters: tuple[str, ...] = ()
    scale: str = "log"
    encoder: nn.Module | None = None
    components: Components | None = None
    law: LatentOperator | None = None

    def of(self, context: Trajectories) -> Tensor | None:
        """Return the condition (B, F), float64, of runs of which these frames were seen; None without one.

        Raises:
            DataError: a parameter that the runs do not hold.
        """
        if self.kind == "parameter":
            return torch.stack([to_scale(_known(context, n), self.scale, n) for n in self.parameters], dim=1)
        if self.kind == "representation" and self.encoder is not None:
            parts = [context[slice(i, i + _BATCH)] for i in range(0, len(context), _BATCH)]
            features = embed(self.encoder, parts).cpu()
            return features if self.components is None else self.components.of(features)
        if self.kind == "operator" and self.law is not None:
            return shortened(self.law, context.fields.shape[2]).encode(context)[0]
        return None


def _known(runs: Trajectories, name: str) -> Tensor:
    if name not in runs.parameters:
        held: Sequence[str] = tuple(runs.parameters)
        raise DataError(
            f"the surrogate is conditioned on '{name}', which the runs do not hold; they hold "
            f"{', '.join(held) or 'no parameter'}.{did_you_mean(name, held)} Give it: ds['{name}'] = ('trajectory', "
            f"[...]), or rollout(ds, steps, parameters={{'{name}': ...}})."
        )
    return runs.parameters[name].double()
