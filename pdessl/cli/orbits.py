"""The trajectory that ``pdessl symmetries --plot`` draws: the user's, or one of a dataset of the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pdessl.errors import DataError, PdesslError

if TYPE_CHECKING:
    from pdessl.symmetry import SymmetryAlgebra
    from pdessl.trajectory import Trajectories

__all__ = ["draw"]


def draw(algebra: SymmetryAlgebra, path: Path, data: str | None) -> None:
    """Draw a trajectory under every generator into ``path``.

    Args:
        algebra: generators of the equation.
        path: picture to write.
        data: store or file whose first trajectory is drawn; None: one of a dataset of the catalog with this equation.

    Raises:
        PdesslError: no data given and no dataset of this equation in the catalog.
    """
    from pdessl.symmetry import picture

    picture.draw(algebra, _given(data) if data else _simulated(algebra), path)


def _given(data: str) -> Trajectories:
    from pdessl.data import open as open_data

    source = open_data(data)
    splits = [name for name, size in source.splits.items() if size]
    if not splits:
        raise DataError(f"{data} holds no trajectories.")
    # A split with labels, because some flows need the values of the parameters.
    labelled = [s for s in splits if "label" not in s or s == "labelled"]
    return source.load((labelled or splits)[0], [0])


def _simulated(algebra: SymmetryAlgebra) -> Trajectories:
    from pdessl import catalog
    from pdessl.data import load_recipe, simulate

    name = algebra.equation.name
    # Small versions first: one trajectory is all that is wanted.
    for dataset in sorted(catalog.names("datasets"), key=lambda n: (not n.endswith("_small"), n)):
        content = catalog.read_yaml(catalog.find("datasets", dataset))
        if content.get("equation") == name and "solver" in content:
            return simulate(load_recipe(dataset, overrides={"observation.noise": 0.0}), "picture", [0])
    raise PdesslError(
        f"--plot: no dataset of the catalog simulates '{name}'. Give a store or file of your own: --data PATH."
    )
