"""Sums and gathers over processes whose gradients are exact, and the checks every objective makes on its input.

Convention: every process computes the same full-batch loss. With the backward passes below, averaging the parameter
gradients over processes (what DistributedDataParallel does) gives the gradient of one process that holds the whole
batch, for any split of the rows, equal or not. The process group is looked up at call time, because Lightning creates
it after the modules.
"""

# W processes, n rows over all processes, D embedding width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pdessl.errors import DataError, ShapeError

__all__ = [
    "check_embeddings",
    "full_precision",
    "gather_rows",
    "mean_over_rows",
    "row_count",
    "row_share",
    "sum_over_processes",
    "unit_rows",
    "world_size",
]


def world_size() -> int:
    """Return the number of processes W; 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    """Forward: all-reduce SUM of a copy. Backward: all-reduce SUM, because every process's loss uses the sum."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient


class _Gather(torch.autograd.Function):
    """Forward: all-gather of rows. Backward: all-reduce SUM, then the slice of this process."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        # all_gather wants equal shapes: pad to the largest batch, cut the padding off afterwards.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        start = sum(ctx.counts[: dist.get_rank()])
        return gradient[start : start + ctx.counts[dist.get_rank()]], None


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of ``tensor`` over all processes, differentiable; the tensor itself outside distributed
    training.
    """
    return _Sum.apply(tensor) if world_size() > 1 else tensor


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes in rank order, differentiable; batches may differ in size.

    Args:
        rows: shape (n_local, ...); all but the first axis equal on all processes.

    Returns:
        Shape (n, ...), the same on every process.
    """
    if world_size() == 1:
        return rows
    mine = torch.tensor([rows.shape[0]], device=rows.device)
    counts = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(counts, mine)
    return _Gather.apply(rows, [int(c) for c in counts])


def row_count(rows: Tensor, axis: int = 0) -> int:
    """Return n, the number of rows over all processes; ``axis`` is the one that is split over them."""
    if world_size() == 1:
        return rows.shape[axis]
    count = torch.tensor([rows.shape[axis]], device=rows.device)
    dist.all_reduce(count)
    return int(count)


def row_share(rows: Tensor) -> tuple[int, int]:
    """Return the number of this process's first row among the rows of all processes, in rank order, and n."""
    if world_size() == 1:
        return 0, rows.shape[0]
    mine = torch.tensor([rows.shape[0]], device=rows.device)
    counts = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(counts, mine)
    found = torch.cat(counts).tolist()
    return sum(found[: dist.get_rank()]), sum(found)


def mean_over_rows(values: Tensor) -> Tensor:
    """Return the mean of all entries of ``values`` (B, ...) over the rows of all processes, differentiable."""
    return sum_over_processes(values.sum()) / (row_count(values) * max(values[0].numel(), 1))


def unit_rows(z: Tensor) -> Tensor:
    """Return z (..., D) scaled to unit length along its last axis, in float32 (float64 stays).

    A row shorter than 1e-12 has no direction: it becomes 0, and its gradient is 0 instead of 1e12.
    """
    z = full_precision(z)
    # Scaled by its largest entry first: squares of float16's smallest and bfloat16's largest numbers leave float32.
    largest = z.detach().abs().amax(dim=-1, keepdim=True)
    z = z / torch.where(largest > 1e-12, largest, torch.inf)
    length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z / torch.where(length > 0, length, torch.inf)


def full_precision(tensor: Tensor) -> Tensor:
    """Return the tensor in float32; float64 stays float64. (bfloat16 products cost digits, float16 ones overflow.)"""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def check_embeddings(name: str, views: Sequence[Tensor], min_rows: int = 2, axes: str = "(B, D)") -> int:
    """Check what an objective was given and return n, the number of rows over all processes.

    A bad entry on one process raises on every process, so that none is left waiting for the others.

    Args:
        name: name of the objective, for the message.
        views: embeddings of the views, each (B, D) or as ``axes`` says.
        min_rows: smallest n for which the objective is defined.
        axes: the expected axes, for instance ``(B, N, D)``.

    Raises:
        ShapeError: an input has not these axes, or the views differ in shape.
        DataError: an entry is NaN or infinite; view and row are named.
        ValueError: fewer than ``min_rows`` rows over all processes.
    """
    first = views[0]
    for i, view in enumerate(views):
        if view.ndim != axes.count(",") + 1:
            raise ShapeError(f"{name} got an embedding of shape {tuple(view.shape)} for view {i + 1}; expected {axes}.")
        if view.shape != first.shape:
            raise ShapeError(
                f"{name} got z {tuple(first.shape)} and z' {tuple(view.shape)}; "
                "the two views must have the same rows in the same order."
            )
    finite = [torch.isfinite(view).flatten(1).all(dim=1) for view in views]
    bad = torch.stack([(~ok).sum() for ok in finite]).sum()
    counts = torch.stack([torch.tensor(first.shape[0], device=first.device), bad])
    if world_size() > 1:
        dist.all_reduce(counts)
    n, bad_rows = counts.tolist()
    if bad_rows:
        where = [(i + 1, int((~ok).nonzero()[0])) for i, ok in enumerate(finite) if not ok.all()]
        place = f"first in view {where[0][0]}, row {where[0][1]}" if where else "on another process"
        raise DataError(
            f"{name}: {bad_rows} rows hold NaN or infinite entries, {place}; expected finite embeddings. "
            "Look for non-finite fields in the data, or lower the learning rate."
        )
    if n < min_rows:
        raise ValueError(
            f"{name} got {n} rows over all processes; its statistics need at least {min_rows}. Use larger batches."
        )
    return n
