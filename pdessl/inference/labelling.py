"""Which runs to label next, from features that were learned without labels."""

# n runs, m labelled ones, D feature width

from __future__ import annotations

import torch
from scipy.stats import qmc
from torch import Tensor

from pdessl.errors import DataError, ShapeError, did_you_mean

__all__ = ["ACQUISITIONS", "next_to_label"]

#: Ways of choosing, and what each is.
ACQUISITIONS: dict[str, str] = {
    "random": "by chance",
    "sobol": "nearest to points of a Sobol sequence in the leading components",
    "k_centre": "farthest from all that are labelled, one after another",
    "d_optimal": "largest growth of the determinant of a linear readout's information",
}
_RIDGE = 1e-3  # of the information of one run, before any is labelled
_LEADING = 2  # components that a Sobol sequence fills


def next_to_label(
    features: Tensor, count: int, by: str = "random", labelled: Tensor | None = None, seed: int = 0
) -> Tensor:
    """Return which runs to label next, numbers of rows (count,), the first to label first.

    ``k_centre``: the run whose distance to the nearest labelled one is largest, again and again (2-approximation of the
    smallest covering radius); it begins with the run nearest to the mean. ``d_optimal``: the run of largest leverage
    xᵀ A⁻¹ x, A = λ I + Σ x xᵀ over labelled runs, x the features and 1: each adds most to log det A. ``sobol``: the
    leading components, each replaced by its ranks, are filled by a scrambled Sobol sequence.

    Args:
        features: of all runs, (n, D); each is divided by its standard deviation.
        count: how many, 1 to the number that are not labelled.
        by: a word of :data:`ACQUISITIONS`.
        labelled: numbers of the rows that have labels, (m,); default none.
        seed: of ``random`` and ``sobol``.

    Raises:
        ShapeError: features that are not (n, D).
        DataError: another word, too many runs, or features that are not finite.

    Source: k-centre (core-set): Gonzalez (1985), Sener and Savarese (2018), arXiv:1708.00489; greedy D-optimal design:
        Wynn (1970).
    """
    if features.ndim != 2 or not features.shape[1]:
        raise ShapeError(f"features {tuple(features.shape)}; expected (n, D).")
    known = torch.zeros(len(features), dtype=torch.bool)
    known[torch.empty(0, dtype=torch.long) if labelled is None else labelled] = True
    free = int((~known).sum())
    if by not in ACQUISITIONS:
        raise DataError(f"no way '{by}'.{did_you_mean(by, ACQUISITIONS)} Ways: {', '.join(ACQUISITIONS)}.")
    if not 1 <= count <= free:
        raise DataError(f"{count} runs to label, of {free} that have no label; expected 1 to {free}.")
    if not bool(torch.isfinite(features).all()):
        raise DataError("features are not finite; leave out the runs that the encoder cannot read.")
    spread = features.double().std(dim=0)
    x = (features.double() - features.double().mean(dim=0)) / torch.where(spread > 0, spread, torch.ones_like(spread))
    if by == "random":
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        return order[~known[order]][:count]
    if by == "sobol":
        return _spread(x, count, known, seed)
    return _k_centre(x, count, known) if by == "k_centre" else _d_optimal(x, count, known)


def _k_centre(x: Tensor, count: int, known: Tensor) -> Tensor:
    chosen: list[int] = []
    nearest = torch.cdist(x, x[known]).amin(dim=1) if bool(known.any()) else None
    for _ in range(count):
        row = int(x.norm(dim=1).argmin()) if nearest is None else int(nearest.masked_fill(known, -1.0).argmax())
        chosen.append(row)
        known = known.index_fill(0, torch.tensor(row), True)
        distance = (x - x[row]).norm(dim=1)
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
    return torch.tensor(chosen)


def _d_optimal(x: Tensor, count: int, known: Tensor) -> Tensor:
    rows = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], dim=1)
    information = _RIDGE * torch.eye(rows.shape[1], dtype=x.dtype) + rows[known].mT @ rows[known]
    inverse, chosen = torch.linalg.inv(information), []
    for _ in range(count):
        leverage = torch.einsum("nd,de,ne->n", rows, inverse, rows).masked_fill(known, -1.0)
        row = int(leverage.argmax())
        chosen.append(row)
        known = known.index_fill(0, torch.tensor(row), True)
        moved = inverse @ rows[row]
        inverse = inverse - torch.outer(moved, moved) / (1 + rows[row] @ moved)  # Sherman and Morrison
    return torch.tensor(chosen)


def _spread(x: Tensor, count: int, known: Tensor, seed: int) -> Tensor:
    width = min(_LEADING, x.shape[1])
    leading = x @ torch.linalg.svd(x, full_matrices=False).Vh[:width].mT
    ranks = (leading.argsort(dim=0).argsort(dim=0).double() + 0.5) / len(x)
    power = max(1, (count - 1).bit_length())
    points = torch.from_numpy(qmc.Sobol(width, scramble=True, rng=seed).random_base2(power)[:count])
    chosen = []
    for point in points:
        row = int((ranks - point).norm(dim=1).masked_fill(known, torch.inf).argmin())
        chosen.append(row)
        known = known.index_fill(0, torch.tensor(row), True)
    return torch.tensor(chosen)
