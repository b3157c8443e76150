"""A head that looks at an encoder's tokens through one learned query."""

# B batch, N tokens, D width, H attention heads

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError

__all__ = ["AttentiveHead"]


class AttentiveHead(nn.Module):
    """Attentive pooling: a learned query attends to the tokens, and a linear layer reads the result.

        q' = q + W softmax(q K(x̂)ᵀ/sqrt(D/H)) V(x̂),   q'' = q' + MLP(q̂'),   output = L q''

    A hat marks a LayerNorm. Where the mean over the grid washes out what happens in few places (a front, a plume),
    attention can look there.

    Args:
        token_dim: D, width of the tokens, as the encoder's ``token_dim``.
        out_features: number of outputs.
        heads: H, must divide D.
        expansion: hidden width of the MLP over D.

    Shapes:
        tokens (B, N, D), optionally a mask (B, N) that is true for tokens to be looked at -> (B, out_features). The
        order of the tokens does not matter: positions count only as far as the encoder wrote them into its tokens.

    Raises:
        ShapeError: tokens of another width, or none.
        ValueError: heads that do not divide D.

    Source: the attentive probe of V-JEPA: Bardes et al. (2024), arXiv:2404.08471, with depth 1.
    """

    def __init__(self, token_dim: int, out_features: int = 1, heads: int = 4, expansion: int = 4) -> None:
        super().__init__()
        if token_dim % heads:
            raise ValueError(f"AttentiveHead got {heads} heads for tokens of width {token_dim}; heads must divide it.")
        self.init_args = {
            "token_dim": token_dim,
            "out_features": out_features,
            "heads": heads,
            "expansion": expansion,
        }
        self.in_features, self.out_features, self.heads = token_dim, out_features, heads
        self.query = nn.Parameter(torch.empty(token_dim))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.token_norm, self.norm = nn.LayerNorm(token_dim), nn.LayerNorm(token_dim)
        self.keys_values = nn.Linear(token_dim, 2 * token_dim)
        self.join = nn.Linear(token_dim, token_dim)
        self.mlp = nn.Sequential(
            nn.Linear(token_dim, expansion * token_dim), nn.GELU(), nn.Linear(expansion * token_dim, token_dim)
        )
        self.read = nn.Linear(token_dim, out_features)
        with torch.no_grad():
            # Depth 1: what each residual branch adds is scaled down by sqrt(2).
            self.join.weight.div_(math.sqrt(2))
            self.mlp[2].weight.div_(math.sqrt(2))

    def attention(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the weights (B, H, N), which add up to 1 over the tokens, and the values (B, H, N, D/H)."""
        if tokens.ndim != 3 or tokens.shape[2] != self.in_features or not tokens.shape[1]:
            raise ShapeError(
                f"AttentiveHead got tokens {tuple(tokens.shape)}; expected (B, N, {self.in_features}) with N >= 1. Set "
                "token_dim to that of the encoder."
            )
        b, n, d = tokens.shape
        keys, values = self.keys_values(self.token_norm(tokens)).chunk(2, dim=2)
        keys, values = (part.reshape(b, n, self.heads, d // self.heads).transpose(1, 2) for part in (keys, values))
        query = self.query.reshape(1, self.heads, 1, d // self.heads)
        scores = (query * keys).sum(dim=3) / math.sqrt(d // self.heads)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -math.inf)
        return scores.softmax(dim=2), values

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return outputs (B, out_features)."""
        weights, values = self.attention(tokens, mask)
        pooled = (weights[..., None] * values).sum(dim=2).flatten(1)
        query = self.query + self.join(pooled)
        return self.read(query + self.mlp(self.norm(query)))
