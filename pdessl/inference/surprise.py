"""Surprise: when and where runs stop doing what a model foresees, at a promised rate of false alarms."""

# n calibration runs, B runs, T' scored positions in time, S channels

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from pdessl.conventions import run_name
from pdessl.errors import CheckpointError, DataError, FormatError
from pdessl.evaluation.intervals import conformal_quantile
from pdessl.files import checksum, replacing, write_json
from pdessl.inference.format import InputFormat
from pdessl.inference.frame_scores import Foreseen, FrameScores, LawScores, scores_of
from pdessl.inference.known_equation import EquationScores
from pdessl.inference.reading import RunReader
from pdessl.inference.score_files import load_scores, save_scores
from pdessl.inference.surrogates import UNREADABLE
from pdessl.inference.views import Views
from pdessl.inference.window_scores import WindowScores
from pdessl.trajectory import Trajectories

__all__ = ["DETECTOR", "SurpriseDetector", "load_detector"]

DETECTOR = "surprise.json"
_ARRAYS = "surprise.safetensors"
_FORMAT = 1
_NAMES = ("mean", "slope", "deviation", "height", "reference", "maxima")
_FEWEST = 10
_SLACK = 0.5
_BATCH = 64


@dataclass(frozen=True, eq=False)
class SurpriseDetector:
    """A model that foresees, and how badly it foresees sound runs.

    Of every channel s and position t the logarithmic score of a new run is compared with what is expected there after
    the scores that the run began with: some runs are harder to foresee than others from the first frame to the last.

        z_ts = (log e_ts - μ_ts - β_ts c_ts)/σ_ts,   W_ts = max(0, W_(t-1)s + z_ts - ½),   statistic_t = max_s W_ts/w_s

    c is the mean of log e over the positions before t, of the first third of all; μ and β are from least squares over
    sound runs, σ is the deviation from them. W is a cumulative sum (CUSUM): large where scores stay above what is
    expected; w_s is what its largest value passes in a tenth of these runs, so that no channel drowns the others. An
    alarm is raised where the statistic passes the conformal quantile of its largest value in each of n other sound
    runs. These n runs and a new sound run are exchangeable, so that **in a sound run an alarm is raised at most with
    the promised rate** (over draws of the calibration runs as well), whatever the model, the noise, and the dependence
    between frames. A bad model raises few alarms; it raises no more false ones. Likewise the p-value of a frame is
    (1 + #{calibration runs whose max_s z there is no smaller})/(n + 1).

    Args:
        model: what scores frames.
        declared: the runs it takes.
        mean, slope, deviation: μ, β, σ, (T', S); NaN where a channel says nothing.
        height: w, (S,).
        reference: max_s z of the calibration runs, (n, T'), each column sorted.
        maxima: largest statistic of the calibration runs, (n,), sorted.

    Source: CUSUM: Page (1954); the conformal threshold on a maximum over the run: as
        :func:`pdessl.evaluation.intervals.conformal_quantile`.
    """

    model: Foreseen
    declared: InputFormat
    mean: Tensor
    slope: Tensor
    deviation: Tensor
    height: Tensor
    reference: Tensor
    maxima: Tensor

    @staticmethod
    def fit(
        model: Any,
        sound: Trajectories | xr.Dataset,
        units: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> SurpriseDetector:
        """Calibrate on sound runs that the model was not fitted on.

        A random half of them says what is usual (μ, σ), the other half sets the thresholds.

        Args:
            model: a law, a surrogate, a function, or anything that :func:`pdessl.inference.frame_scores.scores_of`
                takes.
            sound: 20 runs or more, with as many frames as the runs to be judged, or more.
            units: of fields, axes and ``time``; datasets state their own.
            seed: of the halves.

        Raises:
            DataError: too few runs, or runs of different lengths.
            FormatError: other fields or axes than the model's, or too few frames.
        """
        if isinstance(sound, xr.Dataset):
            units = {
                **{str(n): str(v.attrs["units"]) for n, v in sound.variables.items() if "units" in v.attrs},
                **(units or {}),
            }
            sound = Trajectories.from_xarray(sound, parameters=(), trajectory=run_name(sound.dims))
        if len(sound) < 2 * _FEWEST:
            raise DataError(f"{len(sound)} sound runs; {2 * _FEWEST} or more are needed. Give more.")
        source = scores_of(model)
        order = torch.randperm(len(sound), generator=torch.Generator().manual_seed(seed))
        if isinstance(source, LawScores):
            source = source.for_frames(sound.fields.shape[2])
        elif isinstance(source, EquationScores):
            source = source.for_frames(sound.fields.shape[2], len(sound.space))
        elif isinstance(source, WindowScores):
            source = source.fitted(sound[order[: len(order) // 2]])
        found = _scores(source, sound)
        usual, other = (found.values[rows] for rows in (order[: len(order) // 2], order[len(order) // 2 :]))
        expected = _expected(usual)
        if not bool(expected[2].isfinite().any()):
            raise DataError("the scores of all sound runs are the same: there is nothing to compare new runs with.")
        own = _cusum(_standardised(usual, *expected)).amax(dim=1)
        height = own.quantile(0.9, dim=0).clamp_min(_SLACK)
        z = _standardised(other, *expected)
        declared = InputFormat.of(sound, _model_of(source), Views(), units)  # type: ignore[arg-type]
        return SurpriseDetector(
            source,
            declared,
            *expected,
            height,
            z.amax(dim=2).sort(dim=0).values,
            (_cusum(z) / height).amax(dim=(1, 2)).sort().values,
        )

    @property
    def count(self) -> int:
        """Number of runs that set the thresholds."""
        return len(self.maxima)

    def threshold(self, rate: float = 0.05) -> float:
        """Return what the statistic passes in at most this share of sound runs.

        Raises:
            DataError: a rate outside (0, 1), or one that so few calibration runs cannot promise.
        """
        if not 0 < rate < 1:
            raise DataError(f"a rate of false alarms of {rate}; expected a number between 0 and 1.")
        found = conformal_quantile(self.maxima.numpy(), 1 - rate)
        if not math.isfinite(found):
            raise DataError(
                f"{self.count} calibration runs cannot promise a rate of false alarms of {rate:g}; they can promise "
                f"{1 / (self.count + 1):.2g}. Give {2 * math.ceil(1 / rate)} sound runs or more."
            )
        return found

    def detect(
        self, data: xr.Dataset | Trajectories, rate: float = 0.05, missing: str = "refuse", places: bool = False
    ) -> xr.Dataset:
        """Return the surprise of every frame of runs, and an alarm.

        Args:
            data: runs of the fields and axes of calibration, with as many frames or fewer, from the same kind of start.
            rate: of false alarms: share of sound runs in which one is raised, at most.
            missing: what is done with runs that hold NaN, as in :meth:`pdessl.inference.ParameterModel.predict`.
            places: return also where in space.

        Returns:
            Over (trajectory, frame): ``time`` of what is scored, ``known``: the time at which all of it has been seen,
            ``surprise`` (the largest z), ``p_value``, ``statistic`` (over the threshold: above 1 is an alarm); over
            (trajectory): ``alarm`` and ``alarm_time``, the first ``known`` at which there is one (NaN: none). With
            ``places`` the squared errors over (trajectory, frame, *axes). NaN where a run is shorter than others.

        Raises:
            FormatError: other fields, axes or units, or more frames than the calibration runs have.
            DataError: NaN, or a rate that cannot be promised.

        Warns of runs whose steps or sizes are outside the range of the calibration runs.
        """
        threshold = self.threshold(rate)
        reader = RunReader(
            data, self.declared, missing, batch=_BATCH, beyond="no rate of false alarms is promised there"
        )
        shape = (reader.count, len(self.mean))
        columns = {n: np.full(shape, np.nan) for n in ("time", "known", "surprise", "p_value", "statistic")}
        maps: NDArray[np.float64] | None = None
        for piece in reader:
            found = self.model.scores(piece.runs)
            length = found.values.shape[1]
            if length > len(self.mean):
                most = int(self.declared.ranges["frames"][1])
                raise FormatError(
                    f"runs of {piece.runs.fields.shape[2]} frames; the calibration runs had {most}. Cut them, "
                    f"ds.isel(time=slice({most})), or calibrate on runs as long."
                )
            z = _standardised(found.values, self.mean, self.slope, self.deviation)
            largest = z.amax(dim=2)
            below = torch.searchsorted(self.reference[:, :length].T.contiguous(), largest.T.contiguous()).T
            parts = {
                "time": found.time,
                "known": found.known,
                "surprise": torch.where(largest.isinf(), torch.nan, largest),
                "p_value": torch.where(largest.isinf(), torch.nan, (1.0 + self.count - below) / (1.0 + self.count)),
                "statistic": (_cusum(z) / self.height).amax(dim=2) / threshold,
            }
            for name, values in parts.items():
                columns[name][piece.places, :length] = values.cpu().numpy()
            if places and found.places is not None:
                if maps is None:
                    maps = np.full((*shape, *found.places.shape[2:]), np.nan)
                maps[piece.places, :length] = found.places.cpu().numpy()
        reader.departures.pop("frames", None)  # fewer only: in a part of a run there are fewer false alarms
        reader.warn()
        return self._labelled(reader, columns, maps, rate)

    def _labelled(
        self, reader: RunReader, columns: dict[str, NDArray[np.float64]], maps: Any, rate: float
    ) -> xr.Dataset:
        run = reader.dimension
        above = columns["statistic"] > 1
        first = np.where(above.any(axis=1), above.argmax(axis=1), 0)
        alarmed = columns["known"][np.arange(len(first)), first]
        data: dict[str, Any] = {n: ((run, "frame"), v) for n, v in columns.items()}
        data["alarm"] = (run, above.any(axis=1))
        data["alarm_time"] = (run, np.where(above.any(axis=1), alarmed, np.nan))
        if maps is not None:
            data["places"] = ((run, "frame", *self.declared.axis_names), maps)
        found = xr.Dataset(data, attrs={"false_alarm_rate": rate, "calibration_runs": self.count})
        found = found.assign_coords({n: v for n, v in reader.carried.items() if v.dims in ((run,), ())})
        return found.isel({run: 0}) if reader.single else found

    # ------------------------------------------------------------------------------ on disk

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the detector as a folder that :func:`pdessl.load` and ``pdessl surprise --model`` read.

        Raises:
            CheckpointError: scores by a function, or by a network whose arguments are not known.
            StoreError: the folder cannot be written.
        """
        folder = Path(path)
        boundary = dict(zip(self.declared.axis_names, self.declared.boundary, strict=True))
        told = save_scores(self.model, folder, boundary)
        with replacing(folder / _ARRAYS) as temporary:
            save_file({n: getattr(self, n).contiguous().clone() for n in _NAMES}, temporary)
            total = checksum(temporary)
        content = {
            "kind": "surprise_detector", "format": _FORMAT, "sha256": total, "model": told,
            "format_of_runs": self.declared.state(),
        }  # fmt: skip
        write_json(folder / DETECTOR, content)
        return folder


def load_detector(path: str | os.PathLike[str], allow: Sequence[str] = ()) -> SurpriseDetector:
    """Load what :meth:`SurpriseDetector.save` wrote; nothing is unpickled.

    Args:
        path: the folder.
        allow: packages that classes of networks may come from, see :func:`pdessl.load`.

    Raises:
        CheckpointError: damaged, of another version, or files that do not belong together.
    """
    folder = Path(path)
    try:
        content = json.loads((folder / DETECTOR).read_text(encoding="utf-8"))
        if content["kind"] != "surprise_detector" or content["format"] != _FORMAT:
            raise ValueError(f"kind {content['kind']}, format {content['format']}")
        if checksum(folder / _ARRAYS) != content["sha256"]:
            raise ValueError(f"{_ARRAYS} was changed after it was written")
        arrays = {n: v.clone() for n, v in load_file(folder / _ARRAYS).items()}
        model = load_scores(content["model"], folder, allow)
        n, (length, channels) = len(arrays["maxima"]), arrays["mean"].shape
        wanted = {
            "slope": (length, channels),
            "deviation": (length, channels),
            "height": (channels,),
            "reference": (n, length),
        }
        if channels != len(model.channels) or any(tuple(arrays[k].shape) != s for k, s in wanted.items()):
            raise ValueError("arrays of other shapes")
        declared = InputFormat.from_state(content["format_of_runs"])
        return SurpriseDetector(model, declared, *(arrays[k] for k in _NAMES))
    except UNREADABLE as error:
        raise CheckpointError(
            f"{folder} cannot be read as a detector ({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
            "Copy the whole folder again, or calibrate again."
        ) from None


def _model_of(source: Foreseen) -> object:
    return source.law if isinstance(source, LawScores) else source


def _scores(source: Foreseen, runs: Trajectories) -> FrameScores:
    parts = [source.scores(runs[slice(i, i + _BATCH)]) for i in range(0, len(runs), _BATCH)]
    if len({p.values.shape[1] for p in parts}) > 1:
        raise DataError("sound runs have different numbers of frames; cut them to the shortest.")
    return FrameScores.join(parts)


def _beginning(values: Tensor, there: Tensor) -> Tensor:
    """Return the mean over the positions before each, of the first third of those a channel has, (B, T', S); 0: none.

    Args:
        values: (B, T', S).
        there: whether a channel says something there, (all positions, S).
    """
    rank = there.cumsum(dim=0)
    counted = there & (rank <= (there.sum(dim=0) // 3).clamp_min(1))
    counted = counted[: values.shape[1]]
    held = torch.where(counted, values, torch.zeros_like(values))
    number = (counted.cumsum(dim=0) - counted.int()).clamp_min(1)
    return (held.cumsum(dim=1) - held) / number


def _expected(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return μ, β and σ of sound runs (B, T', S), (T', S) each."""
    there = values.isfinite().all(dim=0)
    before = _beginning(values, there)
    mean, middle = values.mean(dim=0), before.mean(dim=0)
    centred = before - middle
    # A tenth of the variance is added: few runs give a slope of their own noise.
    slope = (centred * (values - mean)).sum(dim=0) / (1.1 * centred.square().sum(dim=0)).clamp_min(1e-12)
    deviation = (values - mean - slope * centred).std(dim=0)
    # A channel that does not vary in sound runs cannot say what is unusual.
    known = there & (deviation > 1e-9)
    never = torch.full_like(mean, torch.nan)
    found = (mean - slope * middle, slope, deviation)
    return tuple(torch.where(known, part, never) for part in found)  # type: ignore[return-value]


def _standardised(values: Tensor, mean: Tensor, slope: Tensor, deviation: Tensor) -> Tensor:
    """Return z, (B, T', S), of runs with as many positions as sound ones or fewer; -inf: a channel says nothing."""
    n = values.shape[1]
    z = (values - mean[:n] - slope[:n] * _beginning(values, mean.isfinite())) / deviation[:n]
    return z.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _cusum(z: Tensor) -> Tensor:
    """Return the cumulative sums W, (B, T', S)."""
    held, found = torch.zeros_like(z[:, 0]), []
    for t in range(z.shape[1]):
        held = (held + z[:, t] - _SLACK).clamp_min(0.0)
        found.append(held)
    return torch.stack(found, dim=1)
