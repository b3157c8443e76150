"""Backward elimination: a law with as few coefficients as explain the runs as well."""

# B runs, K terms, E targets, R codes

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.operators.fit import Fitted, Normals, alternate, encode, gauged, loss, moments, reliability

__all__ = ["sparsified"]

_SLACK = 5e-4  # of the unexplained share, whatever that is


def sparsified(
    fitted: Fitted, normal: Normals, halves: tuple[Normals, Normals], tolerance: float = 0.05
) -> tuple[Fitted, Tensor]:
    """Drop coefficients, the one that explains least first, while nothing is lost; then codes are coefficients.

    First go whole terms, then the dependence of terms on the codes, both of which mean the same whatever the codes are
    called; then codes are made coefficients of the terms that vary most among those that are left
    (:func:`pdessl.operators.fit.gauged`), and single coefficients go. What a coefficient explains is what its removal
    costs when the others are fitted again: of terms that nearly depend on each other all but few are superfluous,
    however large they are.

    A coefficient stays out while the unexplained share grows by at most ``tolerance`` of itself (and 5e-4), and the
    reliability falls by at most 2e-3, over all that was dropped.

    Args:
        fitted: of :func:`pdessl.operators.fit.fit`.
        normal: of the runs.
        halves: of their halves.
        tolerance: see above.

    Returns:
        the law, and the codes (B, R) of the runs it was fitted on.
    """
    codes = encode(fitted, normal)
    most = float(loss(fitted, codes, normal).mean()) * (1 + tolerance) + _SLACK
    steady = float(reliability(fitted, halves).min()) - 2e-3 if fitted.rank else 1.0
    current = fitted, codes
    for stage in ("terms", "slopes", "single") if fitted.rank else ("terms",):
        if stage == "single":
            law = gauged(current[0], normal)
            current = alternate(encode(law, normal), normal, law.kept, law.pivots, 10)
        barred = torch.zeros_like(fitted.kept)
        while True:
            law, codes = current
            cost = _costs(law, codes, normal, stage)
            cost[barred] = torch.inf
            if not bool(cost.isfinite().any()):
                break
            first, c, k = torch.unravel_index(cost.argmin(), cost.shape)
            place = (int(first), int(c), int(k)) if stage == "single" else (slice(int(first), None), int(c), int(k))
            kept = law.kept.clone()
            kept[place] = False
            tried = alternate(codes, normal, kept, law.pivots, 8)
            left = float(loss(*tried, normal).mean())
            sure = float(reliability(tried[0], halves).min()) if law.rank else 1.0
            if left <= most and sure >= steady:
                current = tried
            else:
                barred[first, c, k] = True
    return current


def _costs(law: Fitted, codes: Tensor, normal: Normals, stage: str) -> Tensor:
    """Return what leaving coefficients out adds to the loss with the codes held, (R + 1, E, K); inf: none is there.

    Of a group of coefficients the cost stands at its first: whole terms at 0, the slopes of a term at 1.
    """
    lefts, _ = moments(codes, normal)
    rank, (targets, terms) = law.rank, law.constant.shape
    values = torch.cat([law.constant[None], law.varying])
    found = torch.full_like(values, torch.inf)
    pinned = torch.zeros_like(law.kept)
    for c, k in law.pivots:
        pinned[:, c, k] = True
    for c in range(targets):
        free = (law.kept & ~pinned)[:, c].flatten().nonzero()[:, 0]
        if not len(free):
            continue
        part = lefts[c][free][:, free] / len(codes)
        scale = part.diagonal().clamp_min(1e-300).sqrt()
        eye = torch.eye(len(free), dtype=part.dtype, device=part.device)
        inverse = torch.linalg.inv(part / scale[:, None] / scale + 1e-10 * eye)
        sized = values[:, c].flatten()[free] * scale
        start = {"terms": 0, "slopes": 1, "single": None}[stage]
        if start is None:
            flat = found[:, c].flatten()
            flat[free] = sized.square() / inverse.diagonal()
            found[:, c] = flat.reshape(rank + 1, terms)
            continue
        for k in (free % terms).unique().tolist():
            rows = ((free % terms == k) & (free // terms >= start)).nonzero()[:, 0]
            if len(rows):
                block = inverse[rows][:, rows]
                found[start, c, k] = sized[rows] @ torch.linalg.solve(block, sized[rows])
    return found
