"""Several objectives at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from pdessl.errors import SchemaError, did_you_mean
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views, aimed_std, as_objective, name_of

__all__ = ["WeightedSum"]


class WeightedSum(nn.Module):
    """Several objectives on the same views: the sum of their losses, each with a weight.

        loss = Σ_i w_i objective_i(views)

    What a view holds is made once, whichever of them ask for it.

    Args:
        objectives: by a name of your own: objectives of views, or losses of two embeddings.
        weights: w_i >= 0 by the same names; 1 where none is given.

    The terms of all of them are logged under their own names; where two have a term of one name, with the objective's
    name before it (``first_invariance``).

    Raises:
        SchemaError: no objective, a weight below 0, or of a name that no objective has.
    """

    choose_when: ClassVar[str] = "two objectives at once, such as VICReg and CrossForecast, with a weight for each"

    def __init__(
        self,
        objectives: Mapping[str, nn.Module | Callable[..., Any]],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        weights = dict(weights or {})
        for name, weight in weights.items():
            if name not in objectives or not weight >= 0:
                raise SchemaError(
                    f"WeightedSum got weight {weight} for '{name}'; expected weights >= 0 of its objectives: "
                    f"{', '.join(objectives)}.{did_you_mean(name, objectives)}"
                )
        if not objectives:
            raise SchemaError("WeightedSum got no objectives; give at least one, by a name of your own.")
        self.objectives = nn.ModuleDict({name: as_objective(given) for name, given in objectives.items()})
        self.weights = {name: float(weights.get(name, 1.0)) for name in objectives}

    @property
    def target_std(self) -> float | None:
        """The spread of the embeddings that the first objective with such an aim has; None without."""
        aims = (aimed_std(objective) for objective in self.objectives.values())
        return next((aim for aim in aims if aim is not None), None)

    def forward(self, views: Views) -> Terms:
        """Return the weighted sum and the terms of all objectives."""
        found = {name: Terms.of(o(views), name_of(o)) for name, o in self.objectives.items()}
        often = Counter(term for terms in found.values() for term in terms.named)
        named: dict[str, Tensor] = {}
        for name, terms in found.items():
            named |= {term if often[term] == 1 else f"{name}_{term}": value for term, value in terms.named.items()}
        total: Any = sum(self.weights[name] * terms.total for name, terms in found.items())
        return Terms(total, named)
