"""Anti-collapse terms by name or object, and the named result of objectives that take one."""

# n rows over all processes, D embedding width

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pdessl.errors import SchemaError, did_you_mean
from pdessl.objectives.sigreg import SIGReg
from pdessl.objectives.variance_covariance import VarianceCovariance

__all__ = ["REGULARISERS", "Regulariser", "make_regulariser", "named_terms", "regularity"]

# Called with embeddings (..., n, D); returns a scalar, or a named tuple with the weighted ``loss`` first.
Regulariser = Callable[[Tensor], Any]

REGULARISERS = ("vc", "sigreg")


def make_regulariser(
    objective: str, given: Regulariser | str | None, scale: float, vc: tuple[float, float] | None = None
) -> Regulariser | None:
    """Return the anti-collapse term that was asked for.

    Args:
        objective: name of the objective, for messages.
        given: ``vc``, ``sigreg``, any callable on embeddings (with weights of its own), or None for none.
        scale: weight of the mean square difference it shall balance. By name, the variance and covariance terms weigh
            ``scale`` and ``scale / 25`` (the proportions of VICReg), SIGReg 0.105 ``scale`` (LeJEPA's λ = 0.05).
        vc: weights (variance, covariance) of ``vc`` where the objective's paper has others.

    Raises:
        SchemaError: a name that is not known, or something that cannot be called.
    """
    if given == "vc":
        return VarianceCovariance(*(vc or (scale, scale / 25)), name=objective)
    if given == "sigreg":
        return SIGReg(2 * 0.05 / 0.95 * scale)
    if isinstance(given, str):
        raise SchemaError(
            f"{objective} got regulariser '{given}'.{did_you_mean(given, REGULARISERS)} Known: "
            f"{', '.join(REGULARISERS)}, or pass an object called with embeddings (n, D)."
        )
    if given is not None and not callable(given):
        raise SchemaError(
            f"{objective} got a {type(given).__name__} as regulariser; expected {', '.join(REGULARISERS)}, a callable "
            "on embeddings, or None."
        )
    return given


def regularity(regulariser: Regulariser | None, embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the anti-collapse term of several sets of embeddings.

    Args:
        regulariser: the term; None gives an empty dictionary.
        embeddings: each (..., n, D).

    Returns:
        ``regularity``, the sum of the weighted losses, and the mean of each named term.
    """
    if regulariser is None or not embeddings:
        return {}
    found = [regulariser(z) for z in embeddings]
    named = [f._asdict() if hasattr(f, "_asdict") else {"loss": f} for f in found]
    total = {name: sum(terms[name] for terms in named) for name in named[0]}
    regularity = total.pop("loss")
    return {"regularity": regularity, **{name: value / len(found) for name, value in total.items()}}


@functools.cache
def _kind(name: str, fields: tuple[str, ...]) -> Any:
    return collections.namedtuple(name, fields)  # noqa: PYI024  (fields depend on the regulariser)


def named_terms(name: str, loss: Tensor, **terms: Tensor) -> Any:
    """Return a named tuple with ``loss`` first, for objectives whose terms depend on their regulariser."""
    return _kind(name, ("loss", *terms))(loss, *terms.values())
