"""Hand-made features as an encoder like the others: fitted upon, measured and saved in the same way."""

# n runs, F features

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import FormatError
from pdessl.evaluation.energy_balance import TOTAL, balance_names, energy_balance
from pdessl.evaluation.physics_features import physics_features
from pdessl.inference.views import Views
from pdessl.trajectory import Trajectories

__all__ = ["PhysicsEncoder"]


@dataclass(frozen=True)
class PhysicsEncoder:
    """The features of :func:`pdessl.evaluation.physics_features.physics_features` that runs of training have.

    Or their energy balance (:func:`pdessl.evaluation.energy_balance.energy_balance`), see :meth:`balance`.

    Args:
        names: of the features, in order.
    """

    names: tuple[str, ...]

    @staticmethod
    def of(runs: Trajectories, views: Views | None = None) -> PhysicsEncoder:
        """Return the encoder with all features that runs have; how many bins a spectrum has depends on their grid.

        Args:
            runs: such as will be read; where runs will differ in length, cut to the shortest: longer ones have all
                features that these have.
            views: through which they will be read, of runs with an equation; default as they are.

        Raises:
            ShapeError: runs, or windows of them, too short for a spectrum.
        """
        augmentation = None if views is None or not views.drawn else views.augmentation(runs.equation or "")
        seen = runs[:1]
        if augmentation is not None:
            seen = augmentation(seen, torch.Generator(device=runs.device).manual_seed(0))[0]
        return PhysicsEncoder(physics_features(seen).names)

    @property
    def sees_views(self) -> bool:
        """Whether its features are made of views too; the energy balance is that of a whole run."""
        return not any(name.startswith(TOTAL) for name in self.names)

    @staticmethod
    def balance(runs: Trajectories) -> PhysicsEncoder:
        """Return the encoder whose features are the energy balance of all fields, and of each."""
        return PhysicsEncoder(balance_names(runs))

    def features(self, runs: Trajectories) -> Tensor:
        """Return features (n, F), float64: of each run over its own length, whatever that of the runs of :meth:`of`.

        Raises:
            FormatError: runs that lack some of them: a coarser grid or a shorter run has fewer wave numbers.
            ShapeError: runs too short for any spectrum.
        """
        if self.names == balance_names(runs):
            return energy_balance(runs)
        found = physics_features(runs, names=self.names)
        missing = [name for name in self.names if name not in found.names]
        if missing:
            raise FormatError(
                f"the runs have no '{missing[0]}' ({len(missing)} of {len(self.names)} hand-made features are "
                "missing): their grid is coarser, or they are shorter, than those of training. Fit a model on runs "
                "like these."
            )
        return found.values[:, [found.names.index(name) for name in self.names]]
