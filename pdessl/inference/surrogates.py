"""Trained surrogates that speak xarray: the frames that follow those of a dataset, with coordinates."""

# B runs, M draws, C channels, T frames, X space, F width of the condition

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pdessl import models
from pdessl.conventions import run_name
from pdessl.errors import CheckpointError, FormatError
from pdessl.files import checksum, replacing, write_json, write_text
from pdessl.inference.conditions import Components, Condition, Prediction
from pdessl.models import FNO, Encoder, Surrogate
from pdessl.operators import CoarseStep, follow, load_law, save_law
from pdessl.trajectory import Trajectories

__all__ = ["SURROGATE", "SurrogateModel", "banded", "load_surrogate"]

SURROGATE = "surrogate.json"
_ARRAYS = "surrogate.safetensors"
_FORMAT = 2
# What a damaged or hostile description raises on the way to an object.
UNREADABLE = (
    OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError,
)  # fmt: skip
_NEAR = 1e-2  # relative: steps that differ by less are the same
_BATCH = 64
_BAND = (0.05, 0.95)
_PARTS = ("weights", "offset", "held_out", "errors")  # of a prediction


def banded(rollouts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and 5 % and 95 % quantiles over draws of rollouts (M, B, C, T, *X), (B, C, T, *X) each.

    The quantiles are the draws numbered .05 (M + 1) and .95 (M + 1) in order, so that a further draw lies between them
    nine times in ten; with fewer than 19 draws they are the extremes, and hold (M - 1)/(M + 1) of further draws.
    """
    draws = len(rollouts)
    places = [min(max((share * (draws + 1) - 1) / max(draws - 1, 1), 0.0), 1.0) for share in _BAND]
    low, high = torch.quantile(rollouts, torch.tensor(places, dtype=rollouts.dtype), dim=0)
    return rollouts.mean(dim=0), low, high


@dataclass(frozen=True, eq=False)
class SurrogateModel:
    """A surrogate, what tells it the physics, and the runs it takes.

    Args:
        surrogate: the network and its scales; None where the law itself is integrated.
        condition: where the condition comes from.
        context: frames that a rollout reads.
        field_names, axis_names, boundary, equation: as in :class:`pdessl.Trajectories`.
        steps: time step and node distance along each axis in training, by name.
        record: plain data: how it was trained and measured, for the card.
        reach: smallest and largest time step and node distances in training, by name.
    """

    surrogate: Surrogate | None
    condition: Condition
    context: int
    field_names: tuple[str, ...]
    axis_names: tuple[str, ...]
    boundary: tuple[str, ...]
    equation: str | None
    steps: Mapping[str, float]
    record: Mapping[str, Any] = field(default_factory=dict)
    reach: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @staticmethod
    def of(
        surrogate: Surrogate | None,
        condition: Condition,
        context: int,
        runs: Trajectories,
        record: Mapping[str, Any] | None = None,
    ) -> SurrogateModel:
        """Return the model of a surrogate trained on runs like these."""
        names = ("time", *runs.axis_names)
        every = torch.cat([runs.time_step[:, None], runs.grid_spacing], dim=1).double()
        distances = every.mean(dim=0).tolist()
        reach = zip(every.amin(dim=0).tolist(), every.amax(dim=0).tolist(), strict=True)
        return SurrogateModel(
            surrogate,
            condition,
            context,
            runs.field_names,
            runs.axis_names,
            runs.boundary,
            runs.equation,
            dict(zip(names, distances, strict=True)),
            dict(record or {}),
            dict(zip(names, reach, strict=True)),
        )

    def rollout(
        self,
        data: xr.Dataset | Trajectories,
        steps: int,
        parameters: Mapping[str, float | Sequence[float]] | None = None,
        recompute: int | None = None,
    ) -> xr.Dataset:
        """Return the frames that follow the last one of a dataset.

        Args:
            data: runs of the fields, axes and steps of training; the last ``context`` frames are read. A dataset
                without a dimension of runs is one run, and so is what is returned.
            steps: number of frames, >= 1.
            parameters: values of parameters that are the condition, one or one per run; they replace those of the data.
            recompute: read the condition anew from the surrogate's own frames every so many of them; None: it is that
                of the data throughout.

        Returns:
            Fields over (trajectory, time, *axes) with the coordinates of the data, times continued, and the parameters
            of the data. Of a posterior the mean of the rollouts under its draws, and for each field ``u`` the 5 % and
            95 % quantiles ``u_low`` and ``u_high``.

        Raises:
            FormatError: other fields or axes, too few frames, or other steps in time or space.
            DataError: values that are not finite, or a missing parameter.
            ValueError: steps < 1, or a condition that is to be read anew from the mean of several rollouts.
        """
        if steps < 1 or (recompute is not None and recompute < 1):
            raise ValueError(f"rollout got steps {steps}, recompute {recompute}; expected 1 or more.")
        if recompute is not None and self.condition.kind == "posterior":
            raise ValueError(
                "rollout got recompute for a posterior, whose mean is no run to read a condition from. Leave it out."
            )
        runs, single = self._read(data, parameters or {})
        self._check(runs)
        last = runs.window(slice(runs.fields.shape[2] - self.context, None))
        fields = self.ahead(last, steps, recompute)
        start = runs.time[:, -1:]
        time = start + runs.time_step[:, None] * torch.arange(1, steps + 1, dtype=torch.float64)
        bare = runs.replace(time=time, fields=fields[:, : len(self.field_names)], actions=None, actuators=())
        found = bare.to_xarray()
        names = [f"{n}_{side}" for side in ("low", "high") for n in self.field_names]
        for i, name in enumerate(names[: fields.shape[1] - len(self.field_names)], start=len(self.field_names)):
            like = found[self.field_names[(i - len(self.field_names)) % len(self.field_names)]]
            found[name] = like.copy(data=fields[:, i].numpy())
        if isinstance(data, xr.Dataset):
            run = run_name(data.dims)
            found = found.rename(trajectory=run) if run != "trajectory" else found
            if run in data.coords and not single:
                found = found.assign_coords({run: data[run]})
            for name in found.variables:
                if name in data.variables:
                    found[name].attrs |= data[name].attrs
        return found.isel({found[runs.field_names[0]].dims[0]: 0}) if single else found

    def ahead(self, context: Trajectories, steps: int, recompute: int | None = None) -> Tensor:
        """Return the frames after a context, (B, C, steps, *X), of a posterior (B, 3 C, steps, *X): mean, low and high.

        Args:
            context: exactly ``context`` frames of runs that the model takes.
            steps: number of frames, >= 1.
            recompute: as in :meth:`rollout`.
        """
        made: list[Tensor] = []
        while (left := steps - sum(m.shape[2] for m in made)) > 0:
            count = left if recompute is None else min(left, recompute)
            made.append(torch.cat([self._part(context[slice(i, i + _BATCH)], count)
                                   for i in range(0, len(context), _BATCH)]))  # fmt: skip
            if len(made[0]) and left > count:
                fields = torch.cat([context.fields, made[-1].to(context.fields)], dim=2)[:, :, -self.context :]
                context = context.replace(fields=fields)
        return torch.cat(made, dim=2)

    def _part(self, context: Trajectories, steps: int) -> Tensor:
        if self.condition.kind == "law" and self.condition.law is not None:
            return follow(self.condition.law, context, steps).fields
        found = self.stepper(context)(context.fields, steps)
        return torch.cat(banded(found), dim=1) if self.condition.kind == "posterior" else found[0]

    def stepper(self, context: Trajectories) -> Callable[[Tensor, int], Tensor]:
        """Return what steps frames of runs (B, C, T, *X), told what their context tells: (M, B, C, steps, *X).

        M is 1 but for a posterior. Not for the law itself.

        Args:
            context: exactly ``context`` frames of runs that the model takes.
        """
        surrogate, kind, condition = self.surrogate, self.condition, self.condition.of(context)
        assert surrogate is not None  # noqa: S101  (only a law goes without)
        coarse = CoarseStep(kind.law)(context, condition) if kind.kind == "hybrid" and kind.law is not None else None
        told = [condition] if condition is None or condition.ndim == 2 else list(condition)

        def stepped(frames: Tensor, steps: int) -> Tensor:
            return torch.stack([surrogate.rollout(frames.float(), steps, c, coarse) for c in told])

        return stepped

    def _read(
        self, data: xr.Dataset | Trajectories, given: Mapping[str, float | Sequence[float]]
    ) -> tuple[Trajectories, bool]:
        if isinstance(data, Trajectories):
            runs, single = data, False
        else:
            missing = [n for n in self.field_names if n not in data.data_vars]
            if missing:
                raise FormatError(
                    f"no field '{missing[0]}' in the data, which hold "
                    f"{', '.join(map(str, data.data_vars)) or 'nothing'}; the surrogate steps "
                    f"{', '.join(self.field_names)}. Rename it: ds.rename({{...: '{missing[0]}'}})."
                )
            run = run_name(data.dims)
            single = run not in data[self.field_names[0]].dims
            known = tuple(n for n in self._parameters() if n in data and n not in given)
            kept = data[[*self.field_names, *known, *(f"length_{a}" for a in self.axis_names if f"length_{a}" in data)]]
            runs = Trajectories.from_xarray(
                kept, self.field_names, known, space=self._axes(data), trajectory=run, boundary=self.boundary
            )
        own = {n: torch.as_tensor(np.broadcast_to(np.asarray(v, dtype=np.float64), (len(runs),)).copy())
               for n, v in given.items()}  # fmt: skip
        return runs.check_finite().replace(parameters={**runs.parameters, **own}, equation=self.equation), single

    def _axes(self, data: xr.Dataset) -> tuple[str, ...]:
        dims = data[self.field_names[0]].dims
        if not {"time", *self.axis_names} <= set(dims):
            raise FormatError(
                f"field '{self.field_names[0]}' has dimensions {tuple(dims)}; the surrogate takes (trajectory, time, "
                f"{', '.join(self.axis_names)}). Rename them: ds.rename({{...}})."
            )
        return self.axis_names

    def _parameters(self) -> tuple[str, ...]:
        law = self.condition.law
        factors = tuple(dict.fromkeys(t.factor for t in law.terms if t.factor)) if law is not None else ()
        return (self.condition.parameters if self.condition.kind == "parameter" else ()) + factors

    def _check(self, runs: Trajectories) -> None:
        if runs.field_names != self.field_names or runs.axis_names != self.axis_names:
            raise FormatError(
                f"the runs hold {', '.join(runs.field_names)} over {', '.join(runs.axis_names)}; the surrogate takes "
                f"{', '.join(self.field_names)} over {', '.join(self.axis_names)}. Choose or rename fields to match."
            )
        if runs.fields.shape[2] < self.context:
            raise FormatError(
                f"the data have {runs.fields.shape[2]} frames; a rollout reads the last {self.context}, its context. "
                "Give a longer run, or train with a smaller context."
            )
        if self.condition.kind == "law":
            return
        free = self.surrogate is not None and isinstance(self.surrogate.network, FNO)
        found = torch.cat([runs.time_step[:, None], runs.grid_spacing], dim=1)
        if self.condition.spacing:
            for i, (name, (low, high)) in enumerate(self.reach.items()):
                beyond = (found[:, i] < low * (1 - _NEAR)) | (found[:, i] > high * (1 + _NEAR))
                if bool(beyond.any()):
                    raise FormatError(
                        f"the data have a step of {float(found[beyond][0, i]):.6g} along '{name}'; the surrogate was "
                        f"told its steps, from {low:.6g} to {high:.6g} in training. Bring them there: "
                        f"ds.interp({name}=np.arange(start, end, {low:.6g}))."
                    )
            return
        for i, (name, step) in enumerate(self.steps.items()):
            if name != "time" and free:
                continue
            wrong = (found[:, i] / step - 1).abs() > _NEAR
            if bool(wrong.any()):
                raise FormatError(
                    f"the data have a step of {float(found[wrong][0, i]):.6g} along '{name}'; the surrogate was "
                    f"trained on {step:.6g}. Bring them there: ds.interp({name}=np.arange(start, end, {step:.6g}))."
                )

    # ------------------------------------------------------------------------------ on disk

    def card(self) -> str:
        """Return the model card, Markdown."""
        kind, told = self.condition, "nothing"
        told = {
            "parameter": f"the parameters {', '.join(kind.parameters)} ({kind.scale})",
            "representation": f"a representation of the first {self.context} frames",
            "operator": f"the code of a law, read from the first {self.context} frames",
            "predicted": f"{', '.join(kind.parameters)} as a ridge predicts it from the first {self.context} frames",
            "posterior": f"{kind.draws} values that {', '.join(kind.parameters)} may have, judged by the first "
            f"{self.context} frames and by the errors of a ridge for runs like these; it gives the mean of the "
            "rollouts and where 90 % of them lie",
            "hybrid": f"the code of a law, read from the first {self.context} frames, and corrects one coarse step of "
            "that law",
            "law": f"the law itself, its code read from the first {self.context} frames; no network",
        }.get(kind.kind, told)
        told += " and, besides, the time step and the node distances" if kind.spacing else ""
        name = type(self.surrogate.network).__name__ if self.surrogate is not None else "law"
        lines = [
            f"# A time-stepping surrogate of {self.equation or 'runs'}",
            "",
            f"{name} that predicts the frames after {self.context} given ones. It is told {told}.",
            "",
            "## Input",
            "",
            f"* fields: {', '.join(self.field_names)}",
            f"* axes: time, {', '.join(self.axis_names)}; boundary: {', '.join(self.boundary)}",
            *(f"* step along {n}: {v:.6g}" for n, v in self.steps.items()),
            f"* at least {self.context} frames",
        ]
        if kind.law is not None:
            lines += ["", "## Law", "", *(f"    {line}" for line in str(kind.law).splitlines())]
            lines += [f"* {w}" for w in kind.law.warnings()]
        if self.record:
            lines += ["", "## Training and errors", "", *(f"* {n}: {v}" for n, v in self.record.items())]
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model as a folder: ``surrogate.json`` and ``.safetensors``, parts of it as folders, ``card.md``.

        Raises:
            CheckpointError: a network whose arguments are not known; the message says what to do.
            StoreError: the folder cannot be written.
        """
        folder, kind = Path(path), self.condition
        arrays: dict[str, Tensor] = {}
        if self.surrogate is not None:
            models.save_pretrained(folder / "network", self.surrogate.network)
            arrays = {
                "mean": self.surrogate.scale.mean, "std": self.surrogate.scale.std, "change": self.surrogate.change,
                "condition_mean": self.surrogate.condition_mean, "condition_std": self.surrogate.condition_std,
                "slope": self.surrogate.slope,
            }  # fmt: skip
        if kind.prediction is not None:
            arrays |= {f"prediction/{n}": getattr(kind.prediction, n) for n in _PARTS}
        if kind.components is not None:
            arrays |= {"components/mean": kind.components.mean, "components/directions": kind.components.directions}
        if kind.encoder is not None:
            models.save_pretrained(folder / "encoder", Encoder.of(kind.encoder))
        if kind.law is not None:
            save_law(kind.law, folder / "law", dict(zip(self.axis_names, self.boundary, strict=True)))
        with replacing(folder / _ARRAYS) as temporary:
            save_file({n: v.detach().cpu().contiguous().clone() for n, v in arrays.items()}, temporary)
            total = checksum(temporary)
        write_text(folder / "card.md", self.card())
        content = {
            "kind": "surrogate", "format": _FORMAT, "sha256": total, "context": self.context,
            "sizes": None if self.surrogate is None else self.surrogate.sizes(),
            "condition": {
                "kind": kind.kind, "parameters": list(kind.parameters), "scale": kind.scale, "draws": kind.draws,
                "spacing": kind.spacing,
            },
            "encoder": kind.encoder is not None, "law": kind.law is not None,
            "field_names": list(self.field_names), "axis_names": list(self.axis_names),
            "boundary": list(self.boundary), "equation": self.equation, "steps": dict(self.steps),
            "record": dict(self.record), "reach": {n: list(ends) for n, ends in self.reach.items()},
        }  # fmt: skip
        write_json(folder / SURROGATE, content)
        return folder


def load_surrogate(path: str | os.PathLike[str], allow: Sequence[str] = ()) -> SurrogateModel:
    """Load what :meth:`SurrogateModel.save` wrote; nothing is unpickled.

    Args:
        path: the folder.
        allow: further packages that the class of a network may come from.

    Raises:
        CheckpointError: damaged, of another version, or files that do not belong together.
    """
    folder = Path(path)
    try:
        content = json.loads((folder / SURROGATE).read_text(encoding="utf-8"))
        if content["kind"] != "surrogate" or content["format"] != _FORMAT:
            raise ValueError(f"kind {content['kind']}, format {content['format']}")
        if checksum(folder / _ARRAYS) != content["sha256"]:
            raise ValueError(f"{_ARRAYS} was changed after it was written")
        arrays = {n: v.clone() for n, v in load_file(folder / _ARRAYS).items()}
        surrogate = None
        if content["sizes"] is not None:
            sizes = content["sizes"]
            surrogate = Surrogate(models.load(folder / "network", allow), **sizes)
            surrogate.scale.set_statistics(arrays["mean"], arrays["std"])
            surrogate.change, surrogate.condition_mean = arrays["change"], arrays["condition_mean"]
            surrogate.condition_std, slope = arrays["condition_std"], arrays["slope"]
            if tuple(surrogate.change.shape) != (sizes["channels"], sizes["bundle"]):
                raise ValueError(f"scales {tuple(surrogate.change.shape)}")
            if slope.shape != surrogate.slope.shape:
                raise ValueError(f"scales of derivatives {tuple(slope.shape)}")
            surrogate.slope = slope
            surrogate.eval()
        components = None
        if "components/mean" in arrays:
            components = Components(arrays["components/mean"], arrays["components/directions"])
        prediction = None
        if "prediction/weights" in arrays:
            prediction = Prediction(*(arrays[f"prediction/{n}"] for n in _PARTS))
        told = content["condition"]
        condition = Condition(
            str(told["kind"]),
            tuple(map(str, told["parameters"])),
            str(told["scale"]),
            models.load(folder / "encoder", allow) if content["encoder"] else None,
            components,
            load_law(folder / "law") if content["law"] else None,
            prediction,
            int(told["draws"]),
            bool(told["spacing"]),
        )
        return SurrogateModel(
            surrogate, condition, int(content["context"]), tuple(content["field_names"]),
            tuple(content["axis_names"]), tuple(content["boundary"]), content["equation"],
            {str(n): float(v) for n, v in content["steps"].items()}, dict(content["record"]),
            {str(n): (float(low), float(high)) for n, (low, high) in content["reach"].items()},
        )  # fmt: skip
    except UNREADABLE as error:
        raise CheckpointError(
            f"{folder} cannot be read as a surrogate ({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
            "Copy the whole folder again, or train again."
        ) from None
