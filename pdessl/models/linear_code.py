"""An encoder with a linear code on top that was found in closed form."""

# B batch, C channels, T time frames, X space, D feature width of what is below, R codes

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pdessl.errors import CheckpointError
from pdessl.models.convnext import ConvNeXtEncoder
from pdessl.models.convolutional import ConvEncoder
from pdessl.models.discriminant import LinearMap
from pdessl.models.encoder import Encoder
from pdessl.models.moments import Moments
from pdessl.models.transformer import SpaceTimeTransformer

__all__ = ["LinearCode"]

_BELOW = {kind.__name__: kind for kind in (Moments, ConvEncoder, ConvNeXtEncoder, SpaceTimeTransformer)}


class LinearCode(nn.Module):
    """clip((f(x) - centre) / scale) @ weights: a code of features f, fitted by :mod:`pdessl.models.discriminant`.

    Args:
        encoder: name of the class of f: ``Moments``, ``ConvEncoder``, ``ConvNeXtEncoder`` or ``SpaceTimeTransformer``.
        arguments: of that class.
        components: R.
        clip: standardised features are cut off at this.
        normalised: f is preceded by a normalisation of fields, kept with the weights.

    :meth:`of` makes one from an encoder and a fitted map. f is frozen.

    Shapes:
        (B, C, T, *X) -> (B, R), float64; :meth:`trunk` gives f, (B, D).

    Raises:
        CheckpointError: an encoder of another class.
    """

    choose_when: ClassVar[str] = "runs repeated at a setting (groups): closed form, seconds, no training"

    def __init__(
        self, encoder: str, arguments: Mapping[str, Any], components: int, clip: float = 6.0, normalised: bool = False
    ) -> None:
        super().__init__()
        if encoder not in _BELOW:
            raise CheckpointError(
                f"a linear code is kept with one of {', '.join(_BELOW)}, found '{encoder}'. For features of a network "
                "of your own, fit the map on the features themselves (pdessl.models.discriminant)."
            )
        inner = _BELOW[encoder](**arguments)
        self.below = Encoder(inner) if normalised else inner
        self.clip, self.in_channels = float(clip), inner.in_channels
        self.feature_dim, self.trunk_dim = components, inner.feature_dim
        number = {"dtype": torch.float64}
        self.register_buffer("centre", torch.zeros(self.trunk_dim, **number))
        self.register_buffer("scale", torch.ones(self.trunk_dim, **number))
        self.register_buffer("weights", torch.zeros(self.trunk_dim, components, **number))
        self.init_args = {
            "encoder": encoder,
            "arguments": dict(inner.init_args),
            "components": components,
            "clip": self.clip,
            "normalised": normalised,
        }
        self.requires_grad_(False).eval()

    @staticmethod
    def of(encoder: nn.Module, fitted: LinearMap) -> LinearCode:
        """Return the code of an encoder whose features a map was fitted on.

        Raises:
            CheckpointError: an encoder of a class that cannot be kept with the code.
        """
        inner = encoder.module if isinstance(encoder, Encoder) else encoder
        arguments = getattr(inner, "init_args", {})
        made = LinearCode(
            type(inner).__name__, arguments, fitted.weights.shape[1], fitted.clip, isinstance(encoder, Encoder)
        )
        made.below.load_state_dict(encoder.state_dict())
        for name in ("centre", "scale", "weights"):
            getattr(made, name).copy_(getattr(fitted, name))
        return made

    @property
    def uses_spacing(self) -> bool:
        """Whether the encoder below is called with ``spacing``."""
        return bool(getattr(self.below, "uses_spacing", False))

    def train(self, mode: bool = True) -> LinearCode:
        """Stay in evaluation mode: what is below is frozen, its statistics too."""
        return super().train(False)

    def trunk(self, x: Tensor, **given: Tensor) -> Tensor:
        """Return the features below the code, (B, D)."""
        return self.below(x, **given)

    def head(self, trunk: Tensor) -> Tensor:
        """Return the codes (B, R), float64, of features."""
        return LinearMap(self.centre, self.scale, self.weights, self.centre[:0], 0.0, self.clip).apply(trunk)

    def forward(self, x: Tensor, **given: Tensor) -> Tensor:
        """Return codes (B, R), float64, of fields (B, C, T, *X)."""
        return self.head(self.trunk(x, **given))
