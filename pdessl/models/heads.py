"""Projectors and heads: multilayer perceptrons on features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError

__all__ = ["Head", "Projector", "SplitProjector"]


class Projector(nn.Module):
    """The network between features and the embedding an objective sees; thrown away after pretraining.

    Linear, BatchNorm, ReLU for every hidden width; the last layer is linear without bias or norm.

    Args:
        in_features: width of the features.
        hidden: widths of the hidden layers.
        out_features: D, width of the embedding. For VICReg choose D <= 1 + μ (n - 1)/(8 ν), n the batch size: 800 at
            n = 256 and 25/25/1.

    Shapes:
        (B, in_features) -> (B, out_features); B >= 2 in training.

    Source: Bardes, Ponce, LeCun (2022), arXiv:2105.04906, section 4.
    """

    def __init__(self, in_features: int, hidden: Sequence[int] = (256,), out_features: int = 256) -> None:
        super().__init__()
        self.init_args = {"in_features": in_features, "hidden": [int(h) for h in hidden], "out_features": out_features}
        self.in_features, self.out_features = in_features, out_features
        layers: list[nn.Module] = []
        width = in_features
        for size in hidden:
            layers += [nn.Linear(width, size, bias=False), nn.BatchNorm1d(size), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_features, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        """Return embeddings (B, D)."""
        _check(self, features, self.in_features)
        return self.layers(features)


class SplitProjector(nn.Module):
    """Two projectors side by side, for a representation of two parts: the first columns have one, the rest the other.

    Neither part of the embedding sees the other part of the features, so that what an objective wants of a part of the
    embedding (for :class:`pdessl.objectives.SIE` that it is left, or moved, by the transformation) is asked of that
    part of the features, which stay when the projectors are thrown away.

    Args:
        in_features: width of the features.
        hidden: widths of the hidden layers, of both projectors together.
        out_features: D, width of the embedding.
        share: of every width, that goes to the first part, in (0, 1); rounded to whole columns.

    Shapes:
        (B, in_features) -> (B, out_features). Attribute ``first``: columns of the embedding that are the first part's.

    Raises:
        SchemaError: a width of which a part would have no column.

    Source: Garrido, Najman, LeCun (2023), arXiv:2302.10283, section 4.
    """

    def __init__(
        self, in_features: int, hidden: Sequence[int] = (256,), out_features: int = 256, share: float = 0.5
    ) -> None:
        super().__init__()
        widths = [in_features, *(int(h) for h in hidden), out_features]
        firsts = [round(share * width) for width in widths]
        if not all(0 < first < width for first, width in zip(firsts, widths, strict=True)):
            raise SchemaError(
                f"SplitProjector got widths {widths} and share {share}; expected at least one column of each width on "
                "either side."
            )
        self.in_features, self.first = in_features, firsts[-1]
        rests = [width - first for first, width in zip(firsts, widths, strict=True)]
        self.parts = nn.ModuleList(Projector(w[0], w[1:-1], w[-1]) for w in (firsts, rests))

    def forward(self, features: Tensor) -> Tensor:
        """Return embeddings (B, D), the first part's columns first."""
        _check(self, features, self.in_features)
        split = features.split([part.in_features for part in self.parts], dim=1)
        return torch.cat([part(z) for part, z in zip(self.parts, split, strict=True)], dim=1)


class Head(nn.Module):
    """Linear or multilayer head with a plain output: no range is built in.

    Args:
        in_features: width of the features.
        out_features: number of outputs.
        hidden: widths of hidden layers (LayerNorm, GELU after each); none gives a linear head.
        standardise: put a BatchNorm without learned parameters before the first layer, so that one learning rate suits
            features of any scale.

    Shapes:
        (B, in_features) -> (B, out_features).
    """

    def __init__(
        self, in_features: int, out_features: int = 1, hidden: Sequence[int] = (), standardise: bool = False
    ) -> None:
        super().__init__()
        self.init_args = {
            "in_features": in_features,
            "out_features": out_features,
            "hidden": [int(h) for h in hidden],
            "standardise": standardise,
        }
        self.in_features, self.out_features = in_features, out_features
        layers: list[nn.Module] = [nn.BatchNorm1d(in_features, affine=False)] if standardise else []
        width = in_features
        for size in hidden:
            layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.GELU()]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_features))

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs (B, out_features)."""
        _check(self, features, self.in_features)
        return self.layers(features)


def _check(module: nn.Module, features: Tensor, width: int) -> None:
    if features.ndim != 2 or features.shape[1] != width:
        raise ShapeError(
            f"{type(module).__name__} got features {tuple(features.shape)}; expected (B, {width}). Set in_features to "
            "the feature_dim of the encoder."
        )
