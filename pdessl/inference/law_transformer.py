"""LawTransformer: the law of unlabelled runs as a transformer of scikit-learn, whose features are the codes of runs."""

# n runs, C channels, T frames, X space, R codes

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted

from pdessl.conventions import run_name
from pdessl.errors import CheckpointError
from pdessl.inference.runs import joined
from pdessl.operators import LatentOperator, discover, load_law
from pdessl.trajectory import Trajectories

__all__ = ["LawTransformer"]


class LawTransformer(TransformerMixin, BaseEstimator):
    """Codes of runs under the law that unlabelled runs obey, as a step of a scikit-learn pipeline.

    ``fit`` finds the law (or takes the one it is given), ``transform`` returns the R numbers that differ between runs.
    Labels are not read, neither those in the data nor ``y``::

        codes = LawTransformer().fit(unlabelled).transform(labelled)          # DataArray (trajectory, feature)
        make_pipeline(LawTransformer("runs/law"), RidgeCV()).fit(ds, ds.viscosity)

    Args:
        law: folder of a saved law, or a law; None: found in the runs of ``fit``.
        rank, half_width, divergence_free, time_order, known, high_pass, advected: see
            :func:`pdessl.operators.discover`.
        boundary: of all axes of arrays, ``periodic``, ``wall`` or ``window``; datasets say it themselves.
        resamples, seed: of the bootstrap over runs.

    Attributes:
        law_: the :class:`pdessl.operators.LatentOperator`.

    Shapes:
        Dataset or Trajectories of n runs -> DataArray or array (n, R). Array (n, C, T, *X) -> (n, R); its steps in time
        and space count as 1, and codes are in those units.

    Raises:
        CheckpointError: no law there.
        DataError, ShapeError: as :func:`pdessl.operators.discover` and :meth:`LatentOperator.encode`.
        ValueError: arrays with NaN, or that are no runs (a table has no time to obey a law in).
    """

    def __init__(
        self,
        law: str | os.PathLike[str] | LatentOperator | None = None,
        rank: int | None = None,
        half_width: Sequence[int] | None = None,
        divergence_free: bool | None = None,
        time_order: int = 1,
        known: Sequence[str] = (),
        high_pass: int | None = None,
        advected: bool | None = False,
        boundary: str = "periodic",
        resamples: int = 0,
        seed: int = 0,
    ) -> None:
        self.law = law
        self.rank = rank
        self.half_width = half_width
        self.divergence_free = divergence_free
        self.time_order = time_order
        self.known = known
        self.high_pass = high_pass
        self.advected = advected
        self.boundary = boundary
        self.resamples = resamples
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> LawTransformer:  # noqa: N803
        """Find the law, or take it.

        Args:
            X: runs; see the class. Where a law is given they are only looked at.
            y: ignored.
        """
        runs = self._runs(joined(X))
        if self.law is None:
            self.law_ = discover(
                runs,
                rank=self.rank,
                half_width=self.half_width,
                divergence_free=self.divergence_free,
                time_order=self.time_order,
                known=tuple(self.known),
                high_pass=self.high_pass,
                advected=self.advected,
                resamples=self.resamples,
                seed=self.seed,
            )
        elif isinstance(self.law, LatentOperator):
            self.law_ = self.law
        else:
            self.law_ = load_law(self.law)
        if not self.law_.rank:
            raise CheckpointError("the law has no number that differs between runs (rank 0): there are no features.")
        return self

    def transform(self, X: Any) -> xr.DataArray | NDArray[np.float64]:  # noqa: N803
        """Return the codes; see the class for shapes."""
        check_is_fitted(self, "law_")
        X = joined(X)
        codes = self.law_.encode(self._runs(X))[0].cpu().numpy()
        if not isinstance(X, xr.Dataset):
            return codes
        run = run_name(X.dims)
        found = xr.DataArray(
            codes, dims=(run, "feature"), coords={"feature": list(self.law_.letters)}, attrs=dict(X.attrs)
        )
        return found.assign_coords({n: c for n, c in X.coords.items() if c.dims == (run,)})

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the letters of the codes, z or z1, z2, ..., as in ``str(law_)``."""
        check_is_fitted(self, "law_")
        return np.asarray(self.law_.letters, dtype=object)

    def _runs(self, data: Any) -> Trajectories:
        if isinstance(data, Trajectories):
            return data
        if isinstance(data, xr.Dataset):
            wanted = tuple(n for n in self.known if n in data)
            return Trajectories.from_xarray(data, parameters=wanted, trajectory=run_name(data.dims))
        if isinstance(data, torch.Tensor):
            data = data.detach().cpu().numpy()
        array = check_array(data, dtype=[np.float64, np.float32], allow_nd=True, ensure_2d=False)
        if array.ndim < 4:
            raise ValueError(f"got an array {array.shape}; expected runs (n, C, T, *X), which obey a law in time.")
        sizes = array.shape[2:]
        axes = [torch.arange(n, dtype=torch.float64).expand(len(array), -1) for n in sizes]
        periodic = self.boundary == "periodic"
        return Trajectories(
            fields=torch.from_numpy(array),
            time=axes[0],
            space=tuple(axes[1:]),
            lengths=torch.tensor([float(n - (not periodic)) for n in sizes[1:]]).double().expand(len(array), -1),
            field_names=tuple("u" if array.shape[1] == 1 else f"u{c + 1}" for c in range(array.shape[1])),
            axis_names=("x", "y", "z")[: len(sizes) - 1],
            boundary=(self.boundary,) * (len(sizes) - 1),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "law_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags
