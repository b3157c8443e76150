"""Features averaged over views, and networks to compare with: untrained, calibrated, without their head."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pdessl.errors import CheckpointError
from pdessl.inference.regridding import regridded
from pdessl.inference.views import Views
from pdessl.models import Normalised, embed, spacing_arguments
from pdessl.trajectory import Trajectories

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Trunk", "Views", "averaged", "calibrated", "fitting", "in_order", "trunk_of", "untrained"]


def fitting(views: Views, runs: Trajectories) -> Views:
    """Return the views with a window that is no larger than the runs, for runs of another duration or grid."""
    if views.window is None:
        return views
    window = tuple(min(size, here) for size, here in zip(views.window, runs.fields.shape[2:], strict=True))
    return dataclasses.replace(views, window=window)


def averaged(
    encoder: nn.Module,
    runs: Trajectories,
    views: Views,
    equation: str,
    seed: int,
    batch: int = 256,
    constants: Collection[str] = (),
    steps: Mapping[str, tuple[float, float]] | None = None,
) -> Tensor:
    """Return features (N, D), float64, averaged over views of every run; of the parameters only constants are seen.

    Args:
        encoder: on fields (B, C, T, *X).
        runs: N of them.
        views: how they are drawn; their window shrinks to shorter runs.
        equation: name, for the augmentation.
        seed: of the views.
        batch: runs per call.
        constants: names of the parameters that views may read.
        steps: of training; runs on other grids are brought to them, see :func:`pdessl.inference.regridding.regridded`.

    Raises:
        FormatError: runs on a grid too coarse to be brought to that of training.
    """
    known = {name: values for name, values in runs.parameters.items() if name in constants}
    rows = []
    for part in regridded(runs.replace(parameters=known), steps or {}):
        chosen, here = fitting(views, part.runs), part.runs
        parts = [here[slice(i, i + batch)] for i in range(0, len(here), batch)]
        rows.append((part.places, embed(encoder, parts, chosen.augmentation(equation), chosen.count, seed).cpu()))
    return in_order(rows)


def in_order(rows: Sequence[tuple[NDArray[np.int64], Tensor]]) -> Tensor:
    """Return values of all runs in their order, from the places and values of some at a time."""
    places = np.concatenate([places for places, _ in rows])
    return torch.cat([values for _, values in rows])[torch.from_numpy(np.argsort(places))]


def untrained(encoder: nn.Module, seed: int) -> nn.Module:
    """Return the same architecture with the same field normalisation, its weights drawn anew from a seed.

    Raises:
        CheckpointError: a network whose constructor's arguments are not known.
    """
    inner = encoder.module if isinstance(encoder, Normalised) else encoder
    arguments = getattr(inner, "init_args", None)
    if arguments is None:
        raise CheckpointError(
            f"{type(inner).__name__} has no attribute init_args, so that it cannot be built untrained for comparison. "
            "Set self.init_args in its constructor to a dictionary of its arguments."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(inner)(**arguments)
    return Normalised(fresh, **encoder.statistics) if isinstance(encoder, Normalised) else fresh


@torch.no_grad()
def calibrated(encoder: nn.Module, batches: Sequence[Trajectories]) -> nn.Module:
    """Return the encoder with the running statistics of its normalisation layers measured on unlabelled runs.

    An untrained network whose normalisation still assumes mean 0 and deviation 1 would be a weaker floor than it is.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(m, m.momentum) for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    encoder.train()
    for batch in batches:
        encoder(batch.fields, **spacing_arguments(encoder, batch))
    encoder.eval()
    for norm, momentum in before:
        norm.momentum = momentum
    return encoder


class Trunk(nn.Module):
    """The pooled values below an encoder's head, (B, C, T, *X) -> (B, ``feature_dim``)."""

    def __init__(self, encoder: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.encoder, self.feature_dim = encoder, feature_dim
        self.uses_spacing = getattr(encoder, "uses_spacing", False)

    def forward(self, fields: Tensor, **given: Tensor) -> Tensor:
        """Return the pooled values."""
        return self.encoder.trunk(fields, **given)


def trunk_of(encoder: nn.Module) -> nn.Module:
    """Return the encoder without its head, where it has one.

    A random head of few outputs throws most of a random network away: the floor is what a ridge makes of all it has.
    """
    width = getattr(getattr(encoder, "module", encoder), "trunk_dim", None)
    return encoder if width is None else Trunk(encoder, width)
