"""What is not determined: a few numbers that nobody sees, inferred from what came of them and drawn to imagine more."""

# B rows, D latent width (tokens together), d numbers

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError

__all__ = ["LatentVariable"]


class LatentVariable(nn.Module):
    """The latent variable ξ of a predictor P(z, a, ξ): what a state and its actions do not tell about the next one.

        q(ξ | z_t, z_{t+1}) = N(m, s²),    m, log s² = g(z_t, z_{t+1} - P(z_t, a_t, 0)),    p(ξ) = N(0, 1)

    In training ξ is drawn from q, and what it may tell is priced by :meth:`price`, in nats; afterwards it is drawn by
    :meth:`sample`, swept, or left at 0, which is the deterministic predictor. Samples are Gaussian with the moments
    that ξ had over training runs (:meth:`set_moments`): those of p only where training has come to its end.

    A direction of the error of which ξ would take off v (in units of the loss) is described where v > β/2, β the weight
    of the price, and then down to an error of β/2 (water-filling of rate-distortion theory, for Gaussian errors and a
    linear P): β says which errors are not worth a number. What z_t and a_t tell costs the same nats and takes nothing
    off the error, so ξ does not hold it.

    Args:
        latent: width of a latent, its tokens together, D.
        size: d, >= 1. With ``kl`` those too many stay at the prior, as long as the predictor errs by less than β/2 in
            every direction; else they take up its errors.
        hidden: widths of the hidden layers of g.
        regularised: ``kl``: the price is the mean divergence of q from p, row by row. ``noise``: s is ``noise`` in all
            rows, so that ξ cannot tell more than about log(1/noise) nats in each of its dimensions, and the price is
            the divergence from p of one Gaussian with the moments of all rows: what is drawn from p looks like what was
            inferred, and nothing limits ξ but its dimension and the noise.
        noise: s, in (0, 1), for ``noise``.

    Shapes:
        z, missed (B, ..., D') of D numbers each -> m, log s² (B, d).

    Raises:
        SchemaError: a setting out of range.
        ShapeError: latents of another width.

    Source: Kingma, Welling (2014), arXiv:1312.6114; limited by dimension or noise: LeCun (2022),
        A path towards autonomous machine intelligence, section 4.3; water-filling: Cover, Thomas, section 10.3.
    """

    centre: Tensor
    root: Tensor

    def __init__(
        self,
        latent: int,
        size: int,
        hidden: Sequence[int] = (128,),
        regularised: Literal["kl", "noise"] = "kl",
        noise: float = 0.3,
    ) -> None:
        super().__init__()
        if latent < 1 or size < 1 or regularised not in ("kl", "noise") or not 0 < noise < 1:
            raise SchemaError(
                f"LatentVariable got latent {latent}, size {size}, regularised '{regularised}', noise {noise}; "
                "expected numbers >= 1, 'kl' or 'noise', and a noise between 0 and 1."
            )
        self.init_args: dict[str, Any] = {
            "latent": latent, "size": size, "hidden": [int(h) for h in hidden], "regularised": regularised,
            "noise": noise,
        }  # fmt: skip
        self.latent, self.size, self.regularised, self.noise = latent, size, regularised, noise
        widths = [2 * latent, *hidden, size * (2 if regularised == "kl" else 1)]
        layers: list[nn.Module] = []
        for number, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [nn.GELU()] if number else []
            layers.append(nn.Linear(a, b))
        self.network = nn.Sequential(*layers)
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("root", torch.eye(size))

    def forward(self, latent: Tensor, missed: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and log s² of q, from latents and from what the predictor without ξ missed after them."""
        flat = latent.flatten(1), missed.flatten(1)
        if any(part.shape[1] != self.latent for part in flat) or len(latent) != len(missed):
            raise ShapeError(
                f"LatentVariable got latents {tuple(latent.shape)} and errors {tuple(missed.shape)}; expected as many "
                f"rows of {self.latent} numbers of each."
            )
        found = self.network(torch.cat(flat, dim=1))
        if self.regularised == "noise":
            return found, torch.full_like(found, 2 * math.log(self.noise))
        mean, spread = found.chunk(2, dim=1)
        return mean, spread.clamp(-14.0, 4.0)

    @staticmethod
    def drawn(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
        """Return m + s noise, (B, d), with gradients; noise standard normal."""
        return mean + (log_variance / 2).exp() * noise

    @torch.no_grad()
    def set_moments(self, mean: Tensor, log_variance: Tensor) -> None:
        """Set what :meth:`sample` draws from: the moments of ξ over all rows, from m, log s² (n, d) of training runs.

        Raises:
            ShapeError: fewer than two rows more than numbers.
        """
        self._check_rows(mean)
        centre, covariance = _moments(mean.double(), log_variance.double())
        self.centre.copy_(centre)
        self.root.copy_(torch.linalg.cholesky(covariance))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``count`` draws of ξ, (count, d)."""
        noise = torch.randn(count, self.size, generator=generator, dtype=self.root.dtype, device=self.root.device)
        return self.centre + noise @ self.root.T

    def price(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return what ξ tells, in nats per row, as far as it is limited: a scalar >= 0.

        Raises:
            ShapeError: fewer than two rows more than numbers, where moments of all rows are asked for.
        """
        if self.regularised == "kl":
            return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        self._check_rows(mean)
        centre, moments = _moments(mean, log_variance)
        return 0.5 * (moments.diagonal().sum() + centre.square().sum() - self.size - torch.logdet(moments))

    def _check_rows(self, mean: Tensor) -> None:
        if len(mean) < self.size + 2:
            raise ShapeError(
                f"{len(mean)} rows do not tell the moments of {self.size} numbers; expected {self.size + 2} or more."
            )


def _moments(mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of ξ over rows of q."""
    centre = mean.mean(dim=0)
    away = mean - centre
    return centre, away.T @ away / (len(mean) - 1) + torch.diag(log_variance.exp().mean(dim=0))
