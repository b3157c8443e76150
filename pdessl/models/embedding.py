"""From batches of trajectories to features, without gradients, averaged over views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdessl.models.spacing import spacing_arguments

__all__ = ["embed", "view_seed"]


def view_seed(*numbers: int) -> int:
    """Return a 63-bit seed that depends on every number and on their order (seed, epoch, batch, rank, ...)."""
    # SeedSequence pads with zeros: without their count, (0, 1) and (0, 1, 0) would be one seed.
    sequence = np.random.SeedSequence([len(numbers), *(int(n) for n in numbers)])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@torch.no_grad()
def embed(
    encoder: nn.Module,
    batches: Any | Iterable[Any],
    augmentation: nn.Module | None = None,
    views: int = 1,
    seed: int = 0,
) -> Tensor:
    """Return features of trajectories, averaged over augmented views.

    Averaging over the views the encoder was trained to ignore lowers the part of the features that depends on the
    frame, and with it the error of a probe.

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D). Put into evaluation mode for the call; its mode before
            is restored.
        batches: one batch with an attribute ``fields`` (and, for an encoder that is told the grid, ``time_step`` and
            ``grid_spacing``), or several.
        augmentation: called ``augmentation(batch, generator)``, returns (batch, elements). None: the fields as they
            are.
        views: number of views averaged where there is an augmentation.
        seed: seed of the views; the same seed gives the same features.

    Returns:
        Shape (n, D), float64, on the device of the encoder's output.
    """
    if views < 1:
        raise ValueError(f"embed got views={views}; expected at least 1.")
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        rows = []
        for i, batch in enumerate([batches] if hasattr(batches, "fields") else batches):
            if augmentation is None:
                rows.append(encoder(batch.fields, **spacing_arguments(encoder, batch)).double())
                continue
            generator = torch.Generator(device=batch.fields.device).manual_seed(view_seed(seed, i))
            total: Any = 0
            for _ in range(views):
                view, _ = augmentation(batch, generator)
                total = total + encoder(view.fields, **spacing_arguments(encoder, view)).double()
            rows.append(total / views)
        return torch.cat(rows)
    finally:
        for module, training in modes:
            module.training = training
