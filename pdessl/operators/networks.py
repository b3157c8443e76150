"""Laws that no library has: learned functions and kernels in place of monomials and derivatives, as encoders."""

# B batch, C channels, T time frames, X nodes, F functions, R codes, N positions of the test function, K terms

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.models import Representation
from pdessl.operators.test_functions import bump

__all__ = ["AmortisedOperator", "LearnedOperator", "minimising_codes"]

_POWER = 8
_RIDGE = 1e-6  # of the mean size of what codes multiply


def minimising_codes(tokens: Tensor) -> Tensor:
    """Return the codes that leave least unexplained: inference by minimisation, an R by R solve per run.

        z = argmin Σ_n (τ_n0 - z·τ_n)²

    Args:
        tokens: at every position what codes have to explain, and what each of them multiplies, (B, N, 1 + R).

    Returns:
        (B, R).
    """
    rest, slopes = tokens[..., :1], tokens[..., 1:]
    left = slopes.mT @ slopes
    size = left.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-30)
    eye = torch.eye(left.shape[-1], dtype=left.dtype, device=left.device)
    return torch.linalg.solve(left + _RIDGE * size[:, None, None] * eye, slopes.mT @ rest)[..., 0]


class _Products(nn.Module):
    """Integrals against smooth test functions along time and a periodic axis: what both networks share."""

    def __init__(self, half_width: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = (int(stride[0]), int(stride[1]))
        frames, nodes = half_width
        for order in (0, 1):
            self.register_buffer(f"rate{order}", bump(frames, _POWER, order), persistent=False)
        for order in range(5):
            self.register_buffer(f"slope{order}", bump(nodes, _POWER, order), persistent=False)

    def over_time(self, values: Tensor, order: int = 0) -> Tensor:
        """Integrate the time derivative of an order of (B, F, T, X) over windows of frames, (B, F, T', X)."""
        weights = getattr(self, f"rate{order}").to(values.dtype)
        if values.shape[2] < len(weights):
            raise ShapeError(
                f"got {values.shape[2]} frames; expected {len(weights)} or more, the width of the test function. Give "
                "longer runs or views, or a smaller half_width."
            )
        return torch.einsum("bftx,st->bfsx", values, _sliding(weights, values.shape[2], self.stride[0], False))

    def along(self, values: Tensor, kernels: Tensor) -> Tensor:
        """Correlate (B, F, T', X) with kernels (K, F, taps) along the axis, (B, K, T', X')."""
        if values.shape[3] < kernels.shape[-1]:
            raise ShapeError(
                f"got {values.shape[3]} nodes; expected {kernels.shape[-1]} or more, the width of a kernel."
            )
        matrix = _sliding(kernels.to(values.dtype), values.shape[3], self.stride[1], True)
        return torch.einsum("bftx,kfyx->bkty", values, matrix)

    def slope(self, values: Tensor, order: int) -> Tensor:
        """Integrate the derivative of an order along the axis, (B, 1, T', X) -> (B, 1, T', X')."""
        return self.along(values, getattr(self, f"slope{order}")[None, None])

    def target(self, x: Tensor) -> Tensor:
        """Return the integrals of the time derivative of the first field, (B, 1, T', X'), per frame."""
        return self.slope(self.over_time(x[:, :1], 1), 0)


def _sliding(weights: Tensor, size: int, stride: int, wraps: bool) -> Tensor:
    """Return matrices (..., positions, size) that correlate with weights (..., taps)."""
    taps = weights.shape[-1]
    starts = torch.arange(0, size if wraps else size - taps + 1, stride, device=weights.device)
    index = starts[:, None] + torch.arange(taps, device=weights.device) - (taps // 2 if wraps else 0)
    shape = (*weights.shape[:-1], len(starts))
    spread = weights[..., None, :].expand(*shape, taps)
    return weights.new_zeros(*shape, size).scatter_add(-1, (index % size).expand(*shape, taps), spread)


def _waves(half_width: int) -> Tensor:
    """Return sines and cosines under a window, what kernels are sums of, (K, taps), each of norm 1."""
    j = np.arange(-half_width, half_width + 1) / (half_width + 1)
    count = half_width // 2
    waves = [np.cos(np.pi * m * j) for m in range(count + 1)] + [np.sin(np.pi * m * j) for m in range(1, count + 1)]
    found = np.stack(waves) * (1 - j**2) ** 2
    return torch.from_numpy(found / np.linalg.norm(found, axis=1, keepdims=True))


def _tokens(target: Tensor, explained: Tensor) -> Tensor:
    """Return what is left of the target, and what codes multiply, relative to the size of the target, (B, N, 1 + R)."""
    size = target.flatten(1).square().mean(dim=1).clamp_min(1e-30).sqrt()
    parts = torch.cat([target - explained[:, :1], explained[:, 1:]], dim=1)
    return (parts.flatten(2) / size[:, None, None]).mT


class LearnedOperator(nn.Module):
    """A law of functions and kernels that nobody chose, and R numbers of each run in it, found by minimisation.

        ∫∫ φ u_t = κ0 * g(u) + Σ_j z_j κ_j * g(u),      z = argmin of what is left unexplained in the run

    g: the fields at a node and F functions of them (a perceptron); κ: kernels along x, sums of waves under a window.
    Both are integrated over time against the test function. Where :class:`pdessl.operators.LatentOperator` knows
    monomials and derivatives, this knows only "first order in time, the same everywhere, as far as a kernel reaches".

    :func:`pdessl.operators.fit_learned` finds the kernels in closed form, with the functions as they were drawn, in
    seconds; :class:`pdessl.tasks.Pretraining` trains both with :class:`pdessl.objectives.CrossResidual` on views that
    are windows in time. As an encoder its features are the codes, found by minimisation also when it predicts;
    ``gives_codes`` says that parameters are read from them affinely. Functions that are nearly combinations of each
    other cancel: all arithmetic is in float64.

    Args:
        in_channels: C; the law is that of the first field.
        codes: R >= 1.
        functions: F, besides the fields.
        hidden: width of the perceptron.
        half_width: of the test function, frames and nodes; a kernel has 2 h + 1 taps.
        stride: distance of the positions, frames and nodes.

    Shapes:
        standardised fields (B, C, T, X) on a periodic axis -> features (B, R), tokens (B, N, 1 + R); see
        :func:`minimising_codes`. Frames and nodes have the steps of training.

    Raises:
        ShapeError: other than one axis, or fewer frames or nodes than a test function.

    Source: ours; latent parameters by prediction: Lu, Kim, Soljačić (2020), arXiv:1907.06011; fixed random functions:
        Rahimi and Recht (2008).
    """

    gives_codes = True
    waves: Tensor
    scale: Tensor

    def __init__(
        self,
        in_channels: int = 1,
        codes: int = 1,
        functions: int = 6,
        hidden: int = 16,
        half_width: Sequence[int] = (9, 13),
        stride: Sequence[int] = (2, 2),
    ) -> None:
        super().__init__()
        self.in_channels, self.feature_dim, self.width = in_channels, codes, tuple(half_width)
        self.init_args = {
            "in_channels": in_channels,
            "codes": codes,
            "functions": functions,
            "hidden": hidden,
            "half_width": list(half_width),
            "stride": list(stride),
        }
        self.products = _Products(half_width, stride)
        first = nn.Conv2d(in_channels, hidden, 1, dtype=torch.float64)
        with torch.no_grad():
            for weight in first.parameters():
                weight.mul_(1.5)  # of fields of size one: bent within their range
        self.functions = nn.Sequential(first, nn.GELU(), nn.Conv2d(hidden, functions, 1, dtype=torch.float64))
        basis = _waves(half_width[1])
        self.register_buffer("waves", basis, persistent=False)
        self.kernels = nn.Parameter(torch.randn(1 + codes, in_channels + functions, len(basis), dtype=torch.float64))
        self.register_buffer("scale", torch.zeros((), dtype=torch.float64))

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return codes, and the tokens that they are found from."""
        _refuse_other_axes(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.kernels.dtype)
            made = torch.cat([x, self.functions(x)], dim=1)
            explained = self.products.along(self.products.over_time(made), self.kernels @ self.waves)
            target = self.products.target(x)
            if self.training and not bool(self.scale > 0):
                with torch.no_grad():  # weights of the order of one, whatever the step in time
                    ratio = target.square().mean().sqrt() / explained.square().mean().sqrt().clamp_min(1e-30)
                    self.scale.copy_(ratio)
            tokens = _tokens(target, self.scale * explained)
            return Representation(minimising_codes(tokens), None, tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Return codes (B, R)."""
        return self.represent(x).features

    @torch.no_grad()
    def library(self, x: Tensor) -> Tensor:
        """Return products with every function and wave, and the target last, (B, K + 1, T', X'): terms of a law."""
        _refuse_other_axes(x)
        x = x.to(self.kernels.dtype)
        smooth = self.products.over_time(torch.cat([x, self.functions(x)], dim=1))
        terms = self.products.along(smooth.flatten(0, 1)[:, None], self.waves[:, None])
        return torch.cat([terms.unflatten(0, smooth.shape[:2]).flatten(1, 2), self.products.target(x)], dim=1)


class AmortisedOperator(nn.Module):
    """An encoder whose code must make the residual of a law small, on other frames than those it has seen.

        ∫∫ φ u_t = c0·W + Σ_j z_j C_j·W,      z = MLP(log energies of learned filters of the fields)

    W: weak products of the first field: u to order 4, u² to order 2, (u³)_x; c0 and C are learned too. A forecast in
    weak form, without a solver and without frames to be predicted. With ``inference: minimised`` the features are the
    codes that leave least unexplained in the run itself, which costs no more and errs less where fields are resolved;
    ``amortised`` is what the encoder says.

    Train it as :class:`LearnedOperator`.

    Args:
        in_channels: C.
        codes: R >= 1.
        filters: learned filters, whose energies over the run the encoder sees.
        size: of a filter, frames and nodes.
        hidden: width of the MLP.
        half_width: of the test function, frames and nodes.
        stride: distance of the positions, frames and nodes.
        inference: of features in evaluation mode: ``amortised`` or ``minimised``.

    Shapes, Raises:
        as :class:`LearnedOperator`.

    Source: ours; amortised inference: Kingma and Welling (2014), arXiv:1312.6114.
    """

    gives_codes = True
    scale: Tensor
    _ORDERS = ((1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 0), (2, 1), (2, 2), (3, 1))

    def __init__(
        self,
        in_channels: int = 1,
        codes: int = 1,
        filters: int = 48,
        size: Sequence[int] = (5, 9),
        hidden: int = 64,
        half_width: Sequence[int] = (9, 10),
        stride: Sequence[int] = (2, 2),
        inference: Literal["amortised", "minimised"] = "amortised",
    ) -> None:
        super().__init__()
        if inference not in ("amortised", "minimised"):
            raise ValueError(f"AmortisedOperator got inference '{inference}'; expected amortised or minimised.")
        self.in_channels, self.feature_dim, self.inference, self.size = in_channels, codes, inference, tuple(size)
        self.init_args = {
            "in_channels": in_channels,
            "codes": codes,
            "filters": filters,
            "size": list(size),
            "hidden": hidden,
            "half_width": list(half_width),
            "stride": list(stride),
            "inference": inference,
        }
        self.products = _Products(half_width, stride)
        self.filters = nn.Parameter(torch.randn(filters, in_channels * size[0] * size[1]))
        self.encode = nn.Sequential(
            nn.BatchNorm1d(filters), nn.Linear(filters, hidden), nn.GELU(), nn.Linear(hidden, codes)
        )
        # Terms have sizes that differ by orders of magnitude: coefficients are learned relative to them.
        self.register_buffer("scale", torch.zeros(len(self._ORDERS)))
        self.law = nn.Parameter(0.1 * torch.randn(1 + codes, len(self._ORDERS)))

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return codes, and the tokens that say what they leave unexplained."""
        _refuse_other_axes(x)
        target = self.products.target(x)
        smooth = {m: self.products.over_time(x[:, :1] ** m) for m in (1, 2, 3)}
        library = torch.cat([self.products.slope(smooth[m], r) for m, r in self._ORDERS], dim=1)
        if self.training and not bool((self.scale > 0).any()):
            with torch.no_grad():
                ratio = library.square().mean(dim=(0, 2, 3)).sqrt() / target.square().mean().sqrt().clamp_min(1e-30)
                self.scale.copy_(ratio)
        law = self.law / self.scale.clamp_min(1e-30)
        tokens = _tokens(target, torch.einsum("rk,bktx->brtx", law, library))
        if self.inference == "minimised" and not self.training:
            return Representation(minimising_codes(tokens), None, tokens)
        return Representation(self.encode(self.energies(x)), None, tokens)

    def energies(self, x: Tensor) -> Tensor:
        """Return logarithms of the mean squares of what the filters make of fields: of p·C·p, C that of all patches."""
        frames, nodes = self.size
        padded = torch.cat([x, x[..., : nodes - 1]], dim=3)
        patches = padded.unfold(2, frames, 1).unfold(3, nodes, 1).movedim(1, 3).flatten(3).flatten(1, 2)
        products = patches.mT @ patches / patches.shape[1]
        return torch.einsum("kp,bpq,kq->bk", self.filters, products, self.filters).clamp_min(1e-12).log()

    def forward(self, x: Tensor) -> Tensor:
        """Return codes (B, R)."""
        return self.represent(x).features


def _refuse_other_axes(x: Tensor) -> None:
    if x.ndim != 4:
        raise ShapeError(
            f"got fields {tuple(x.shape)}; learned laws are of one periodic axis, (B, C, T, X). In the plane use "
            "'pdessl discover'."
        )
