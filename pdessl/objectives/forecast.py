"""Cross-view forecasting: what a view's representation must know is what the other view's future depends on."""

# B batch, C channels, T time frames, X space (one axis per dimension), D feature width, K past frames

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives.distributed import full_precision, row_count, sum_over_processes
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views

__all__ = ["CrossForecast", "CrossForecastTerms"]


class CrossForecastTerms(NamedTuple):
    """Terms of :class:`CrossForecast`.

    ``loss`` is the mean square error over the variance of the view; ``persistence`` the same for a forecaster that
    repeats the last frame it is given: a loss near it says that nothing has been learned.
    """

    loss: Tensor
    persistence: Tensor


class CrossForecast(nn.Module):
    """Forecast a frame of one view from earlier frames of the same view and the representation of the *other* view.

        loss = mean over rows of  ‖g(u'(s), ..., u'(s + K - 1); f(u)) - u'(s + K - 1 + h)‖² / ‖u' - mean u'‖²

    Norms are means over nodes (and, below, frames); u and u' are two views of one trajectory, f the encoder, g the
    forecaster, h the horizon, s a random start in every row. The state of u' is given to g, so f(u) lowers the error
    only by what is *not* in the state and yet decides how it evolves: the coefficients of the equation. Where the views
    differ by symmetries that leave the parameters unchanged, the rest of what u knows (its frame, its mean velocity,
    its phase) is useless. An invariance objective alone keeps whatever two views share, initial condition included;
    this one ranks it by what the dynamics need. No label and no coefficient of the equation enters.

    Args:
        forecaster: network (frames (B, C, K, *X), condition (B, D)) -> (B, C, *X), with attribute ``past`` = K.
            For instance :class:`pdessl.models.TimeStepper` with ``condition`` = D.
        horizon: h >= 1, frames between the last one given and the one forecast. Long enough for the parameter to
            change the frame by more than the observation noise, and no longer than the frame can be forecast at all:
            4 to 8 frames of 1/32 of the run for Burgers, 1 of 28 for smoke in a box.
        starts: share of the possible s, from the first on, that is drawn from, in (0, 1]. Less than 1 for flows that
            come to rest: late frames are easily forecast without the parameter.

    Shapes:
        features (B, D) of one view, fields (B, C, T, *X) of the other, T >= K + h, both standardised as the forecaster
        expects -> scalars in float32 (float64 in, float64 out). Means run over the rows of all processes.

    Raises:
        SchemaError: horizon < 1, or starts outside (0, 1].
        ShapeError: rows that differ in number, or views too short.

    Source: ours. The idea of a context code that conditions a shared dynamics model: Kirchmeyer et al. (2022),
        arXiv:2202.01889; here with views that differ by symmetries, and beside a joint-embedding objective.
    """

    choose_when: ClassVar[str] = "beside another objective: keep what the other view's future depends on, drop the rest"

    def __init__(self, forecaster: nn.Module, horizon: int = 6, starts: float = 1.0) -> None:
        super().__init__()
        if horizon < 1:
            raise SchemaError(f"CrossForecast got horizon {horizon}; expected at least 1 frame.")
        if not 0 < starts <= 1:
            raise SchemaError(f"CrossForecast got starts {starts}; expected a share in (0, 1].")
        self.forecaster, self.horizon, self.starts = forecaster, horizon, starts

    def forward(self, views: Views) -> Terms:
        """Return ``forecast`` and ``persistence``, the mean over global views, each of which forecasts the next."""
        count = views.global_views
        start = views.uniform(count)
        found = [
            Terms.of(self.terms(views[v].representation.features, views[(v + 1) % count].fields, start[v]))
            for v in range(count)
        ]
        mean = Terms.mean(found)
        return Terms(mean.total, {"forecast": mean.total, **mean.named})

    def terms(self, features: Tensor, fields: Tensor, start: Tensor) -> CrossForecastTerms:
        """Return the terms.

        Args:
            features: representation of one view, shape (B, D).
            fields: the other view, standardised, shape (B, C, T, *X).
            start: uniform numbers in [0, 1), shape (B,): where in each row the first given frame lies. The caller draws
                them, so that a resumed run draws the same.
        """
        past = self.forecaster.past
        latest = fields.shape[2] - past - self.horizon if fields.ndim > 3 else -1
        if latest < 0 or not len(features) == len(fields) == len(start):
            raise ShapeError(
                f"CrossForecast got features {tuple(features.shape)}, fields {tuple(fields.shape)} and start "
                f"{tuple(start.shape)}; expected B rows each and at least {past + self.horizon} frames (the "
                f"forecaster's {past} and the horizon {self.horizon}). Lower the horizon or use longer views."
            )
        first = (start * self.starts * (latest + 1)).long().clamp(max=latest)
        offsets = torch.tensor([*range(past), past - 1 + self.horizon], device=fields.device)
        rows = torch.arange(len(fields), device=fields.device)[:, None]
        window = fields.transpose(1, 2)[rows, first[:, None] + offsets].transpose(1, 2)
        forecast = self.forecaster(window[:, :, :past], features)
        with torch.autocast(fields.device.type, enabled=False):
            values, target = full_precision(fields), full_precision(window[:, :, past])
            spread = values.flatten(1).var(dim=1, correction=0).clamp_min(1e-8)
            n = row_count(fields)

            def relative(prediction: Tensor) -> Tensor:
                error = (full_precision(prediction) - target).square().flatten(1).mean(dim=1)
                return sum_over_processes((error / spread).sum()) / n

            return CrossForecastTerms(relative(forecast), relative(window[:, :, past - 1]).detach())
