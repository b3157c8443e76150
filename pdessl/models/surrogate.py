"""A stepping network with the scales of what it was trained on: fields and conditions in the user's units."""

# B batch, C channels, K past frames, J frames a step gives, T time, X space, F width of the condition

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.models.normalisation import Normalisation

__all__ = ["Surrogate", "windows"]

_PREDICTS = ("change", "frame")


class Surrogate(nn.Module):
    """Steps fields forward in time by a network, J frames from the last K.

        u(t + jΔt) = u(t) + s_j σ f(z(t - (K-1)Δt), ..., z(t); c)_j,    z = (u - m)/σ,   j = 1 ... J

    m, σ are mean and deviation of the fields, s_j the root mean square of the change of z over j frames, c the
    condition standardised: all fixed, from the runs of training. The network works on numbers of order one whatever the
    units and the time step; one that gives zero is persistence.

    Args:
        network: any module ``(frames (B, C, K, *X), condition (B, F) or None) -> (B, C, J, *X)``, or ``(B, C, *X)``.
        channels, past, bundle, condition: C, K, J, F; None: the network's attributes ``in_channels``, ``past``,
            ``bundle`` (1 without one) and ``condition`` (0 without one).
        predicts: ``change``, as above, or ``frame``: f is the next z itself.

    Raises:
        SchemaError: a size that is neither given nor known of the network, or another ``predicts``.
    """

    condition_mean: Tensor
    condition_std: Tensor
    change: Tensor

    def __init__(
        self,
        network: nn.Module,
        channels: int | None = None,
        past: int | None = None,
        bundle: int | None = None,
        condition: int | None = None,
        predicts: str = "change",
    ) -> None:
        super().__init__()
        if predicts not in _PREDICTS:
            raise SchemaError(f"Surrogate got predicts '{predicts}'; expected one of {', '.join(_PREDICTS)}.")

        def size(given: int | None, name: str, default: int | None = None) -> int:
            found = getattr(network, name, default) if given is None else given
            if found is None:
                raise SchemaError(
                    f"{type(network).__name__} does not say its {name}; give it: Surrogate(network, "
                    f"{name.removeprefix('in_')}=...)."
                )
            return int(found)

        self.network, self.predicts = network, predicts
        self.channels, self.past = size(channels, "in_channels"), size(past, "past")
        self.bundle, self.condition = size(bundle, "bundle", 1), size(condition, "condition", 0)
        self.scale = Normalisation(self.channels)
        self.register_buffer("change", torch.ones(self.channels, self.bundle))
        self.register_buffer("condition_mean", torch.zeros(self.condition))
        self.register_buffer("condition_std", torch.ones(self.condition))

    def set_statistics(self, fields: Tensor, conditions: Tensor | None = None) -> None:
        """Set all scales from runs of training.

        Args:
            fields: (B, C, T, *X), T > J.
            conditions: (B, F), where the network takes one.

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
        z, rows = self.scale(fields), []
        for j in range(1, self.bundle + 1):
            moved = z[:, :, j:] - z[:, :, :-j] if self.predicts == "change" else torch.ones_like(z)
            rows.append(moved.double().square().transpose(0, 1).flatten(1).mean(dim=1).sqrt())
        self.change = torch.stack(rows, dim=1).clamp_min(1e-12).to(self.change)
        if conditions is not None:
            values = conditions.double()
            self.condition_mean = values.mean(dim=0).to(self.condition_mean)
            spread = values.std(dim=0, correction=0)
            self.condition_std = torch.where(spread > 0, spread, torch.ones_like(spread)).to(self.condition_std)

    def given(self, condition: Tensor | None) -> Tensor | None:
        """Return a condition (B, F) in its own units as the network is given it."""
        if condition is None:
            return None
        return (condition.to(self.condition_mean) - self.condition_mean) / self.condition_std

    def step(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """Return the next J frames, all standardised: (B, C, K, *X), (B, F) -> (B, C, J, *X)."""
        found = self.network(z, condition)
        found = found.unsqueeze(2) if found.ndim == z.ndim - 1 else found
        if self.predicts == "frame":
            return found
        change = self.change.view(1, *self.change.shape, *(1,) * (z.ndim - 3))
        return z[:, :, -1:] + change * found

    def unrolled(self, z: Tensor, steps: int, condition: Tensor | None) -> Tensor:
        """Return ``steps`` frames from the network's own predictions, all standardised, with gradients."""
        found: list[Tensor] = []
        while len(found) * self.bundle < steps:
            new = self.step(z, condition)
            found.append(new)
            z = torch.cat([z, new], dim=2)[:, :, -self.past :]
        return torch.cat(found, dim=2)[:, :, :steps]

    @torch.no_grad()
    def rollout(self, frames: Tensor, steps: int, condition: Tensor | None = None) -> Tensor:
        """Return ``steps`` further frames, each from the surrogate's own predictions, (B, C, steps, *X).

        Args:
            frames: at least K frames, (B, C, T >= K, *X), in the units of the fields; the last K are read.
            steps: number of frames, >= 1.
            condition: (B, F) in its own units.

        Raises:
            ShapeError: fewer than K frames.
        """
        if frames.shape[2] < self.past:
            raise ShapeError(f"{frames.shape[2]} frames; the surrogate steps from the last {self.past}. Give more.")
        z = self.scale(frames[:, :, -self.past :])
        return self.physical(self.unrolled(z, steps, self.given(condition)))

    def physical(self, z: Tensor) -> Tensor:
        """Return standardised fields (B, C, ...) in their units."""
        shape = (1, -1, *(1,) * (z.ndim - 2))
        return z.to(self.scale.std.dtype) * self.scale.std.view(shape) + self.scale.mean.view(shape)

    def forward(self, frames: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the next J frames (B, C, J, *X) of frames (B, C, K, *X), all in the units of the fields."""
        return self.physical(self.step(self.scale(frames), self.given(condition)))

    def sizes(self) -> dict[str, int | str]:
        """Return what, besides the network, makes a surrogate of the same shape."""
        return {
            "channels": self.channels, "past": self.past, "bundle": self.bundle, "condition": self.condition,
            "predicts": self.predicts,
        }  # fmt: skip


def windows(fields: Tensor, start: Tensor, frames: int) -> Tensor:
    """Return ``frames`` frames of each run from its own start (B,), (B, C, frames, *X)."""
    at = start[:, None] + torch.arange(frames, device=fields.device)
    rows = torch.arange(len(fields), device=fields.device)[:, None]
    return fields.transpose(1, 2)[rows, at].transpose(1, 2)
