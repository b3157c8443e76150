"""The trajectory that ``pdessl symmetries --plot`` draws: the user's, or one of a dataset of the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pdessl.errors import DataError, PdesslError

if TYPE_CHECKING:
    from pdessl.equations import Equation
    from pdessl.symmetry import SymmetryAlgebra
    from pdessl.trajectory import Trajectories

__all__ = ["draw"]


def draw(algebra: SymmetryAlgebra, path: Path, data: str | None) -> None:
    """Draw a trajectory under every generator into ``path``.

    Args:
        algebra: generators of the equation.
        path: picture to write.
        data: store or file whose first trajectory is drawn; None: one of a dataset of the catalog with this equation
            or another form of it.

    Raises:
        PdesslError: no data given and no dataset of this equation in the catalog.
    """
    from pdessl.augmentation import picture

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

    wanted = algebra.equation
    # Small versions first: one trajectory is all that is wanted.
    datasets: dict[str, str] = {}
    for dataset in sorted(catalog.names("datasets"), key=lambda n: (not n.endswith("_small"), n)):
        content = catalog.read("datasets", dataset)
        if "solver" in content and "equation" in content:
            datasets.setdefault(content["equation"], dataset)
    found = datasets.get(wanted.name) or next((d for e, d in datasets.items() if _same_flow(wanted, e)), None)
    if found is None:
        raise PdesslError(
            f"--plot: no dataset of the catalog simulates '{wanted.name}' or another form of it. Give a store or file "
            "of your own: --data PATH."
        )
    return simulate(load_recipe(found, overrides={"observation.noise": 0.0}), "picture", [0])


def _same_flow(wanted: Equation, other: str) -> bool:
    """Whether an equation of the catalog is another form of the wanted one: either follows from the other.

    Velocity and pressure, or vorticity: their runs are those of the velocity alone.
    """
    from pdessl.equations import load_equation
    from pdessl.symmetry.prolongation import follows

    known = load_equation(other)
    return follows(known, wanted) or follows(wanted, known)
