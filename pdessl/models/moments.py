"""Moments of fields: how large they, their derivatives and material derivatives are, coarse-grained, over time."""

# B batch, C channels, T time frames, X space (d axes), K responses, W windows in time, D feature width

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError

__all__ = ["Moments"]

_TINY = 1e-30
_LEVELS = {1: ((1, 1), (2, 2), (4, 4), (4, 8)), 2: ((1, 1), (1, 2), (1, 4), (1, 8))}


class Moments(nn.Module):
    """Logarithms of root mean squares of what happens in a run: nothing is trained, an equation is not needed.

        log √<(G r)²>,    r: z - <z>, ∂_i z, Δz, z_t, ∇·(uz), z_t + ∇·(uz)     of every field z, and of the vorticity

    u: the velocity, where the fields hold one (∇·(uz) is u·∇z where it is free of divergence; of a velocity on one axis
    it is halved, u u_x); G: a triangular mean over (2a - 1) frames and (2b - 1) nodes. Responses are made on the grid
    of the data and averaged afterwards: what is coarse-grained is the flux through a surface, so that noise goes and
    the material derivative stays what the equation's right-hand side makes it. <...> is over space and the run, or one
    of W windows in time, the early ones shorter. Derivatives in space are central (one-sided at walls), in time between
    two frames, and what stands beside them is the mean of both.

    With ``correlations`` the coefficients of correlation of the responses of one field are further features: how much
    of the material derivative is, say, diffusion. They serve a code that is fitted on many runs
    (:func:`pdessl.models.discriminant.fit_discriminant`), and are too many for a ridge on few labels.

    Args:
        in_channels: C.
        periodic: per space axis, whether it wraps round.
        velocity: channel of the component along each axis; None: the fields hold none, and nothing is advected.
        levels: (a, b) per coarse-graining, frames and nodes; None: (1, 1), (2, 2), (4, 4), (4, 8) on one axis, (1, 1),
            (1, 2), (1, 4), (1, 8) on two. Levels that do not fit the grid are refused.
        windows: W; None: 3 on one axis, 6 on two.
        correlations: see above.
        profiles: bins along each axis that is not periodic, of the root mean square of every field; 0: none. Where on
            an axis something happens means nothing if the axis wraps round.

    Attributes:
        names: D texts, such as ``z0: log rms of z_t + div uz, coarse 4 x 8, window 1``.
        in_channels, feature_dim, uses_spacing, init_args: as every encoder.

    Shapes:
        (B, C, T, *X) and spacing (B, 1 + d) -> (B, D), in units of the data: another unit of time, length or a field
        adds the same number to a feature of all runs.

    Raises:
        ShapeError: other fields, fewer frames than windows (one more), or nodes than the coarsest level.
        ValueError: a velocity of another number of components than there are axes, or axes other than one or two.
    """

    uses_spacing = True

    def __init__(
        self,
        in_channels: int = 1,
        periodic: Sequence[bool] = (True,),
        velocity: Sequence[int] | None = None,
        levels: Sequence[Sequence[int]] | None = None,
        windows: int | None = None,
        correlations: bool = False,
        profiles: int = 0,
    ) -> None:
        super().__init__()
        d = len(periodic)
        if d not in _LEVELS or (velocity is not None and (len(velocity) != d or max(velocity) >= in_channels)):
            raise ValueError(
                f"Moments got {d} axes and velocity {velocity} of {in_channels} fields; expected one or two axes, and "
                "a channel of the velocity along each, or None."
            )
        self.levels = tuple((int(a), int(b)) for a, b in (levels or _LEVELS[d]))
        self.windows = windows or (3 if d == 1 else 6)
        if min(min(level) for level in self.levels) < 1 or self.windows < 1 or profiles < 0:
            raise ValueError(
                f"Moments got levels {self.levels}, windows {windows}, profiles {profiles}; expected >= 1."
            )
        self.periodic = tuple(bool(p) for p in periodic)
        self.velocity = None if velocity is None else tuple(int(c) for c in velocity)
        self.in_channels, self.correlations, self.profiles = in_channels, correlations, profiles
        self.init_args = {
            "in_channels": in_channels,
            "periodic": list(self.periodic),
            "velocity": None if self.velocity is None else list(self.velocity),
            "levels": [list(level) for level in self.levels],
            "windows": self.windows,
            "correlations": correlations,
            "profiles": profiles,
        }
        self.names = tuple(self._names())
        self.feature_dim = len(self.names)

    @staticmethod
    def fitting(
        shape: Sequence[int], periodic: Sequence[bool], velocity: Sequence[int] | None, correlations: bool = False
    ) -> Moments:
        """Return the moments whose levels and windows fit fields of a shape (B, C, T, *X)."""
        _, channels, frames, *nodes = shape
        levels = [
            (a, b) for a, b in _LEVELS.get(len(nodes), ()) if 2 * b <= min(nodes) and frames - 1 - 2 * (a - 1) >= 1
        ]
        widest = max((a for a, _ in levels), default=1)
        windows = max(1, min(3 if len(nodes) == 1 else 6, frames - 1 - 2 * (widest - 1)))
        return Moments(channels, periodic, velocity, levels, windows, correlations)

    @property
    def responses(self) -> tuple[str, ...]:
        """What is measured of every field."""
        axes = "xy"[: len(self.periodic)]
        moved = () if self.velocity is None else ("div uz", "z_t + div uz")
        return ("z", *(f"z_{a}" for a in axes), "laplacian of z", "z_t", *moved)

    @property
    def measured(self) -> tuple[str, ...]:
        """The fields and what is made of them: z0, z1, ..., and the vorticity of a velocity on two axes."""
        spin = ("vorticity",) if self.velocity is not None and len(self.periodic) == 2 else ()
        return (*(f"z{c}" for c in range(self.in_channels)), *spin)

    @property
    def needed(self) -> tuple[int, ...]:
        """The least number of frames, and of nodes along every axis."""
        frames = self.windows + 1 + 2 * max(a for a, _ in self.levels) - 2
        return (frames, *[2 * max(b for _, b in self.levels)] * len(self.periodic))

    def _names(self) -> list[str]:
        kinds, found = self.responses, []
        for (a, b), w in itertools.product(self.levels, range(self.windows + 1)):
            where = f"coarse {a} x {b}, {f'window {w}' if w else 'all frames'}"
            found += [f"{z}: log rms of {kind}, {where}" for z in self.measured for kind in kinds]
            if self.correlations:
                pairs = list(itertools.combinations(kinds, 2))
                found += [f"{z}: correlation of {p} and {q}, {where}" for z in self.measured for p, q in pairs]
        walls = [a for a, wraps in zip("xy", self.periodic, strict=False) if not wraps]
        for axis, w in itertools.product(walls, range(self.windows + 1)):
            bins = range(self.profiles)
            found += [f"{z}: log rms, bin {k} along {axis}, window {w}" for z in self.measured for k in bins]
        return found

    def forward(self, x: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Return features (B, D), float64, of fields (B, C, T, *X)."""
        d, needed = len(self.periodic), self.needed
        if x.ndim != 3 + d or x.shape[1] != self.in_channels or spacing is None or spacing.shape != (len(x), 1 + d):
            found = None if spacing is None else tuple(spacing.shape)
            raise ShapeError(
                f"Moments got fields {tuple(x.shape)} and spacing {found}; expected (B, {self.in_channels}, T, *X) "
                f"with {d} space axes and (B, {1 + d})."
            )
        if any(n < least for n, least in zip(x.shape[2:], needed, strict=True)):
            raise ShapeError(
                f"Moments got fields {tuple(x.shape)}; {needed[0]} frames and {needed[1]} nodes are needed for levels "
                f"{self.levels} and {self.windows} windows. Give fewer windows or finer levels."
            )
        responses = self._responses(x, spacing.to(x.device))  # (B, F, K, T - 1, *X)
        b, f, k = responses.shape[:3]
        spans = self._spans(responses.shape[3])
        columns = []
        for level in self.levels:
            coarse = self._coarse(responses.flatten(0, 2)[:, None], *level)
            coarse = coarse.reshape(b, f, k, *coarse.shape[2:])
            for low, high in self._spans(coarse.shape[3]):
                columns += self._sizes(coarse[:, :, :, low:high].flatten(3).double())
        for axis in range(d) if self.profiles else ():
            if not self.periodic[axis]:
                square = responses[:, :, 0].double().square()
                others = [3 + i for i in range(d) if i != axis]
                along = square.mean(dim=others) if others else square  # (B, F, T - 1, X)
                for low, high in spans:
                    binned = nn.functional.adaptive_avg_pool1d(along[:, :, low:high].mean(dim=2), self.profiles)
                    columns.append(binned.clamp_min(_TINY).log().flatten(1) / 2)
        return torch.cat(columns, dim=1)

    def _responses(self, x: Tensor, spacing: Tensor) -> Tensor:
        """Return the responses between frames, (B, F, K, T - 1, *X)."""
        d = len(self.periodic)
        steps = [spacing[:, i].to(x.dtype).reshape(-1, *[1] * (2 + d)) for i in range(1 + d)]
        if "vorticity" in self.measured:
            u, v = (x[:, c : c + 1] for c in self.velocity)
            x = torch.cat([x, self._slope(v, 0, steps[1]) - self._slope(u, 1, steps[2])], dim=1)
        mean = x.flatten(2).mean(dim=2).reshape(*x.shape[:2], *[1] * (1 + d))
        slopes = [self._slope(x, i, steps[1 + i]) for i in range(d)]
        bend = sum(self._bend(x, i, steps[1 + i]) for i in range(d))
        between = [_between(x - mean), *map(_between, slopes), _between(bend), (x[:, :, 1:] - x[:, :, :-1]) / steps[0]]
        if self.velocity is not None:
            fluxes = ((i, x[:, c : c + 1] * x) for i, c in enumerate(self.velocity))
            moved = sum(self._slope(flux, i, steps[1 + i]) for i, flux in fluxes)
            if d == 1:
                moved[:, self.velocity[0]] /= 2
            between += [_between(moved), between[-1] + _between(moved)]
        return torch.stack(between, dim=2)

    def _slope(self, z: Tensor, axis: int, step: Tensor) -> Tensor:
        dim = 3 + axis
        if self.periodic[axis]:
            return (z.roll(-1, dim) - z.roll(1, dim)) / (2 * step)
        return torch.gradient(z, dim=dim)[0] / step

    def _bend(self, z: Tensor, axis: int, step: Tensor) -> Tensor:
        dim = 3 + axis
        if self.periodic[axis]:
            return (z.roll(-1, dim) - 2 * z + z.roll(1, dim)) / step**2
        left, middle, right = (z.narrow(dim, i, z.shape[dim] - 2) for i in range(3))
        inner = left - 2 * middle + right
        ends = (inner.narrow(dim, 0, 1), inner, inner.narrow(dim, inner.shape[dim] - 1, 1))
        return torch.cat(ends, dim=dim) / step**2

    def _coarse(self, z: Tensor, frames: int, nodes: int) -> Tensor:
        """Return triangular means over (2 frames - 1) and (2 nodes - 1) of (N, 1, T, *X)."""
        if max(frames, nodes) == 1:
            return z
        for i, wraps in enumerate(self.periodic):
            if wraps and nodes > 1:
                z = torch.cat([z, z.narrow(3 + i, 0, 2 * nodes - 2)], dim=3 + i)
        z = _box(_box(z, 2, frames), 2, frames)
        for i, wraps in enumerate(self.periodic):
            # Every node where an axis wraps round: nothing may depend on where it begins.
            z = _box(_box(z, 3 + i, nodes), 3 + i, nodes, 1 if wraps else nodes)
        return z

    def _spans(self, frames: int) -> list[tuple[int, int]]:
        """Return where windows begin and end: the whole run, then its parts of a frame or more, early ones shorter."""
        edges = [round(frames * (w / self.windows) ** 1.5) for w in range(self.windows + 1)]
        for w in range(1, self.windows):
            edges[w] = min(max(edges[w], edges[w - 1] + 1), frames - self.windows + w)
        return [(0, frames), *itertools.pairwise(edges)]

    def _sizes(self, values: Tensor) -> list[Tensor]:
        """Return log rms of responses (B, F, K, N), and their correlations, as columns (B, ...)."""
        if not self.correlations:
            return [values.square().mean(dim=3).clamp_min(_TINY).log().flatten(1) / 2]
        gram = values @ values.transpose(2, 3) / values.shape[3]
        square = gram.diagonal(dim1=2, dim2=3).clamp_min(_TINY)
        size = square.sqrt()
        first, second = torch.triu_indices(gram.shape[2], gram.shape[2], 1, device=values.device)
        related = gram[:, :, first, second] / (size[:, :, first] * size[:, :, second])
        return [square.log().flatten(1) / 2, related.flatten(1)]


def _box(z: Tensor, dim: int, width: int, stride: int = 1) -> Tensor:
    """Return means of so many neighbours along a dimension, by sums of sums: an addition for each bit of the width."""
    count, total, start = z.shape[dim] - width + 1, None, 0
    sums, size = z, 1
    while True:
        if width & size:
            part = sums.narrow(dim, start, count)
            total, start = part if total is None else total + part, start + size
        if 2 * size > width:
            break
        left = sums.shape[dim] - size
        sums, size = sums.narrow(dim, 0, left) + sums.narrow(dim, size, left), 2 * size
    assert total is not None  # noqa: S101  (a width has a bit)
    kept = total if stride == 1 else total[(slice(None),) * dim + (slice(None, None, stride),)]
    return kept / width


def _between(z: Tensor) -> Tensor:
    return (z[:, :, 1:] + z[:, :, :-1]) / 2
