"""World models: the latent of a state, what amplitudes of actuators make of it, and what can be read from it."""

# B batch, C channels, H frames of a state, X space, D latent width, N tokens, A actuators, K control periods

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.models.padding import GridConvolution
from pdessl.models.representation import left_open

__all__ = [
    "ActionPredictor",
    "CausalActionPredictor",
    "GridActionPredictor",
    "InverseDynamics",
    "SequencePredictor",
    "StateEncoder",
    "StateReadout",
    "follow",
    "roll_out",
]


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with GELU between them; the last one starts at a tenth of its size."""
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [nn.GELU()] if number else []
        layers.append(nn.Linear(a, b))
    with torch.no_grad():
        last = layers[-1]
        assert isinstance(last, nn.Linear)  # noqa: S101  (the loop ends with one)
        last.weight.mul_(0.1)
    return nn.Sequential(*layers)


class StateEncoder(nn.Module):
    """The latent of a state on a fixed grid: a linear map and a multilayer one beside it.

        z = W x + f(x),    x the values of the last H frames at all nodes, or at those with sensors

    Where a wave is matters for control, so nothing is pooled. Of longer windows the last H frames are read.

    Args:
        points: number of nodes, all axes together.
        features: D.
        in_channels: C; None: 1, and in a recipe of ``pdessl pretrain`` the number of the data's fields.
        frames: H, >= 1; more than one where a single frame does not tell the state.
        hidden: widths of the layers of f.
        sensors: numbers of the nodes that are read, all axes together; None: all. Other nodes may hold anything.

    Shapes:
        (B, C, T >= H, *X) -> (B, D).

    Raises:
        ShapeError: another grid, fewer frames, or sensors that are no nodes of it.
    """

    time_first: ClassVar[bool] = False

    def __init__(
        self,
        points: int,
        features: int = 64,
        in_channels: int | None = None,
        frames: int = 1,
        hidden: Sequence[int] = (256,),
        sensors: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        read = list(range(points)) if sensors is None else [int(n) for n in sensors]
        if not read or len(set(read)) < len(read) or min(read) < 0 or max(read) >= points:
            raise ShapeError(f"StateEncoder got sensors {read}; expected some, all different, from 0 to {points - 1}.")
        self.left_open = left_open(in_channels=in_channels)
        channels = 1 if in_channels is None else in_channels
        self.init_args: dict[str, Any] = {
            "points": points, "features": features, "in_channels": channels, "frames": frames,
            "hidden": [int(h) for h in hidden], "sensors": None if sensors is None else read,
        }  # fmt: skip
        self.in_channels, self.frames, self.points, self.feature_dim = channels, frames, points, features
        self.sensors = None if sensors is None else tuple(read)
        size = channels * frames * len(read)
        self.linear = nn.Linear(size, features)
        self.network = _layers([size, *hidden, features])

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents of standardised fields."""
        if x.shape[1] != self.in_channels or x.shape[2] < self.frames or x[0, 0, 0].numel() != self.points:
            raise ShapeError(
                f"StateEncoder got fields {tuple(x.shape)}; expected (B, {self.in_channels}, at least {self.frames}, "
                f"{self.points} nodes)."
            )
        last = x[:, :, x.shape[2] - self.frames :].flatten(3)
        flat = (last if self.sensors is None else last[..., list(self.sensors)]).flatten(1)
        return self.linear(flat) + self.network(flat)


