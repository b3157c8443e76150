"""What an objective may ask of the views of a batch, and plain losses of two embeddings as objectives of views."""

# V views, G global ones, B rows of this process, D embedding width, N tokens, d space axes, k coordinates of an element

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives.terms import Terms

__all__ = [
    "EmbeddedViews",
    "OfPairs",
    "Representation",
    "View",
    "Views",
    "aimed_std",
    "arguments_needed",
    "as_objective",
    "name_of",
    "over_pairs",
]


class Representation(Protocol):
    """What an encoder gives of a view; see :class:`pdessl.models.Representation`."""

    features: Tensor
    trunk: Tensor | None
    tokens: Tensor | None


class View(Protocol):
    """One view of each trajectory of a batch. Everything is made when it is first asked for."""

    @property
    def representation(self) -> Representation:
        """Features (B, D'), and trunk and tokens where the encoder has them."""

    @property
    def embedding(self) -> Tensor:
        """What the projector makes of the representation, (B, D)."""

    @property
    def taught(self) -> Tensor:
        """The teacher's embedding of this view, (B, D), without gradient."""

    @property
    def tokens(self) -> Tensor:
        """Tokens of the representation, (B, N, D'')."""

    @property
    def places(self) -> Tensor:
        """Where in the trajectory each token lies, as shares of its duration and lengths, (B, N, 1 + d)."""

    @property
    def fields(self) -> Tensor:
        """Fields of the view, standardised as the encoder does, (B, C, T, *X)."""

    @property
    def element(self) -> Any:
        """What the augmentation drew for this view."""

    def shift(self, parameter: str) -> Tensor:
        """How far this view has moved log of a parameter, (B,), float64."""


class Views(Protocol):
    """The views of a batch, global ones first, and what is true of several of them."""

    @property
    def global_views(self) -> int:
        """G: how many of the first views are whole ones; smaller crops follow."""

    @property
    def period(self) -> Tensor:
        """After which distance ``places`` repeat along each axis, (B, 1 + d); infinite where they do not."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> View: ...

    def __iter__(self) -> Iterator[View]: ...

    def between(self, first: int, second: int) -> Tensor:
        """Coordinates (B, k) of the group element that carries one view to the other."""

    def uniform(self, columns: int) -> Tensor:
        """Uniform numbers in [0, 1), (columns, B), drawn for this step: a resumed run draws the same."""


class _Embedded:
    """A view of which there is an embedding and nothing else."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding

    def _nothing(self, what: str) -> SchemaError:
        return SchemaError(
            f"the objective asks for {what}, and these views are embeddings alone. Train it with "
            "pdessl.tasks.Pretraining, or call its formula: objective.terms(...)."
        )

    @property
    def representation(self) -> Representation:
        raise self._nothing("the representation")

    @property
    def taught(self) -> Tensor:
        raise self._nothing("a teacher")

    @property
    def tokens(self) -> Tensor:
        raise self._nothing("tokens")

    @property
    def places(self) -> Tensor:
        raise self._nothing("the places of tokens")

    @property
    def fields(self) -> Tensor:
        raise self._nothing("the fields")

    @property
    def element(self) -> Any:
        raise self._nothing("the group element")

    def shift(self, parameter: str) -> Tensor:
        raise self._nothing(f"the shift of {parameter}")


