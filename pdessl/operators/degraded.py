"""Views that are coarser, shorter and noisier than a run, with the code that a law reads from the whole of it."""

# B runs, C fields, T frames, X nodes, R codes

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.operators.latent import LatentOperator
from pdessl.operators.saving import load_law
from pdessl.trajectory import Trajectories

__all__ = ["Coded", "DegradedViews"]


@dataclass(frozen=True, eq=False)
class Coded:
    """What a view was drawn with.

    Args:
        codes: of the whole runs, (B, R), float64.
        stride: every so many nodes were kept along each axis.
        start: first frame of the view.
        noise: deviation of the noise added, in root mean squares of the field of its run, (B,).
    """

    codes: Tensor
    stride: int
    start: int
    noise: Tensor


class DegradedViews(nn.Module):
    """Draw a window in time, fewer nodes and noise for the runs of a batch; keep the code of the whole runs.

    Called as an augmentation of :class:`pdessl.tasks.Pretraining`, for :class:`pdessl.objectives.CodeDistillation`.
    Nodes and frames are those of the whole batch, noise is drawn for each run, uniformly between 0 and the most.

    Args:
        law: folder of a law (``pdessl discover --out``), or the law.
        strides: every so many nodes are kept; one is drawn.
        shortest: least share of the frames of a view, in (0, 1].
        noise: most noise, in root mean squares of the field of a run.

    Raises:
        SchemaError: a setting out of range.
        CheckpointError: no law there.
        DataError, ShapeError: batches that the law does not read; see :meth:`LatentOperator.encode`.
    """

    def __init__(
        self,
        law: str | os.PathLike[str] | LatentOperator,
        strides: Sequence[int] = (1, 2),
        shortest: float = 0.25,
        noise: float = 0.3,
    ) -> None:
        super().__init__()
        if not strides or min(strides) < 1 or not 0 < shortest <= 1 or not noise >= 0:
            raise SchemaError(
                f"DegradedViews got strides {list(strides)}, shortest {shortest} and noise {noise}; expected whole "
                "numbers from 1, a share in (0, 1] and a number from 0."
            )
        self.law = law if isinstance(law, LatentOperator) else load_law(law)
        self.strides, self.shortest, self.noise = tuple(strides), shortest, noise

    @torch.no_grad()
    def forward(self, batch: Trajectories, generator: torch.Generator | None = None) -> tuple[Trajectories, Coded]:
        """Return the view and what it was drawn with."""
        codes = self.law.encode(batch)[0]
        device = batch.device

        def drawn(most: int) -> int:
            return int(torch.randint(most, (1,), generator=generator, device=device))

        frames = batch.fields.shape[2]
        least = max(1, round(self.shortest * frames))
        length = least + drawn(frames - least + 1)
        start = drawn(frames - length + 1)
        stride = self.strides[drawn(len(self.strides))]
        every = (slice(None, None, stride),) * len(batch.space)
        fields = batch.fields[(slice(None), slice(None), slice(start, start + length), *every)]
        share = self.noise * torch.rand(len(batch), generator=generator, device=device, dtype=fields.dtype)
        size = batch.fields.flatten(2).square().mean(dim=2).sqrt() * share[:, None]  # (B, C)
        added = torch.randn(fields.shape, generator=generator, device=device, dtype=fields.dtype)
        view = batch.replace(
            fields=fields + size.reshape(*size.shape, *[1] * (fields.ndim - 2)) * added,
            time=batch.time[:, start : start + length],
            space=tuple(nodes[:, ::stride] for nodes in batch.space),
        )
        return view, Coded(codes, stride, start, share)
