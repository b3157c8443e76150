"""Ways in which new runs differ from those a method was made for, as settings, applied to the test runs."""

# B batch, C channels, T time, X space

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor

from pdessl.data import DatasetRecipe, PDEDataModule, Store, load_recipe, simulate
from pdessl.errors import DataError, did_you_mean
from pdessl.schema import Count, Natural, Range
from pdessl.solvers import SIMULATORS, random_stream
from pdessl.trajectory import Trajectories

__all__ = ["Shift", "applicable", "shifted"]


@dataclass(frozen=True)
class Shift:
    """What is changed in the test runs; what is left out stays as it is.

    Args:
        noise: standard deviation of white noise that is added to every field, as a share of the field's root mean
            square over all test runs.
        every: keep every so many nodes of each space axis.
        share: keep the first frames only, this share of them.
        lost: share of the inner frames that are missing in each run, at random; they are filled in linearly in time.
        without: fields that were not measured; they are filled with their mean over the test runs.
        simulate: changes of the dataset's recipe by dotted key, e.g. ``{initial_condition.amplitude: 1.2}``: other
            runs are simulated, with the parameters drawn as before. For stores that were generated.
        dataset: another recipe that is simulated instead, by name or file, e.g. ``heat``: other equations, with domain,
            initial fields and observation of the store's recipe; its parameters are drawn as it says, or as
            ``simulate`` says.
    """

    noise: Natural = 0.0
    every: Count = 1
    share: Annotated[float, Range(above=0, high=1)] = 1.0
    lost: Annotated[float, Range(0, below=1)] = 0.0
    without: tuple[str, ...] = ()
    simulate: dict[str, Any] = field(default_factory=dict)
    dataset: str | None = None


def shifted(data: PDEDataModule, shift: Shift, seed: int = 0) -> Trajectories:
    """Return the test runs (or as many newly simulated ones) with the changes made, in the order of :class:`Shift`.

    Raises:
        DataError: settings out of range, an unknown field, or a simulation asked of data that were not simulated here.
    """
    if shift.noise < 0 or shift.every < 1 or not 0 < shift.share <= 1 or not 0 <= shift.lost < 1:
        raise DataError(f"{shift}: expected noise >= 0, every >= 1, share in (0, 1] and lost in [0, 1).")
    runs = _simulated(data, shift) if shift.simulate or shift.dataset else data.test
    fields = runs.fields
    if shift.noise:
        scale = fields.double().square().mean(dim=(0, *range(2, fields.ndim)), keepdim=True).sqrt() * shift.noise
        noise = random_stream(seed, "shift", 0, "noise").standard_normal(fields.shape)
        fields = (fields + scale * torch.from_numpy(noise)).to(fields.dtype)
    for name in shift.without:
        if name not in runs.field_names:
            raise DataError(
                f"no field '{name}'.{did_you_mean(name, runs.field_names)} Fields: {', '.join(runs.field_names)}."
            )
        channel = runs.field_names.index(name)
        fields = fields.clone()
        fields[:, channel] = data.test.fields[:, channel].mean()
    if shift.lost:
        fields = _interpolated(fields, runs.time, shift.lost, seed)
    frames = max(2, round(shift.share * fields.shape[2]))
    cut = (slice(None), slice(None), slice(0, frames), *[slice(None, None, shift.every)] * len(runs.space))
    return runs.replace(
        fields=fields[cut], time=runs.time[:, :frames], space=tuple(nodes[:, :: shift.every] for nodes in runs.space)
    )


def applicable(data: PDEDataModule, shifts: Mapping[str, Shift]) -> tuple[dict[str, Shift], list[str]]:
    """Return the shifts that can be made of the data, and why others cannot: those that simulate need a recipe."""
    found = {n: s for n, s in shifts.items() if _was_simulated(data) or not (s.simulate or s.dataset)}
    left = [n for n in shifts if n not in found]
    return found, [f"{n}: left out, {data.store.name} was not simulated here, and has no other runs." for n in left]


def _was_simulated(data: PDEDataModule) -> bool:
    if not isinstance(data.store, Store) or "converted" in data.store.manifest["recipe"]:
        return False
    recipe = data.store.recipe
    name = str(recipe.content["solver"].get("simulator", recipe.equation))
    # The manifest may be a stranger's: a simulator of one's own is used where the program has imported it.
    return name in SIMULATORS or name.rpartition(".")[0] in sys.modules


def _simulated(data: PDEDataModule, shift: Shift) -> Trajectories:
    store, test = data.store, data.test
    if not _was_simulated(data):
        raise DataError(f"{store.name} was not generated here: other runs of it cannot be simulated.")
    if shift.dataset is None:
        return simulate(load_recipe(store.recipe, None, shift.simulate), "shifted", range(len(test)))
    own, other = store.recipe.content, load_recipe(shift.dataset)
    alike = {name: own[name] for name in ("domain", "initial_condition")}
    alike["observation"] = {**other.content["observation"], **own["observation"]}
    other = DatasetRecipe(other.name, {**other.content, **alike})
    runs = simulate(load_recipe(other, None, shift.simulate), "shifted", range(len(test)))
    if len(runs.field_names) != len(test.field_names):
        raise DataError(
            f"{shift.dataset} has the fields {', '.join(runs.field_names)}, {store.name} has "
            f"{', '.join(test.field_names)}: give a dataset with as many."
        )
    return runs.replace(field_names=test.field_names)


def _interpolated(fields: Tensor, time: Tensor, lost: float, seed: int) -> Tensor:
    """Remove a share of the inner frames of every run and fill them in linearly in time from their neighbours."""
    b, frames = fields.shape[0], fields.shape[2]
    order = torch.from_numpy(random_stream(seed, "shift", 0, "frames").random((b, frames - 2))).argsort(dim=1)
    kept = torch.ones(b, frames, dtype=torch.bool)
    kept[:, 1:-1] = order >= round(lost * (frames - 2))
    number = torch.arange(frames).expand(b, -1)
    before = torch.where(kept, number, 0).cummax(dim=1).values
    after = torch.where(kept, number, frames - 1).flip(1).cummin(dim=1).values.flip(1)
    t0, t1 = time.gather(1, before), time.gather(1, after)
    weight = ((time - t0) / (t1 - t0).clamp_min(1e-300)).to(fields.dtype)
    place = (b, 1, frames, *[1] * (fields.ndim - 3))

    def at(index: Tensor) -> Tensor:
        return fields.gather(2, index.reshape(place).expand_as(fields))

    weight = weight.reshape(place)
    return at(before) * (1 - weight) + at(after) * weight
