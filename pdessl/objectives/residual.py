"""The residual of a law across views: the code of one window of a run must explain another."""

# B batch, N positions, R codes

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives.distributed import full_precision, row_count, sum_over_processes
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views

__all__ = ["CrossResidual", "CrossResidualTerms"]


class CrossResidualTerms(NamedTuple):
    """Terms of :class:`CrossResidual`.

    ``unexplained`` is the mean share of the time derivative that the law leaves unexplained with the code of the other
    view, ``shared`` the same with one code for all rows: a loss near it says that the code tells runs apart in nothing.
    """

    loss: Tensor
    unexplained: Tensor
    shared: Tensor


class CrossResidual(nn.Module):
    """A forecast in weak form: the code of one view must make a law's residual small on the *other* view.

        loss = mean over rows of  log(1 + s ρ) / s,       ρ = mean_n (τ'_n0 - z·τ'_n)²

    z: features of one view; τ': tokens of the other, what the law has to explain of the time derivative at a position
    of the test function (relative to its size in the view) and what each code multiplies. The law, which makes tokens,
    is learned with the code. As ρ is a share, one weight suits all data; the logarithm keeps runs that the law does not
    describe from leading. What two views share besides the law (their mean, their initial field) is of no use here.

    Args:
        sharpness: s > 0: shares above 1/s count by their logarithm.

    Shapes:
        features (B, R) of one view, tokens (B, N, 1 + R) of the other -> scalars in float32 (float64 in, float64 out).
        Means run over the rows of all processes.

    Raises:
        SchemaError: sharpness <= 0.
        ShapeError: rows or codes that differ in number.

    Source: ours; encoders that make tokens: :class:`pdessl.operators.LearnedOperator`, ``AmortisedOperator``.
    """

    choose_when: ClassVar[str] = "a law with learned terms: the code that tells runs apart in what evolves them"

    def __init__(self, sharpness: float = 10.0) -> None:
        super().__init__()
        if not sharpness > 0:
            raise SchemaError(f"CrossResidual got sharpness {sharpness}; expected > 0.")
        self.sharpness = sharpness

    def forward(self, views: Views) -> Terms:
        """Return ``residual``, ``unexplained`` and ``shared``: means over views, each of which explains the next."""
        count = views.global_views
        pairs = [(v, (v + 1) % count) for v in range(count)]
        mean = Terms.mean([Terms.of(self.terms(views[v].representation.features, views[w].tokens)) for v, w in pairs])
        return Terms(mean.total, {"residual": mean.total, **mean.named})

    def terms(self, features: Tensor, tokens: Tensor) -> CrossResidualTerms:
        """Return the terms; see the class for shapes."""
        if tokens.ndim != 3 or features.shape != (len(tokens), tokens.shape[2] - 1):
            raise ShapeError(
                f"CrossResidual got features {tuple(features.shape)} and tokens {tuple(tokens.shape)}; expected (B, R) "
                "and (B, N, 1 + R), as pdessl.operators.LearnedOperator and AmortisedOperator give them."
            )
        with torch.autocast(features.device.type, enabled=False):
            z, rest, slopes = full_precision(features), full_precision(tokens[..., 0]), full_precision(tokens[..., 1:])
            n = row_count(z)

            def mean(values: Tensor) -> Tensor:
                return sum_over_processes(values.sum(dim=0)) / n

            share = (rest - (slopes @ z[..., None])[..., 0]).square().mean(dim=1)
            common = mean(z.detach())
            alike = (rest - slopes @ common).square().mean(dim=1)
            loss = mean((self.sharpness * share).log1p() / self.sharpness)
            return CrossResidualTerms(loss, mean(share).detach(), mean(alike).detach())