class ActionPredictor(nn.Module):
    """The latent one control period later, for latents that are vectors.

        z' = z + L [z, a] + f([z, a]),    a in units of their bound

    Args:
        latent: D.
        actions: A; 0 for runs without actuators.
        hidden: widths of the layers of f.
        bound: of the amplitudes, in their unit.
        undetermined: numbers ξ that act as amplitudes do and that nobody sees, see
            :class:`pdessl.models.LatentVariable`.

    Shapes:
        z (B, D), a (B, A), or (B, A + undetermined) with ξ behind a, -> (B, D). Without ξ it is 0.

    Raises:
        ShapeError: other shapes.
    """

    def __init__(
        self,
        latent: int,
        actions: int,
        hidden: Sequence[int] = (256, 256),
        bound: float = 1.0,
        undetermined: int = 0,
    ) -> None:
        super().__init__()
        self.init_args = {
            "latent": latent, "actions": actions, "hidden": [int(h) for h in hidden], "bound": bound,
            "undetermined": undetermined,
        }  # fmt: skip
        self.latent, self.actions, self.bound, self.undetermined = latent, actions, bound, undetermined
        size = latent + actions + undetermined
        self.linear = nn.Linear(size, latent)
        nn.init.zeros_(self.linear.bias)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)
        self.network = _layers([size, *hidden, latent])

    def forward(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Return the next latents."""
        given = torch.cat([latent, _acting(self, latent, actions, (self.latent,))], dim=-1)
        return latent + self.linear(given) + self.network(given)


class GridActionPredictor(nn.Module):
    """The latent one control period later, for latents that live on a grid of tokens: dilated residual convolutions.

    Each actuator has a learned profile of a few channels on the tokens; amplitudes times profiles are further channels.

    Args:
        latent: D, width of a token.
        actions: A; 0 for runs without actuators.
        tokens: nodes of the token grid.
        width: hidden channels.
        blocks: residual blocks, with dilations 1, 2, 4, 1, ...
        profiles: channels of a profile.
        bound: of the amplitudes, in their unit.
        periodic: whether the axis is periodic.
        undetermined: numbers ξ, as in :class:`ActionPredictor`; each has a profile of its own.

    Shapes:
        z (B, N, D), a (B, A), or (B, A + undetermined) with ξ behind a, -> (B, N, D). Without ξ it is 0.

    Raises:
        ShapeError: other shapes.
    """

    def __init__(
        self,
        latent: int,
        actions: int,
        tokens: int,
        width: int = 32,
        blocks: int = 3,
        profiles: int = 2,
        bound: float = 1.0,
        periodic: bool = True,
        undetermined: int = 0,
    ) -> None:
        super().__init__()
        self.init_args = {
            "latent": latent, "actions": actions, "tokens": tokens, "width": width, "blocks": blocks,
            "profiles": profiles, "bound": bound, "periodic": periodic, "undetermined": undetermined,
        }  # fmt: skip
        self.latent, self.actions, self.tokens, self.bound = latent, actions, tokens, bound
        self.undetermined = undetermined
        self.profiles = nn.Parameter(torch.randn(actions + undetermined, profiles, tokens) * 0.1)
        self.lift = GridConvolution(latent + profiles, width, 3, [periodic])
        self.blocks = nn.ModuleList(
            GridConvolution(width, width, 3, [periodic], dilation=(1, 2, 4)[i % 3]) for i in range(blocks)
        )
        self.lower = GridConvolution(width, latent, 1, [periodic])
        with torch.no_grad():
            self.lower.convolution.weight.mul_(0.1)

    def forward(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Return the next latents."""
        given = _acting(self, latent, actions, (self.tokens, self.latent))
        acting = torch.einsum("ba,acn->bcn", given, self.profiles)
        x = self.lift(torch.cat([latent.transpose(1, 2), acting], dim=1))
        for block in self.blocks:
            x = x + block(nn.functional.gelu(x))
        return latent + self.lower(nn.functional.gelu(x)).transpose(1, 2)


def _acting(predictor: Any, latent: Tensor, actions: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return what acts, (B, A + undetermined): amplitudes in units of their bound, and ξ, 0 where it is not given."""
    seen, unseen = predictor.actions, predictor.undetermined
    several = actions.ndim == 2 and actions.shape[1] == seen + unseen
    if tuple(latent.shape[1:]) != shape or not (several or tuple(actions.shape) == (len(latent), seen)):
        told = f"(B, {seen}), an amplitude per actuator" + (f", or (B, {seen + unseen})" if unseen else "")
        raise ShapeError(
            f"{type(predictor).__name__} got latents {tuple(latent.shape)} and actions {tuple(actions.shape)}; "
            f"expected {('B', *shape)} and {told}."
        )
    xi = actions[:, seen:] if several else actions.new_zeros(len(actions), unseen)
    return torch.cat([actions[:, :seen] / predictor.bound, xi], dim=1)


@runtime_checkable
class SequencePredictor(Protocol):
    """A predictor that remembers the latents before the last one."""

    def follow(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Return the latent after each of the true ones, (B, K, D), from those before it."""
        ...

    def roll_out(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Return the latents after each period, (B, K, D), each from those that were predicted before it."""
        ...


class CausalActionPredictor(nn.Module):
    """The latent one control period later, from all latents and amplitudes of the sequence so far, and none after it.

        ẑ_{t+1} = z_t + L [z_t, a_t] + W h_t,    h_t = GRU(h_{t-1}, [z_t, a_t]),    a in units of their bound

    h is 0 before a sequence begins, so that one latent is a sequence too.

    Args:
        latent: D.
        actions: A.
        hidden: width of h.
        layers: of the recurrent network.
        bound: of the amplitudes, in their unit.
        undetermined: numbers ξ, as in :class:`ActionPredictor`.

    Shapes:
        z (B, D), a (B, A), or (B, A + undetermined) with ξ behind a, -> (B, D), the first latent of a sequence;
        :meth:`follow` and :meth:`roll_out` for more.

    Raises:
        ShapeError: other shapes.
    """

    def __init__(
        self,
        latent: int,
        actions: int,
        hidden: int = 192,
        layers: int = 1,
        bound: float = 1.0,
        undetermined: int = 0,
    ) -> None:
        super().__init__()
        self.init_args = {
            "latent": latent, "actions": actions, "hidden": hidden, "layers": layers, "bound": bound,
            "undetermined": undetermined,
        }  # fmt: skip
        self.latent, self.actions, self.bound, self.undetermined = latent, actions, bound, undetermined
        size = latent + actions + undetermined
        self.linear = nn.Linear(size, latent)
        nn.init.zeros_(self.linear.bias)
        self.memory = nn.GRU(size, hidden, layers, batch_first=True)
        self.lower = nn.Linear(hidden, latent)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)
            self.lower.weight.mul_(0.1)

    def forward(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Return the latents after the first ones of sequences."""
        return self.follow(latent[:, None], actions[:, None])[:, 0]

    def follow(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Return the latent after each of the true ones, (B, K, D), for z (B, K, D) and a (B, K, A)."""
        return self._step(latents, actions, None)[0]

    def roll_out(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Return the latents (B, K, D) after each period from z (B, D) under a (B, K, A)."""
        found, memory = [], None
        for now in actions.unbind(dim=1):
            after, memory = self._step(latent[:, None], now[:, None], memory)
            latent = after[:, 0]
            found.append(latent)
        return torch.stack(found, dim=1)

    def _step(self, latents: Tensor, actions: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        acting = _acting(self, latents.flatten(0, 1), actions.flatten(0, 1), (self.latent,))
        given = torch.cat([latents, acting.unflatten(0, latents.shape[:2])], dim=-1)
        seen, memory = self.memory(given, memory)
        return latents + self.linear(given) + self.lower(seen), memory


def roll_out(predictor: nn.Module, latent: Tensor, actions: Tensor) -> Tensor:
    """Return the latents (B, K, ...) after each of K periods under amplitudes (B, K, A), each from the one before."""
    if isinstance(predictor, SequencePredictor):
        return predictor.roll_out(latent, actions)
    found = []
    for now in actions.unbind(dim=1):
        latent = predictor(latent, now)
        found.append(latent)
    return torch.stack(found, dim=1)


def follow(predictor: nn.Module, latents: Tensor, actions: Tensor) -> Tensor:
    """Return the latent (B, K, ...) after each of the true ones (B, K, ...) under amplitudes (B, K, A)."""
    if isinstance(predictor, SequencePredictor):
        return predictor.follow(latents, actions)
    return predictor(latents.flatten(0, 1), actions.flatten(0, 1)).unflatten(0, latents.shape[:2])


class InverseDynamics(nn.Module):
    """The amplitudes that led from one latent to another, in units of their bound.

    Args:
        latent: width of a latent, its tokens together.
        actions: A.
        steps: control periods between the two latents, K.
        hidden: widths of the hidden layers.

    Shapes:
        z, z' (B, ..., D) -> (B, K, A).
    """

    def __init__(self, latent: int, actions: int, steps: int = 1, hidden: Sequence[int] = (128,)) -> None:
        super().__init__()
        self.init_args = {"latent": latent, "actions": actions, "steps": steps, "hidden": [int(h) for h in hidden]}
        self.steps = steps
        self.network = _layers([2 * latent, *hidden, steps * actions])

    def forward(self, first: Tensor, last: Tensor) -> Tensor:
        """Return the amplitudes."""
        given = torch.cat([first.flatten(1), last.flatten(1)], dim=1)
        return self.network(given).unflatten(1, (self.steps, -1))


class StateReadout(nn.Module):
    """What is read from a latent after training: the field, linearly, and observables, as quadratic forms.

        u = W z + w,        q = zᵀ Q z + r·z + s

    Args:
        latent: width of a latent, its tokens together, D.
        field: shape of a field, (C, *X).
        observables: names of the observables q.

    Attributes:
        r2: share of the variance on runs that were not fitted that is read correctly: of the field, then of each
            observable.

    Shapes:
        latents (..., D) -> fields (..., C, *X), observables (..., P).
    """

    field_weight: Tensor
    field_bias: Tensor
    forms: Tensor
    slopes: Tensor
    offsets: Tensor
    r2: Tensor

    def __init__(self, latent: int, field: Sequence[int], observables: Sequence[str] = ("energy",)) -> None:
        super().__init__()
        self.init_args = {"latent": latent, "field": [int(n) for n in field], "observables": list(observables)}
        self.shape, self.observables = tuple(int(n) for n in field), tuple(observables)
        size, count = int(torch.Size(self.shape).numel()), len(self.observables)
        self.register_buffer("field_weight", torch.zeros(size, latent))
        self.register_buffer("field_bias", torch.zeros(size))
        self.register_buffer("forms", torch.zeros(count, latent, latent))
        self.register_buffer("slopes", torch.zeros(count, latent))
        self.register_buffer("offsets", torch.zeros(count))
        self.register_buffer("r2", torch.zeros(1 + count))

    def forward(self, latent: Tensor) -> Tensor:
        """Return the fields of latents."""
        flat = nn.functional.linear(latent, self.field_weight, self.field_bias)
        return flat.unflatten(-1, self.shape)

    def observe(self, latent: Tensor) -> Tensor:
        """Return the observables of latents."""
        quadratic = torch.einsum("...d,pde,...e->...p", latent, self.forms, latent)
        return quadratic + nn.functional.linear(latent, self.slopes, self.offsets)
