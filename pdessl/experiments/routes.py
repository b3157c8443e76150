"""Routes from runs to a parameter in closed form: each ends in a fitted model, which can be saved."""

# n labelled runs, m test runs

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pdessl.data import PDEDataModule
from pdessl.errors import FormatError, PdesslError, ShapeError
from pdessl.evaluation.targets import with_target
from pdessl.experiments.regression import Regression
from pdessl.inference import InputFormat, ParameterModel, RunEncoder, fit_parameter_model
from pdessl.inference.encoding import gives_codes, sees_views
from pdessl.inference.format import constants_of
from pdessl.inference.reading import Encoded, encode
from pdessl.inference.views import Views
from pdessl.trajectory import Trajectories

__all__ = ["Route", "labelled_validation"]


_FOLDED = 6  # labelled runs, from which on some of them can be left out


def labelled_validation(data: PDEDataModule, target: str) -> Trajectories | None:
    """Return the validation runs, None where there are none with the target."""
    try:
        runs = with_target(data.validation, target)
    except PdesslError:
        return None
    return runs if target in runs.parameters and len(runs) else None


class Route:
    """Models of one encoder: every set of runs is read and encoded once, whatever is fitted on it.

    Args:
        encoder: a network, or another encoder of runs.
        data: where runs come from.
        settings: target, views, level and kind of intervals.
        scale: on which the target is regressed.
        labelled: runs that say what is accepted: the largest labelled subset.
        layer: of the network that is read.
        above: route of the same network's features, from which what lies below its head is taken: read once for both.
        calibrate: intervals on the validation runs, where there are any.

    Attributes:
        refused: name -> why runs of that name cannot be read.
    """

    def __init__(
        self,
        encoder: nn.Module | RunEncoder,
        data: PDEDataModule,
        settings: Regression,
        scale: str,
        labelled: Trajectories,
        layer: str = "features",
        above: Route | None = None,
        calibrate: bool = True,
    ) -> None:
        self.above = above
        self.encoder, self.data, self.settings, self.scale, self.layer = encoder, data, settings, scale, layer
        self.views = dataclasses.replace(settings.views.within(labelled), moves=())
        if not sees_views(encoder) or gives_codes(encoder):  # codes are those of whole runs
            self.views = Views(count=1)
        self.level = 0.9 if settings.intervals is None else settings.intervals.level
        self.kind = "adaptive" if settings.intervals is None else settings.intervals.saved
        constants = constants_of(labelled, besides=(settings.target,))
        self.format = InputFormat.of(labelled, encoder, self.views, data.store.units, constants)
        self.refused: dict[str, str] = {}
        self._held: dict[str, Encoded] = {}
        self._labelled: Encoded | None = None
        self.validation: Encoded | None = None
        if above is not None:
            self.validation = None if above.validation is None else _below(above.validation)
        elif calibrate and (validation := labelled_validation(data, settings.target)) is not None:
            self.validation = self.encode(validation)

    def encode(self, runs: Trajectories) -> Encoded:
        """Read and encode runs.

        Raises:
            FormatError: runs that a model of this route refuses.
        """
        if self.above is not None:
            return _below(self.above.encode(runs))
        with warnings.catch_warnings():
            # That runs were regridded is in the notes of the comparison.
            warnings.simplefilter("ignore", UserWarning)
            return encode(runs, self.encoder, self.format, self.views, 0, _both(self.layer), every=True)

    def labelled(self, runs: Trajectories) -> Encoded:
        """Return all labelled runs that models are fitted on encoded, once; a subset is a part of it.

        Raises:
            FormatError: as :meth:`encode`.
        """
        if self._labelled is None:
            self._labelled = self.encode(runs) if self.above is None else _below(self.above.labelled(runs))
        return self._labelled

    def held(self, name: str, runs: Trajectories) -> Encoded | None:
        """Return runs of a name encoded, once; None where they are refused, which ``refused`` says why."""
        if self.above is not None:
            found = self.above.held(name, runs)
            self.refused = self.above.refused
            return None if found is None else _below(found)
        if name not in self._held and name not in self.refused:
            try:
                self._held[name] = self.encode(runs)
            except (FormatError, ShapeError) as error:
                self.refused[name] = str(error)
        return self._held.get(name)

    def fit(
        self,
        labelled: Encoded,
        readout: str = "ridge",
        interval: str | None = None,
        errors: NDArray[np.float64] | None = None,
    ) -> ParameterModel:
        """Return a model of labelled runs, its intervals calibrated on the validation runs where they suffice.

        With fewer than level/(1 - level) no finite interval keeps its promise; intervals are then calibrated on the
        labelled runs themselves, left out by folds, unless these are too few as well. Standard errors of the labels,
        (n,), say what each counts.
        """
        fewest = math.ceil(self.level / (1 - self.level) - 1e-9)
        held = self.validation
        enough = held is not None and (len(held.values) >= fewest or len(labelled.values) < _FOLDED)
        return fit_parameter_model(
            self.encoder,
            labelled,
            held if enough else None,
            targets={self.settings.target: self.scale},
            views=self.views,
            readout=readout,
            level=self.level,
            units=self.data.store.units,
            interval=interval or self.kind,
            layer=self.layer,
            errors=None if errors is None else {self.settings.target: errors},
        )


def _below(encoded: Encoded) -> Encoded:
    """Return runs with the values below the encoder's head in the place of its features."""
    assert encoded.trunk is not None  # noqa: S101  (asked for only where the encoder has a head)
    return dataclasses.replace(encoded, values=encoded.trunk, trunk=None)


def _both(layer: str) -> str:
    return "both" if layer == "features" else layer
