"""SimulationEncoder: a pretrained encoder as a transformer of scikit-learn, on xarray data or arrays."""

# n runs, C channels, T frames, X space, D feature width

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted
from torch import nn

from pdessl.conventions import RUN_NAMES, run_name
from pdessl.errors import CheckpointError
from pdessl.inference.format import InputFormat, constants_of
from pdessl.inference.loading import load
from pdessl.inference.model import ParameterModel
from pdessl.inference.reading import encode
from pdessl.inference.runs import joined
from pdessl.inference.views import Views
from pdessl.models import embed
from pdessl.models.spacing import takes_spacing
from pdessl.trajectory import Trajectories

__all__ = ["SimulationEncoder"]


class SimulationEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features of runs by a pretrained encoder, as a step of a scikit-learn pipeline.

    The encoder is not trained: ``fit`` loads it and notes the format of the data, ``transform`` checks new data against
    it. Labels in the data are not read::

        features = SimulationEncoder("runs/x").fit(ds).transform(ds)          # DataArray (trajectory, feature)
        make_pipeline(SimulationEncoder("runs/x"), StandardScaler(), RidgeCV()).fit(ds, ds.viscosity)

    Datasets, arrays with names, trajectories, paths, lists of files (each one run) and stores are read alike. Model
    selection counts and cuts samples, which a dataset, a path and a store are not: give it
    :class:`pdessl.inference.Runs` of them. ``set_output(transform="pandas")`` and ``get_feature_names_out`` work as of
    any transformer.

    Datasets are read ``batch`` runs at a time, so that one backed by Dask, or opened lazily, may exceed memory. Runs on
    another grid are brought to the one the encoder was trained on, where it knows it, else to that of ``fit``, with a
    warning (:func:`pdessl.inference.regridding.regridded`).

    Args:
        encoder: folder of a saved encoder, of a run or of a :class:`ParameterModel`, or the network itself.
        views: views that features are averaged over, where some are drawn.
        strengths: generator -> greatest strength; see :class:`pdessl.LieAugmentation`. None: no symmetry is drawn.
        window: frames and nodes of a view; None: whole runs.
        reflections: draw the equation's reflections too, or those named.
        equation: name in the catalog; default that of the data. Needed where views are drawn.
        missing: what is done with runs that hold NaN, in datasets: ``refuse``, ``drop`` or ``interpolate``.
        batch: runs read at a time.
        device: torch device of the encoder; None: where it is.
        seed: of the views.

    Attributes:
        encoder_: the network.
        format_: what the datasets must look like (fitted on a dataset), else None.
        n_features_in_: width of a row, where fitted on a table.

    Shapes:
        Dataset of n runs -> DataArray (n, D), with run coordinates and attributes of the data.
        Array (n, C, T, *X) -> (n, D). A table (n, X) is read as one channel at one time on a line of X nodes.

    Raises:
        CheckpointError: no encoder there.
        FormatError: a dataset unlike the one of ``fit``; see :meth:`ParameterModel.predict`.
        ValueError: arrays with NaN, no rows, or of another shape than in ``fit``.
    """

    def __init__(
        self,
        encoder: str | os.PathLike[str] | nn.Module,
        views: int = 8,
        strengths: Mapping[str, float] | None = None,
        window: Sequence[int] | None = None,
        reflections: bool | Sequence[str] = False,
        equation: str | None = None,
        missing: str = "refuse",
        batch: int = 64,
        device: str | None = None,
        seed: int = 0,
    ) -> None:
        self.encoder = encoder
        self.views = views
        self.strengths = strengths
        self.window = window
        self.reflections = reflections
        self.equation = equation
        self.missing = missing
        self.batch = batch
        self.device = device
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> SimulationEncoder:  # noqa: N803
        """Load the encoder and note the format of the data.

        Args:
            X: dataset, trajectories or array; see the class.
            y: ignored.
        """
        self.encoder_ = self._network()
        self.format_ = None
        data = joined(X)
        if isinstance(data, (xr.Dataset, Trajectories)):
            self.format_ = self._declared(data)
            first = data[:1] if isinstance(data, Trajectories) else self._first(data)
        else:
            first = self._array(data)[:1]
            self.shape_ = first.shape[1:]
            if first.ndim == 2:
                self.n_features_in_ = first.shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when all are transformed
            self._n_features_out = self._features(first).shape[1]
        return self

    def transform(self, X: Any) -> xr.DataArray | NDArray[np.float64]:  # noqa: N803
        """Return features; see the class for shapes."""
        check_is_fitted(self, "encoder_")
        return self._features(joined(X))

    def _features(self, X: Any) -> xr.DataArray | NDArray[np.float64]:  # noqa: N803
        if isinstance(X, (xr.Dataset, Trajectories)):
            declared = self.format_ or self._declared(X)
            found = encode(
                X,
                self.encoder_,
                declared,
                self._views(),
                self.seed,
                missing=self.missing,
                batch=self.batch,
                equation=self.equation,
            )
            found.reader.warn()
            return found.reader.features(found.values.numpy())
        if takes_spacing(self.encoder_):
            raise ValueError(
                "the encoder is told the time step and the grid spacing, which an array does not have. Give a dataset "
                "with coordinates, or pdessl.Trajectories."
            )
        array = self._array(X)
        if self.format_ is None and array.shape[1:] != self.shape_:
            if array.ndim == 2 and len(self.shape_) == 1:
                raise ValueError(
                    f"X has {array.shape[1]} features, but {type(self).__name__} is expecting {self.shape_[0]} "
                    "features as input."
                )
            raise ValueError(f"got runs of shape {array.shape[1:]}; expected {self.shape_}, as in fit.")
        fields = torch.from_numpy(array)[:, None, None] if array.ndim == 2 else torch.from_numpy(array)
        weight = next(self.encoder_.parameters(), fields)
        parts = (fields[i : i + self.batch].to(weight.device, weight.dtype) for i in range(0, len(fields), self.batch))
        return embed(self.encoder_, (_Fields(part) for part in parts)).cpu().numpy()

    def _network(self) -> nn.Module:
        if isinstance(self.encoder, nn.Module):
            # Of its own: fitting, or moving it to a device, changes nothing that was passed in.
            found: Any = copy.deepcopy(self.encoder)
        else:
            found = load(self.encoder)
        found = found.encoder if isinstance(found, ParameterModel) else found
        if not isinstance(found, nn.Module):
            raise CheckpointError(f"{self.encoder} is no encoder; give a folder that 'pdessl pretrain' wrote.")
        return (found if self.device is None else found.to(self.device)).eval()

    def _views(self) -> Views:
        window = None if self.window is None else tuple(self.window)
        reflections = self.reflections if isinstance(self.reflections, bool) else tuple(self.reflections)
        return Views(dict(self.strengths or {}), window, (), reflections, self.views)

    def _declared(self, data: xr.Dataset | Trajectories) -> InputFormat:
        """Return the format of the data, from their first run."""
        if isinstance(data, Trajectories):
            return InputFormat.of(data[:1], self.encoder_, self._views(), constants=constants_of(data))
        run, first = run_name(data.dims), self._first(data)
        units = {str(n): str(v.attrs["units"]) for n, v in data.variables.items() if v.attrs.get("units")}
        runs = Trajectories.from_xarray(first.compute(), parameters=(), trajectory=run)
        return InputFormat.of(runs, self.encoder_, self._views(), units, constants_of(data))

    @staticmethod
    def _first(data: xr.Dataset) -> xr.Dataset:
        run = next((n for n in RUN_NAMES if n in data.dims), None)
        return data if run is None else data.isel({run: slice(0, 1)})

    def _array(self, values: Any) -> NDArray[np.float64]:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu().numpy()
        array = check_array(values, dtype=[np.float64, np.float32], allow_nd=True)
        if array.ndim == 3:
            raise ValueError(f"got an array {array.shape}; expected runs (n, C, T, *X), or a table (n, X).")
        return array

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "encoder_")


class _Fields:
    """A batch of bare fields, as :func:`pdessl.models.embed` takes it."""

    def __init__(self, fields: torch.Tensor) -> None:
        self.fields = fields
