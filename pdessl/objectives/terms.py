"""What an objective answers: one number to descend, and the named numbers it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from pdessl.errors import SchemaError

__all__ = ["NamedTerms", "Terms"]


@runtime_checkable
class NamedTerms(Protocol):
    """A named tuple whose first field is ``loss``: how formulas state their terms."""

    @property
    def loss(self) -> Tensor:
        """What is descended."""

    def _asdict(self) -> dict[str, Tensor]:
        """All fields by name."""


@dataclass(frozen=True)
class Terms:
    """What ``objective(views)`` returns.

    Attributes:
        total: the weighted whole, a scalar; its gradient is what trains.
        named: its parts by name, scalars, unweighted; they are logged and need no gradient.
    """

    total: Tensor
    named: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Any, objective: str = "the objective") -> Terms:
        """Return what a formula gave as terms: a scalar, a named tuple with ``loss`` first, or terms already.

        Raises:
            SchemaError: anything else; ``objective`` is named.
        """
        if isinstance(found, Terms):
            return found
        if isinstance(found, Tensor):
            if found.ndim:
                raise SchemaError(
                    f"{objective} returned a tensor of shape {tuple(found.shape)}; expected a scalar. Take its mean "
                    "over the batch (pdessl.objectives.distributed.mean_over_rows, where several processes train)."
                )
            return cls(found)
        if isinstance(found, NamedTerms):
            named = dict(found._asdict())
            return cls(named.pop("loss"), named)
        raise SchemaError(
            f"{objective} returned a {type(found).__name__}; expected pdessl.objectives.Terms, a scalar tensor, or a "
            "named tuple with 'loss' first."
        )

    @staticmethod
    def mean(found: Sequence[Terms]) -> Terms:
        """Return the mean of several terms with the same names."""
        total = sum(terms.total for terms in found) / len(found)
        named = {name: sum(terms.named[name] for terms in found) / len(found) for name in found[0].named}
        return Terms(total, named)  # type: ignore[arg-type]  # the sum of tensors, started at the number 0
