"""Parameter equivariance: views whose physical parameters differ by a known amount supervise a head without labels."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdessl.errors import DataError, ShapeError
from pdessl.objectives.distributed import check_embeddings, full_precision, sum_over_processes
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views

__all__ = ["Calibration", "ParameterEquivariance", "ParameterEquivarianceTerms", "calibrate"]


class ParameterEquivarianceTerms(NamedTuple):
    """Terms of :class:`ParameterEquivariance`.

    ``loss`` is the mean square error of the predicted difference; ``difference`` the mean square of the known one, so
    that a constant head has loss = difference; ``error`` is the root of the loss, in units of log-parameter.
    """

    loss: Tensor
    difference: Tensor
    error: Tensor


class ParameterEquivariance(nn.Module):
    """Head outputs of two views must differ as their log-parameters are known to differ.

        loss = mean over rows and parameters of (h - h' - (δ - δ'))²

    δ and δ' are the shifts of log-parameter that the augmentation gave each view: an equivalence transformation moves a
    parameter by a known factor (for Burgers, x -> e^ε x at fixed t with u -> e^ε u makes log ν' = log ν + 2ε), a
    symmetry leaves it. No label enters: only the difference of shifts is used, never the parameter itself.

    What it determines: h is fixed only up to adding a function of the trajectory's invariants, i.e. of quantities that
    no augmentation drawn here changes. Alone, h = log ν + f(invariants) with any f has zero loss (a Reynolds number,
    amplitude · length / ν, is such an invariant of the scaling), so a few labelled runs, or a representation whose
    other objective discards the invariants, must calibrate it (:func:`calibrate`).

    Shortcuts: observation noise and the spectral cut-off of the grid are carried along by the transformation. A head
    can read the shift from them, unless noise is added after the transformation and the views keep one resolution.

    Args:
        parameter: name of the parameter, e.g. ``viscosity``, as the augmentation names the shifts.
        head: h on the features of a view, network (B, D) -> (B, 1). For instance :class:`pdessl.models.Head` with
            ``standardise``, whose learning rate then fits whatever scale the encoder has.

    Shapes:
        h, h' (B,) or (B, P); shifts the same shape -> scalars in float32 (float64 in, float64 out). Means run over the
        rows of all processes; batches may differ in size.

    Raises:
        ShapeError: shapes that differ.
        DataError: a non-finite entry.

    Source: ours. Equivalence groups: Ovsiannikov (1982), Group Analysis of Differential Equations.
    """

    choose_when: ClassVar[str] = "beside another objective: an equivalence transformation moves the parameter wanted"

    def __init__(self, parameter: str, head: nn.Module) -> None:
        super().__init__()
        self.parameter, self.head = parameter, head

    def forward(self, views: Views) -> Terms:
        """Return ``equivariance`` and its floor (a constant head's), the mean over global views, each with the next."""
        count = views.global_views
        outputs = [self.head(views[v].representation.features) for v in range(count)]
        shifts = [views[v].shift(self.parameter)[:, None] for v in range(count)]
        pairs = [(v, (v + 1) % count) for v in range(count)]
        mean = Terms.mean([Terms.of(self.terms(outputs[v], outputs[w], shifts[v], shifts[w])) for v, w in pairs])
        return Terms(mean.total, {"equivariance": mean.total, "equivariance_floor": mean.named["difference"]})

    def terms(self, h: Tensor, h_prime: Tensor, shift: Tensor, shift_prime: Tensor) -> ParameterEquivarianceTerms:
        """Return the terms for head outputs of two views and the shift of log-parameter each view was given."""
        given = {"h": h, "h'": h_prime, "shift": shift, "shift'": shift_prime}
        if h.ndim not in (1, 2) or any(t.shape != h.shape for t in given.values()):
            found = ", ".join(f"{name} {tuple(t.shape)}" for name, t in given.items())
            raise ShapeError(f"ParameterEquivariance got {found}; expected four tensors of one shape (B,) or (B, P).")
        rows = [t.reshape(t.shape[0], -1) for t in given.values()]
        n = check_embeddings("ParameterEquivariance", rows, min_rows=1)
        with torch.autocast(h.device.type, enabled=False):
            # The shifts are float64 coordinates; the arithmetic follows the head.
            h, h_prime = full_precision(rows[0]), full_precision(rows[1])
            known = (rows[2] - rows[3]).to(h.dtype)
            loss = sum_over_processes((h - h_prime - known).square().sum()) / (n * h.shape[1])
            difference = sum_over_processes(known.square().sum()) / (n * h.shape[1])
            return ParameterEquivarianceTerms(loss, difference, loss.detach().sqrt())


class Calibration(NamedTuple):
    """What a few labels add to a head h that is known up to a function of the invariants; see :func:`calibrate`.

    Attributes:
        weights: of the constant and of each invariant, shape (1 + Q,).
        residual: root mean square of log-parameter after calibration, over the labelled rows.
        offset_residual: the same with the constant alone. Well above ``residual``: the head depends on the invariants.
    """

    weights: Tensor
    residual: float
    offset_residual: float

    def predict(self, h: Tensor, invariants: Tensor | None = None) -> Tensor:
        """Return log-parameters (n,) of head outputs (n,) and invariants (n, Q)."""
        return h.detach().double() + _with_constant(h, invariants) @ self.weights


def _with_constant(h: Tensor, invariants: Tensor | None) -> Tensor:
    columns = [torch.ones_like(h, dtype=torch.float64)[:, None]]
    return torch.cat(columns if invariants is None else [*columns, invariants.detach().double()], dim=1)


def calibrate(h: Tensor, log_parameter: Tensor, invariants: Tensor | None = None) -> Calibration:
    """Fix what known shifts leave open, from a few labelled rows, by least squares.

        log parameter = h + w₀ + Σ_q w_q I_q

    The slope of h is not fitted: the shifts have fixed it at 1, so that one label calibrates a head that does not
    depend on the invariants.

    Args:
        h: head outputs of labelled rows, shape (n,).
        log_parameter: their labels, shape (n,).
        invariants: quantities that no augmentation changes, e.g. the logarithm of a Reynolds number, shape (n, Q), or
            None.

    Raises:
        ShapeError: rows that do not match, or fewer rows than 1 + Q.
        DataError: an entry that is not finite.

    Source: ours.
    """
    columns = 1 if invariants is None else 1 + invariants.shape[-1]
    rows_match = invariants is None or (invariants.ndim == 2 and len(invariants) == len(h))
    if h.ndim != 1 or h.shape != log_parameter.shape or not rows_match or len(h) < columns:
        found = None if invariants is None else tuple(invariants.shape)
        raise ShapeError(
            f"calibrate got h {tuple(h.shape)}, log_parameter {tuple(log_parameter.shape)} and invariants {found}; "
            "expected (n,), (n,) and (n, Q) with n >= 1 + Q."
        )
    table, open_part = _with_constant(h, invariants), log_parameter.detach().double() - h.detach().double()
    if not (torch.isfinite(table).all() and torch.isfinite(open_part).all()):
        raise DataError("calibrate got entries that are not finite. Check the labels and the head.")
    weights = torch.linalg.lstsq(table, open_part[:, None]).solution[:, 0]
    residual = (open_part - table @ weights).square().mean().sqrt()
    return Calibration(weights, float(residual), float(open_part.std(correction=0)))