class EmbeddedViews:
    """Views that are embeddings alone: for objectives on embeddings in a training loop of one's own.

        terms = VICReg()(EmbeddedViews(z, z_prime))
        terms.total.backward()

    Args:
        embeddings: of V >= 2 views of the same samples, each (B, D), global views first.
        global_views: G; None: all.

    Raises:
        ShapeError: fewer than two views, or G out of range.
    """

    def __init__(self, *embeddings: Tensor, global_views: int | None = None) -> None:
        count = len(embeddings)
        chosen = count if global_views is None else global_views
        if count < 2 or not 1 <= chosen <= count:
            raise ShapeError(f"got {count} views, {chosen} of them global; expected at least 2, and 1 to all of them.")
        self.global_views = chosen
        self._views = [_Embedded(z) for z in embeddings]

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, number: int, /) -> View:
        return self._views[number]

    def __iter__(self) -> Iterator[View]:
        return iter(self._views)

    @property
    def period(self) -> Tensor:
        """Not known."""
        return self._views[0].places

    def between(self, first: int, second: int) -> Tensor:
        """Not known."""
        return self._views[first].element

    def uniform(self, columns: int) -> Tensor:
        """Numbers of torch's global generator."""
        z = self._views[0].embedding
        return torch.rand(columns, len(z), device=z.device)


def over_pairs(views: Views, formula: Callable[[int, int], Any], objective: str = "the objective") -> Terms:
    """Return the mean of a formula of two views over pairs of views.

        mean over pairs v < w, v <= G, of formula(v, w)

    A local view (a smaller crop, v > G) meets the global ones only. The mean over pairs is how W-MSE is published. For
    VICReg it is λ mean over pairs s + mean over views of 2 (μ v + ν c), so that weights keep their meaning;
    contrastive pairs see the negatives of their two views.

    Args:
        views: V >= 2.
        formula: called with the numbers of two views; returns what :meth:`Terms.of` takes.
        objective: name, for messages.
    """
    pairs = [(v, w) for v in range(views.global_views) for w in range(v + 1, len(views))]
    return Terms.mean([Terms.of(formula(v, w), objective) for v, w in pairs])


class OfPairs(nn.Module):
    """A plain loss of two embeddings as an objective of views: its mean over pairs, see :func:`over_pairs`.

    Args:
        loss: called with two embeddings (B, D); returns a scalar, or a named tuple with ``loss`` first. A function, or
            a module such as ``torch.nn.MSELoss()``.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, views: Views) -> Terms:
        """Return the terms."""
        embeddings = [view.embedding for view in views]
        return over_pairs(views, lambda v, w: self.loss(embeddings[v], embeddings[w]), name_of(self))


def as_objective(given: Callable[..., Any]) -> nn.Module:
    """Return what was given as a module that is called ``objective(views)``.

    What takes one argument is such an objective already; what takes two or more is a loss of two embeddings.

    Raises:
        SchemaError: something that cannot be called.
    """
    if not callable(given):
        raise SchemaError(
            f"got a {type(given).__name__} as objective; expected a module or function called with views, or with two "
            "embeddings (B, D)."
        )
    if arguments_needed(given) != 1:
        return OfPairs(given)
    return given if isinstance(given, nn.Module) else _OfViews(given)


class _OfViews(nn.Module):
    """A function of views as a module."""

    def __init__(self, function: Callable[[Views], Any]) -> None:
        super().__init__()
        self.loss = function

    def forward(self, views: Views) -> Any:
        return self.loss(views)


def arguments_needed(given: Callable[..., Any]) -> int:
    """Return how many positional arguments a function or module must be given; 2 where it takes any number of them."""
    try:
        parameters = inspect.signature(given.forward if isinstance(given, nn.Module) else given).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def name_of(objective: nn.Module) -> str:
    """Return the name of an objective for messages: of a wrapped loss, that of the loss."""
    inner: Any = objective.loss if isinstance(objective, (OfPairs, _OfViews)) else objective
    return inner.__name__ if inspect.isroutine(inner) else type(inner).__name__


@runtime_checkable
class _Aims(Protocol):
    target_std: float | None


def aimed_std(objective: nn.Module) -> float | None:
    """Return the standard deviation that an objective means embeddings to have, where it states ``target_std``.

    The monitors tell a collapse in scale by it.
    """
    inner = objective.loss if isinstance(objective, (OfPairs, _OfViews)) else objective
    return inner.target_std if isinstance(inner, _Aims) else None
