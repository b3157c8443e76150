"""A stepping network with the scales of what it was trained on: fields and conditions in the user's units."""

# B batch, C channels, K past frames, J frames a step gives, T time, X space (d axes), F width of the condition

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.models.normalisation import Normalisation
from pdessl.models.slopes import slopes

__all__ = ["Coarse", "Surrogate", "windows"]

Coarse = Callable[[Tensor], Tensor]  # fields (B, C, *X) of some runs, in their own units -> these one frame later
_PREDICTS = ("change", "frame")
_MOST = 12  # frames of training that a coarse step is measured from


class Surrogate(nn.Module):
    """Steps fields forward in time by a network, J frames from the last K.

        u(t + jΔt) = u(t) + s_j σ f(z(t - (K-1)Δt), ..., z(t); c)_j,    z = (u - m)/σ,   j = 1 ... J

    m, σ are mean and deviation of the fields, s_j the root mean square of the change of z over j frames, c the
    condition standardised: all fixed, from the runs of training. The network works on numbers of order one whatever the
    units and the time step; one that gives zero is persistence.

    A *hybrid* surrogate corrects a step S of something else, as of a solver on a coarse grid, which the network sees:

        u(t + jΔt) = S^j u(t) + s_j σ f(z(t - (K-1)Δt), ..., z(t), Sz(t), ..., S^J z(t); c)_j

    with s_j of what S leaves. One that gives zero is S. S is no part of the surrogate: it is given where steps are
    taken, as what it does depends on the run.

    What else the network sees is appended to its frames: those of S, then derivatives of the last frame along every
    axis, each over its own deviation.

    Args:
        network: any module ``(frames (B, C, K', *X), condition (B, F) or None) -> (B, C, J, *X)``, or ``(B, C, *X)``;
            K' = K, + J of a hybrid, + derivatives · d.
        channels, past, bundle, condition: C, K, J, F; None: the network's attributes ``in_channels``, ``past`` (which
            is K'), ``bundle`` (1 without one) and ``condition`` (0 without one).
        predicts: ``change``, as above, or ``frame``: f is the next z itself.
        coarse: a hybrid.
        derivatives: highest order of the derivatives of the last frame that the network sees; see
            :func:`pdessl.models.slopes.slopes`.
        periodic: per space axis, whether it is periodic, for the derivatives.

    Raises:
        SchemaError: a size that is neither given nor known of the network, another ``predicts``, one with which a
            hybrid has nothing to correct, or derivatives without axes.

    Source: learned corrections of a coarse solver: Kochkov et al. (2021), arXiv:2102.01010; derivatives as input:
        arXiv:2511.09729.
    """

    condition_mean: Tensor
    condition_std: Tensor
    change: Tensor
    slope: Tensor

    def __init__(
        self,
        network: nn.Module,
        channels: int | None = None,
        past: int | None = None,
        bundle: int | None = None,
        condition: int | None = None,
        predicts: str = "change",
        coarse: bool = False,
        derivatives: int = 0,
        periodic: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        if predicts not in _PREDICTS or (coarse and predicts == "frame"):
            raise SchemaError(
                f"Surrogate got predicts '{predicts}' and coarse {coarse}; expected one of {', '.join(_PREDICTS)}, and "
                "'change' where a coarse step is corrected."
            )
        if derivatives < 0 or (derivatives and not periodic):
            raise SchemaError(
                f"Surrogate got derivatives {derivatives} along the axes {list(periodic)}; expected an order >= 0 and, "
                "per axis, whether it is periodic: Surrogate(network, derivatives=2, periodic=(True,))."
            )

        def size(given: int | None, name: str, default: int | None = None) -> int:
            found = getattr(network, name, default) if given is None else given
            if found is None:
                raise SchemaError(
                    f"{type(network).__name__} does not say its {name}; give it: Surrogate(network, "
                    f"{name.removeprefix('in_')}=...)."
                )
            return int(found)

        self.network, self.predicts = network, predicts
        self.coarse, self.derivatives, self.periodic = coarse, derivatives, tuple(bool(p) for p in periodic)
        self.channels, self.bundle = size(channels, "in_channels"), size(bundle, "bundle", 1)
        self.condition = size(condition, "condition", 0)
        appended = coarse * self.bundle + derivatives * len(self.periodic)
        self.past = size(past, "past") - (appended if past is None else 0)
        if self.past < 1:
            raise SchemaError(
                f"the network sees {self.past + appended} frames, of which {appended} are no past ones but coarse "
                f"steps and derivatives; expected past={appended + 1} or more of it."
            )
        self.scale = Normalisation(self.channels)
        self.register_buffer("change", torch.ones(self.channels, self.bundle))
        self.register_buffer("slope", torch.ones(self.channels, derivatives * len(self.periodic)))
        self.register_buffer("condition_mean", torch.zeros(self.condition))
        self.register_buffer("condition_std", torch.ones(self.condition))

    @torch.no_grad()
    def set_statistics(self, fields: Tensor, conditions: Tensor | None = None, coarse: Coarse | None = None) -> None:
        """Set all scales from runs of training.

        Args:
            fields: (B, C, T, *X), T > J.
            conditions: (B, F), where the network takes one.
            coarse: S for these runs, of a hybrid.

        Raises:
            ShapeError: too few frames, or a field that is constant.
        """
        flat = fields.double().transpose(0, 1).flatten(1)
        std = flat.std(dim=1)
        if fields.shape[2] <= self.bundle or not bool((std > 0).all()):
            raise ShapeError(
                f"statistics of fields {tuple(fields.shape)}; expected more than {self.bundle} frames, and fields that "
                "vary. Leave constant fields out."
            )
        self.scale.set_statistics(flat.mean(dim=1), std)
        z = self.scale(fields)
        if self.derivatives:
            found = slopes(z.transpose(1, 2).flatten(0, 1), self.derivatives, self.periodic).double()
            deviation = found.permute(1, 2, 0, *range(3, found.ndim)).flatten(2).std(dim=2)
            self.slope = deviation.clamp_min(1e-12).to(self.slope)
        self.change = torch.stack(self._moved(z, coarse), dim=1).clamp_min(1e-12).to(self.change)
        if conditions is not None:
            values = conditions.double()
            self.condition_mean = values.mean(dim=0).to(self.condition_mean)
            spread = values.std(dim=0, correction=0)
            # What differs by round-off alone, such as logarithms of equal time steps, is the same in all runs.
            differs = spread > 1e-6 * values.abs().amax(dim=0).clamp_min(1.0)
            self.condition_std = torch.where(differs, spread, torch.ones_like(spread)).to(self.condition_std)

    def _moved(self, z: Tensor, coarse: Coarse | None) -> list[Tensor]:
        """Return, for 1 ... J frames, the root mean square (C,) of what the network has to give."""
        if self.predicts == "frame":
            return [z.new_ones(self.channels)] * self.bundle
        last = z.shape[2] - self.bundle
        starts = range(last) if not self.coarse else range(0, last, -(-last // _MOST))
        left = torch.stack([z[:, :, t + 1 : t + 1 + self.bundle] - self._base(z[:, :, t], coarse) for t in starts])
        # (frames, B, C, J, *X) -> (C, J, everything)
        left = left.double().permute(2, 3, 0, 1, *range(4, left.ndim)).flatten(2)
        return list(left.square().mean(dim=2).sqrt().unbind(dim=1))

    def _base(self, z: Tensor, coarse: Coarse | None) -> Tensor:
        """Return what the network corrects: the frame z (B, C, *X) itself, or the J that S says follow it."""
        if not self.coarse:
            return z[:, :, None]
        if coarse is None:
            raise ShapeError(
                "a hybrid surrogate steps with a coarse step that it corrects; give it: coarse=..., as "
                "pdessl.operators.CoarseStep makes it of a law."
            )
        ahead = [self.physical(z)]
        for _ in range(self.bundle):
            ahead.append(coarse(ahead[-1]))
        return self.scale(torch.stack(ahead[1:], dim=2).to(self.scale.std)).to(z)

    def given(self, condition: Tensor | None) -> Tensor | None:
        """Return a condition (B, F) in its own units as the network is given it."""
        if condition is None:
            return None
        return (condition.to(self.condition_mean) - self.condition_mean) / self.condition_std

    def step(self, z: Tensor, condition: Tensor | None, coarse: Coarse | None = None) -> Tensor:
        """Return the next J frames, all standardised: (B, C, K, *X), (B, F) -> (B, C, J, *X).

        Args:
            z: the last frames.
            condition: as :meth:`given` gives it.
            coarse: S for these runs, of a hybrid.
        """
        last, seen = z[:, :, -1], [z]
        base = self._base(last, coarse)
        if self.coarse:
            seen.append(base)
        if self.derivatives:
            scale = self.slope.view(1, *self.slope.shape, *(1,) * (z.ndim - 3))
            seen.append(slopes(last, self.derivatives, self.periodic) / scale.to(z))
        found = self.network(torch.cat(seen, dim=2) if len(seen) > 1 else z, condition)
        found = found.unsqueeze(2) if found.ndim == z.ndim - 1 else found
        if self.predicts == "frame":
            return found
        change = self.change.view(1, *self.change.shape, *(1,) * (z.ndim - 3))
        return base + change * found

    def unrolled(self, z: Tensor, steps: int, condition: Tensor | None, coarse: Coarse | None = None) -> Tensor:
        """Return ``steps`` frames from the network's own predictions, all standardised, with gradients."""
        found: list[Tensor] = []
        while len(found) * self.bundle < steps:
            new = self.step(z, condition, coarse)
            found.append(new)
            z = torch.cat([z, new], dim=2)[:, :, -self.past :]
        return torch.cat(found, dim=2)[:, :, :steps]

    @torch.no_grad()
    def rollout(
        self, frames: Tensor, steps: int, condition: Tensor | None = None, coarse: Coarse | None = None
    ) -> Tensor:
        """Return ``steps`` further frames, each from the surrogate's own predictions, (B, C, steps, *X).

        Args:
            frames: at least K frames, (B, C, T >= K, *X), in the units of the fields; the last K are read.
            steps: number of frames, >= 1.
            condition: (B, F) in its own units.
            coarse: S for these runs, of a hybrid.

        Raises:
            ShapeError: fewer than K frames, or a hybrid without S.
        """
        if frames.shape[2] < self.past:
            raise ShapeError(f"{frames.shape[2]} frames; the surrogate steps from the last {self.past}. Give more.")
        z = self.scale(frames[:, :, -self.past :])
        return self.physical(self.unrolled(z, steps, self.given(condition), coarse))

    def physical(self, z: Tensor) -> Tensor:
        """Return standardised fields (B, C, ...) in their units."""
        shape = (1, -1, *(1,) * (z.ndim - 2))
        return z.to(self.scale.std.dtype) * self.scale.std.view(shape) + self.scale.mean.view(shape)

    def forward(self, frames: Tensor, condition: Tensor | None = None, coarse: Coarse | None = None) -> Tensor:
        """Return the next J frames (B, C, J, *X) of frames (B, C, K, *X), all in the units of the fields."""
        return self.physical(self.step(self.scale(frames), self.given(condition), coarse))

    def sizes(self) -> dict[str, int | str | list[bool]]:
        """Return what, besides the network, makes a surrogate of the same shape."""
        return {
            "channels": self.channels, "past": self.past, "bundle": self.bundle, "condition": self.condition,
            "predicts": self.predicts, "coarse": self.coarse, "derivatives": self.derivatives,
            "periodic": list(self.periodic),
        }  # fmt: skip


def windows(fields: Tensor, start: Tensor, frames: int) -> Tensor:
    """Return ``frames`` frames of each run from its own start (B,), (B, C, frames, *X)."""
    at = start[:, None] + torch.arange(frames, device=fields.device)
    rows = torch.arange(len(fields), device=fields.device)[:, None]
    return fields.transpose(1, 2)[rows, at].transpose(1, 2)
