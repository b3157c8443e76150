"""Networks to compare with: untrained, their normalisation layers calibrated on unlabelled runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pdessl.errors import CheckpointError
from pdessl.models import Encoder, spacing_arguments
from pdessl.models.encoder import network_of
from pdessl.trajectory import Trajectories

__all__ = ["calibrated", "untrained"]


def untrained(encoder: nn.Module, seed: int) -> nn.Module:
    """Return the same architecture with the same field normalisation, its weights drawn anew from a seed.

    Raises:
        CheckpointError: a network whose constructor's arguments are not known.
    """
    inner = encoder.module if isinstance(encoder, Encoder) else encoder
    arguments = getattr(inner, "init_args", None)
    if arguments is None:
        raise CheckpointError(
            f"{type(inner).__name__} has no attribute init_args, so that it cannot be built untrained for comparison. "
            "Set self.init_args in its constructor to a dictionary of its arguments."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(inner)(**arguments)
    return Encoder(fresh, **encoder.statistics) if isinstance(encoder, Encoder) else fresh


@torch.no_grad()
def calibrated(encoder: nn.Module, batches: Sequence[Trajectories]) -> nn.Module:
    """Return the encoder with the running statistics of its normalisation layers measured on unlabelled runs.

    An untrained network whose normalisation still assumes mean 0 and deviation 1 would be a weaker floor than it is.
    A network of a fixed number of frames (``stacked_frames``) sees all stretches of that many, one after another.
    """
    frames = getattr(network_of(encoder), "stacked_frames", None)
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(m, m.momentum) for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    encoder.train()
    for batch in batches:
        for seen in _stretches(batch, frames):
            encoder(seen.fields, **spacing_arguments(encoder, seen))
    encoder.eval()
    for norm, momentum in before:
        norm.momentum = momentum
    return encoder


def _stretches(runs: Trajectories, frames: int | None) -> list[Trajectories]:
    """Return pieces of runs of so many frames; the runs as they are where that is None or more than they have."""
    total = runs.fields.shape[2]
    if frames is None or frames > total:
        return [runs]
    return [runs.window(slice(start, start + frames)) for start in range(0, total - frames + 1, frames)]
