"""Laws that no library has: learned functions and kernels in place of monomials and derivatives, as encoders."""

# B batch, C channels, T time frames, X nodes (d axes), F functions, R codes, N positions, K terms, E left sides

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pdessl.models import EnergyEncoder, Representation
from pdessl.models.representation import left_open
from pdessl.operators.library import Term, curl_library, default_library
from pdessl.operators.products import Products, waves

__all__ = ["AmortisedOperator", "LearnedOperator", "minimising_codes"]

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


def _tokens(target: Tensor, explained: Tensor) -> Tensor:
    """Return what is left of the targets, and what codes multiply, relative to the size of each target.

    Args:
        target: (B, E, T', *X').
        explained: without a code, and by each code, (B, 1 + R, E, T', *X').

    Returns:
        (B, N, 1 + R), N: positions of all targets.
    """
    size = target.flatten(2).square().mean(dim=2).clamp_min(1e-30).sqrt()
    parts = torch.cat([target[:, None] - explained[:, :1], explained[:, 1:]], dim=1)
    return (parts.flatten(3) / size[:, None, :, None]).flatten(2).mT


class LearnedOperator(nn.Module):
    """A law of functions and kernels that nobody chose, and R numbers of each run in it, found by minimisation.

        ∫∫ φ u_t = κ0 * g(u) + Σ_j z_j κ_j * g(u),      z = argmin of what is left unexplained in the run

    g: the fields at a node and F functions of them (a perceptron); κ: kernels over space, sums of waves under a window.
    Both are integrated over time against the test function. Where :class:`pdessl.operators.LatentOperator` knows
    monomials and derivatives, this knows only "first order in time, the same everywhere, as far as a kernel reaches".

    :func:`pdessl.operators.fit_learned` finds the kernels in closed form, with the functions as they were drawn, in
    seconds; :class:`pdessl.tasks.Pretraining` trains both with :class:`pdessl.objectives.CrossResidual` on views that
    are windows in time. As an encoder its features are the codes, found by minimisation also when it predicts;
    ``gives_codes`` says that parameters are read from them affinely. Functions that are nearly combinations of each
    other cancel: all arithmetic is in float64.

    Args:
        in_channels: C; None: the data's.
        codes: R >= 1, shared by all left sides.
        functions: F, besides the fields.
        hidden: width of the perceptron.
        half_width: of the test function, frames and nodes along each axis; a kernel has 2 h + 1 taps. None: see
            :class:`pdessl.operators.products.Products`.
        stride: distance of the positions, frames and nodes along each axis; None: 2.
        left: left sides of the law, ``[c]`` for the rate of field c, ``[a, b]`` for that of the curl of a velocity.
        periodic: per space axis, whether it wraps round; None: as the views are.

    Shapes:
        standardised fields (B, C, T, *X) on one or two axes -> features (B, R), tokens (B, N, 1 + R); see
        :func:`minimising_codes`. Frames and nodes have the steps of training. With a curl ``spacing`` (B, 1 + d) too.

    Raises:
        ShapeError: another number of axes, or fewer frames or nodes than a test function.
        ValueError: half-widths, strides or left sides that do not match the axes and the fields.

    Source: ours; latent parameters by prediction: Lu, Kim, Soljačić (2020), arXiv:1907.06011; fixed random functions:
        Rahimi and Recht (2008).
    """

    gives_codes: ClassVar[bool] = True
    time_first: ClassVar[bool] = False  # of the entries of ``periodic``
    scale: Tensor

    def __init__(
        self,
        in_channels: int | None = None,
        codes: int = 1,
        functions: int = 6,
        hidden: int = 16,
        half_width: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        left: Sequence[Sequence[int]] = ((0,),),
        periodic: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.left_open = left_open(in_channels=in_channels, periodic=periodic)
        self.products = Products(in_channels, half_width, stride, periodic, left)
        self.in_channels, self.feature_dim = self.products.fields, codes
        self.uses_spacing = self.products.pair is not None
        self.init_args = {"codes": codes, "functions": functions, "hidden": hidden, **self.products.arguments}
        first = nn.Conv2d(self.in_channels, hidden, 1, dtype=torch.float64)
        with torch.no_grad():
            for weight in first.parameters():
                weight.mul_(1.5)  # of fields of size one: bent within their range
        self.functions = nn.Sequential(first, nn.GELU(), nn.Conv2d(hidden, functions, 1, dtype=torch.float64))
        self._waves = [waves(h) for h in self.products.half_width[1:]]
        count = self.in_channels + functions
        size = math.prod(len(w) for w in self._waves)
        rows = (1 + codes) * len(self.products.left)
        self.kernels = nn.Parameter(torch.randn(rows, count, size, dtype=torch.float64))
        self.register_buffer("scale", torch.zeros((), dtype=torch.float64))

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return codes, and the tokens that they are found from."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.kernels.dtype)
            self.products.look(x, spacing)
            target = self.products.rates(x, spacing)
            explained = self.products.under(self._made(x), self._shapes())
            explained = explained.unflatten(1, (-1, target.shape[1]))
            if self.training and not bool(self.scale > 0):
                with torch.no_grad():  # weights of the order of one, whatever the step in time
                    ratio = target.square().mean().sqrt() / explained.square().mean().sqrt().clamp_min(1e-30)
                    self.scale.copy_(ratio)
            tokens = _tokens(target, self.scale * explained)
            return Representation(minimising_codes(tokens), None, tokens)

    def forward(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return codes (B, R)."""
        return self.represent(x, spacing).features

    @torch.no_grad()
    def library(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return products with every function and wave, and the targets last, (B, K + E, T', *X'): terms of a law."""
        x = x.to(self.kernels.dtype)
        terms = self.products.under_each(self._made(x), [w.to(x.device) for w in self._waves])
        return torch.cat([terms, self.products.rates(x, spacing)], dim=1)

    def _made(self, x: Tensor) -> Tensor:
        """Return the fields and the functions of them, integrated over time, (B, C + F, T', *X)."""
        made = self.functions(x.flatten(3)).unflatten(3, x.shape[3:])
        return self.products.over_time(torch.cat([x, made], dim=1))

    def _shapes(self) -> Tensor:
        """Return the kernels, ((1 + R)·E, C + F, *taps)."""
        shapes = self.kernels.unflatten(2, [len(w) for w in self._waves])
        for wave in self._waves:
            shapes = torch.tensordot(shapes, wave.to(shapes.device), dims=([2], [0]))
        return shapes


class AmortisedOperator(nn.Module):
    """An encoder whose code must make the residual of a law small, on other frames than those it has seen.

        ∫∫ φ u_t = c0·W + Σ_j z_j C_j·W,      z = MLP(log energies of learned filters of the fields)

    W: weak products of the fields, the library that :func:`pdessl.operators.discover` offers; c0 and C are learned too.
    A forecast in weak form, without a solver and without frames to be predicted. With ``inference: minimised`` the
    features are the codes that leave least unexplained in the run itself, which costs no more and errs less where
    fields are resolved; ``amortised`` is what the encoder says.

    Train it as :class:`LearnedOperator`.

    Args:
        in_channels: C; None: the data's.
        codes: R >= 1, shared by all left sides.
        filters, size, windows, hidden: of the encoder, see :class:`pdessl.models.EnergyEncoder`.
        half_width, stride, left, periodic: of the law, see :class:`LearnedOperator`.
        inference: of features in evaluation mode: ``amortised`` or ``minimised``.

    Shapes, Raises:
        as :class:`LearnedOperator`.

    Source: ours; amortised inference: Kingma and Welling (2014), arXiv:1312.6114.
    """

    gives_codes: ClassVar[bool] = True
    time_first: ClassVar[bool] = False  # of the entries of ``periodic``
    scale: Tensor
    allowed: Tensor

    def __init__(
        self,
        in_channels: int | None = None,
        codes: int = 1,
        filters: int = 48,
        size: Sequence[int] | None = None,
        windows: int = 1,
        hidden: int = 64,
        half_width: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        left: Sequence[Sequence[int]] = ((0,),),
        periodic: Sequence[bool] | None = None,
        inference: Literal["amortised", "minimised"] = "amortised",
    ) -> None:
        super().__init__()
        if inference not in ("amortised", "minimised"):
            raise ValueError(f"AmortisedOperator got inference '{inference}'; expected amortised or minimised.")
        self.left_open = left_open(in_channels=in_channels, periodic=periodic)
        self.products = Products(in_channels, half_width, stride, periodic, left)
        self.in_channels, self.feature_dim, self.inference = self.products.fields, codes, inference
        self.uses_spacing = self.products.pair is not None
        own = {"filters": filters, "size": size, "windows": windows, "hidden": hidden, "inference": inference}
        self.init_args = {"codes": codes, **own, **self.products.arguments}
        self.encode = EnergyEncoder(
            self.in_channels,
            filters,
            size,
            windows,
            stride=self.products.axes,
            features=codes,
            hidden=hidden,
            periodic=self.products.periodic,
        )
        self._terms, allowed = _library(self.products)
        self.register_buffer("allowed", allowed, persistent=False)
        # Terms have sizes that differ by orders of magnitude: coefficients are learned relative to them.
        self.register_buffer("scale", torch.zeros(allowed.shape))
        self.law = nn.Parameter(0.1 * torch.randn(1 + codes, *allowed.shape))

    def represent(self, x: Tensor, spacing: Tensor | None = None) -> Representation:
        """Return codes, and the tokens that say what they leave unexplained."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.law.dtype)
            self.products.look(x, spacing)
            target, library = self.products.rates(x, spacing), self._integrated(x, spacing)
            if self.training and not bool((self.scale > 0).any()):
                with torch.no_grad():
                    sizes = [v.transpose(0, 1).flatten(1).square().mean(dim=1).sqrt() for v in (target, library)]
                    self.scale.copy_(sizes[1] / sizes[0][:, None].clamp_min(1e-30))
            law = self.law * self.allowed / self.scale.clamp_min(1e-30)
            tokens = _tokens(target, torch.einsum("rek,bk...->bre...", law, library))
        if self.inference == "minimised" and not self.training:
            return Representation(minimising_codes(tokens), None, tokens)
        return Representation(self.encode(x), None, tokens)

    def _integrated(self, x: Tensor, spacing: Tensor | None) -> Tensor:
        """Return the integrals of all terms, (B, K, T', *X')."""
        fields = self.in_channels
        units = [tuple(int(i == c) for i in range(fields)) for c in self.products.pair or ()]
        plain = [t.powers[:fields] for t in self._terms if not any(t.powers[fields:])]
        powers = list(dict.fromkeys([*units, *plain]))
        one = torch.ones_like(x[:, 0])
        values = [math.prod([x[:, c] ** m for c, m in enumerate(p) if m], start=one) for p in powers]
        smooth = dict(zip(powers, self.products.over_time(torch.stack(values, dim=1)).unbind(1), strict=True))
        found = []
        for term in self._terms:
            if any(term.powers[fields:]):
                found.append(self.products.curl([smooth[u] for u in units], term.orders, spacing))
            else:
                found.append(self.products.along(smooth[term.powers[:fields]], term.orders))
        return torch.stack(found, dim=1)

    def forward(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return codes (B, R)."""
        return self.represent(x, spacing).features


def _library(products: Products) -> tuple[tuple[Term, ...], Tensor]:
    """Return the terms of a law, and which of them each left side may have, (E, K) of 0 and 1."""
    none = (0,) if products.pair else ()
    plain = tuple(replace(t, powers=(*t.powers, *none)) for t in default_library(products.fields, products.axes))
    own = [plain if len(e) == 1 else curl_library(products.fields, (e[0], e[1])) for e in products.left]
    terms = tuple(dict.fromkeys(term for library in own for term in library))
    return terms, torch.tensor([[float(t in library) for t in terms] for library in own])
