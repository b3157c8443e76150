"""What an encoder is: a network, the normalisation of its fields, and what it was trained on."""

# B batch, C channels, T time frames, X space (d axes), D feature width, N tokens

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, overload, runtime_checkable

from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.models.normalisation import Normalisation
from pdessl.models.representation import Representation, RepresentationNetwork, TokenNetwork
from pdessl.models.spacing import spacing_arguments, takes_spacing

__all__ = ["Encoder", "network_of", "trained_on"]


class Batch(Protocol):
    """Fields (B, C, T, *X) and, for a network that is told the grid, their steps; as :class:`pdessl.Trajectories`."""

    fields: Tensor


@runtime_checkable
class _Counted(Protocol):
    in_channels: int


@runtime_checkable
class _Trained(Protocol):
    trained_on: Mapping[str, Any]


def network_of(encoder: nn.Module) -> nn.Module:
    """Return the network of an encoder; a bare network as it is."""
    return encoder.module if isinstance(encoder, Encoder) else encoder


def trained_on(encoder: object) -> Mapping[str, Any]:
    """Return what is known of the runs that an encoder was trained on, see :class:`Encoder`; empty if nothing is."""
    return (encoder.trained_on or {}) if isinstance(encoder, _Trained) else {}


class Encoder(nn.Module):
    """A network on fields in the user's units, with all that is needed to use it again.

        encoder(batch) -> Representation(features, trunk, tokens)
        encoder(fields) -> features

    Args:
        network: any ``nn.Module`` from standardised fields (B, C, T, *X) to features (B, D), with the attribute
            ``feature_dim``. With a method ``represent`` (see :class:`pdessl.models.RepresentationNetwork`) it gives
            trunk and tokens too; with ``uses_spacing = True`` it is called with ``spacing`` (B, 1 + d).
        mean, std: normalisation, one value per channel in the units of the fields; None: those of the training data
            are set when training starts.
        trained_on: plain data: ``equation``, and ``steps``: smallest and largest step of ``time`` and of each space
            axis. Training notes it, saving keeps it.

    Raises:
        ShapeError: a number of channels that is not the network's.
        ValueError: a std <= 0, or a value that is not finite.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        trained_on: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.module = network
        self.normalisation = Normalisation(network.in_channels if isinstance(network, _Counted) else None, mean, std)
        self.trained_on = dict(trained_on or {})

    @classmethod
    def of(cls, network: nn.Module) -> Encoder:
        """Return the network as an encoder; an encoder as it is."""
        return network if isinstance(network, Encoder) else cls(network)

    @overload
    def forward(self, given: Tensor, *arguments: Any, **keywords: Any) -> Tensor: ...

    @overload
    def forward(self, given: Batch) -> Representation: ...

    def forward(self, given: Tensor | Batch, *arguments: Any, **keywords: Any) -> Tensor | Representation:
        """Return the representation of a batch, or the features (B, D) of bare fields in the user's units.

        Args:
            given: a batch, or fields (B, C, T, *X).
            *arguments: of the network, besides bare fields.
            **keywords: the same by name, for instance ``spacing``.
        """
        if isinstance(given, Tensor):
            return self.module(self.standardise(given), *arguments, **keywords)
        spacing = spacing_arguments(self, given)
        if isinstance(self.module, RepresentationNetwork):
            return self.module.represent(self.standardise(given.fields), **spacing)
        return Representation(self.module(self.standardise(given.fields), **spacing))

    def trunk(self, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        """Return what the network's last layers map to features, for fields in the user's units."""
        return self.module.trunk(self.standardise(x), *arguments, **keywords)

    def tokens(self, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        """Return the network's tokens (B, N, D'') for fields in the user's units; further arguments are its own."""
        return self._token_network.tokens(self.standardise(x), *arguments, **keywords)

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return how many tokens there are along each axis for fields on a grid (T, *X).

        Raises:
            SchemaError: a network without tokens.
        """
        return self._token_network.token_grid(grid)

    @property
    def _token_network(self) -> TokenNetwork:
        if not isinstance(self.module, TokenNetwork):
            raise SchemaError(
                f"{type(self.module).__name__} has no tokens, which this objective or task works on; expected a "
                "network with the methods tokens(fields, spacing) and token_grid(grid), such as "
                "pdessl.models.SpaceTimeTransformer."
            )
        return self.module

    @property
    def head(self) -> nn.Module | None:
        """What the network maps its trunk to features with: its child of that name; None without one."""
        return dict(self.module.named_children()).get("head")

    def standardise(self, x: Tensor) -> Tensor:
        """Return fields (B, C, ...) in the user's units as the network is given them."""
        return self.normalisation.standardise(x)

    def set_statistics(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Set mean and standard deviation of each channel; see :meth:`Normalisation.set_statistics`."""
        self.normalisation.set_statistics(mean, std)

    def follow_channels(self) -> None:
        """Make room for as many channels as the network has, where no normalisation was given."""
        count = self.module.in_channels if isinstance(self.module, _Counted) else None
        if not self.normalisation.given and count not in (None, self.in_channels):
            mean = self.normalisation.mean
            self.normalisation = Normalisation(count).to(mean.device, mean.dtype)

    @property
    def statistics(self) -> dict[str, list[float]]:
        """Mean and std per channel as plain numbers."""
        return self.normalisation.statistics

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return self.module.feature_dim  # type: ignore[return-value]

    @property
    def in_channels(self) -> int:
        """Number of channels."""
        return len(self.normalisation.mean)

    @property
    def uses_spacing(self) -> bool:
        """Whether the network is called with ``spacing`` besides the fields."""
        return takes_spacing(self.module)
