"""The latents of a slower level: those of a trained encoder, pooled and described by fewer numbers."""

# B batch, C channels, H frames of a state, X space, D' width of the lower latent, N its tokens, D of the upper one
# K blocks, s control periods of a block, A actuators, p pieces of a block

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pdessl.errors import CheckpointError, SchemaError, ShapeError
from pdessl.models.checkpoint import build, describe, load
from pdessl.models.encoder import Encoder

__all__ = ["Blocks", "PooledEncoder", "pooled"]


@dataclass(frozen=True)
class Blocks:
    """What a slower level calls an action: the amplitudes of s control periods, as their means over p pieces.

        c_i = mean of a over the i-th piece of s/p periods,   i = 1 ... p

    A code is held in its piece when it is turned into amplitudes again: codes lie within the bound of the amplitudes,
    and every code within it can be carried out. With p = s the code is the block itself.

    Args:
        stride: s, >= 1.
        pieces: p, a divisor of s.

    Raises:
        SchemaError: pieces that do not divide the stride.
    """

    stride: int = 1
    pieces: int = 1

    def __post_init__(self) -> None:
        if min(self.stride, self.pieces) < 1 or self.stride % self.pieces:
            raise SchemaError(
                f"a block of {self.stride} control periods in {self.pieces} pieces; expected numbers >= 1, and pieces "
                "that divide the stride."
            )

    def codes(self, actions: Tensor) -> Tensor:
        """Return the codes (..., K, p A) of amplitudes (..., T, A); periods after the last whole block are left out."""
        whole = actions.shape[-2] // self.stride
        cut = actions[..., : whole * self.stride, :]
        shape = (whole, self.pieces, self.stride // self.pieces, actions.shape[-1])
        return cut.reshape(*actions.shape[:-2], *shape).mean(dim=-2).flatten(-2)

    def amplitudes(self, codes: Tensor) -> Tensor:
        """Return amplitudes (..., K s, A) that have the codes (..., K, p A)."""
        held = codes.unflatten(-1, (self.pieces, -1)).repeat_interleave(self.stride // self.pieces, dim=-2)
        return held.flatten(-3, -2)


class PooledEncoder(nn.Module):
    """The latent of a state on a slower level: that of a lower encoder, frozen, pooled and mapped to fewer numbers.

        w = W p + f(p),    p = means of z over groups of neighbouring tokens,  z the lower latent

    Where the lower latent is a vector there is nothing to pool in space, and W and f do the rest.

    Args:
        lower: class path and arguments of the lower network, see :func:`pdessl.models.pooled`; its weights are this
            module's.
        features: D.
        on_tokens: z are the lower network's tokens (B, N, D'), or its features (B, D').
        pool: tokens in a group; the last group may be smaller.
        tokens: N, where ``on_tokens``.
        hidden: widths of the layers of f.

    Shapes:
        (B, C, H, *X), standardised as for the lower network, -> (B, D).

    Raises:
        CheckpointError: a lower network that pdessl does not know.
        ShapeError: another number of tokens.
    """

    time_first: ClassVar[bool] = False

    def __init__(
        self,
        lower: Mapping[str, Any],
        features: int = 12,
        on_tokens: bool = False,
        pool: int = 1,
        tokens: int = 1,
        hidden: Sequence[int] = (128,),
    ) -> None:
        super().__init__()
        if min(features, pool, tokens) < 1 or (not on_tokens and (pool, tokens) != (1, 1)):
            raise SchemaError(
                f"PooledEncoder got features {features}, pool {pool}, tokens {tokens}, on_tokens {on_tokens}; expected "
                "numbers >= 1, and pool and tokens only with on_tokens."
            )
        self.init_args: dict[str, Any] = {
            "lower": dict(lower), "features": features, "on_tokens": on_tokens, "pool": pool, "tokens": tokens,
            "hidden": [int(h) for h in hidden],
        }  # fmt: skip
        self.lower = build(lower, "PooledEncoder.lower").requires_grad_(False).eval()
        self.on_tokens, self.pool, self.tokens_read, self.feature_dim = on_tokens, pool, tokens, features
        width = int(getattr(self.lower, "token_dim" if on_tokens else "feature_dim"))
        self.groups = -(-tokens // pool)
        widths = [self.groups * width, *self.init_args["hidden"], features]
        self.linear = nn.Linear(widths[0], features)
        layers: list[nn.Module] = []
        for number, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [nn.GELU()] if number else []
            layers.append(nn.Linear(a, b))
        self.network = nn.Sequential(*layers)

    @property
    def in_channels(self) -> int:
        """Number of channels, those of the lower network."""
        return int(self.lower.in_channels)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> PooledEncoder:
        """Set the mode; the lower network stays in evaluation."""
        super().train(mode)
        self.lower.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents of standardised fields."""
        with torch.no_grad():
            z = self.lower.tokens(x) if self.on_tokens else self.lower(x)  # type: ignore[operator]
        return self.above(z)

    def above(self, latents: Tensor) -> Tensor:
        """Return the latents (..., D) of lower ones, (..., D') or (..., N, D'); differentiable in them."""
        if self.on_tokens:
            if latents.shape[-2] != self.tokens_read:
                raise ShapeError(
                    f"PooledEncoder got {latents.shape[-2]} tokens, expected {self.tokens_read}: set tokens."
                )
            latents = torch.cat([group.mean(dim=-2) for group in latents.split(self.pool, dim=-2)], dim=-1)
        return self.linear(latents) + self.network(latents)


def pooled(
    checkpoint: str,
    features: int = 12,
    on_tokens: bool = False,
    pool: int = 1,
    tokens: int = 1,
    hidden: Sequence[int] = (128,),
) -> Encoder:
    """Return an untrained :class:`PooledEncoder` on a trained encoder, for recipes as a class path.

    Args:
        checkpoint: folder of the lower encoder, or of the run that trained it.
        features: D.
        on_tokens: read the lower network's tokens, not its features.
        pool: tokens in a group.
        tokens: how many there are, where ``on_tokens``.
        hidden: widths of the layers beside the linear map.

    Raises:
        CheckpointError: no encoder there, or one that was trained without known statistics of its fields.
    """
    lower = load(checkpoint)
    if not isinstance(lower, Encoder):
        raise CheckpointError(
            f"{checkpoint} holds a {type(lower).__name__}, no encoder of fields; give a run's folder."
        )
    made = PooledEncoder(describe(lower.module), features, on_tokens, pool, tokens, hidden)
    made.lower.load_state_dict(lower.module.state_dict())
    statistics = lower.statistics
    return Encoder(made, statistics["mean"], statistics["std"], lower.trained_on)
