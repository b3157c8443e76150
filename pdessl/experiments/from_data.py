"""What a pretraining recipe leaves open and the data say: channels, periodic axes, the frames that tell most."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from pdessl.data.groups import group_numbers
from pdessl.data.windows import Windows
from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.inference.time_windows import choose_time
from pdessl.models import TokenPredictor
from pdessl.trajectory import Trajectories

__all__ = ["choose_frames", "complete", "first_view"]

_CHANNELS = ("in_channels", "channels")
_LOOKED_AT = 256  # runs, at most


def choose_frames(model: Namespace, data_module: type, data: Namespace) -> list[str]:
    """Replace, in place, every ``time: choose`` of an augmentation by what the unlabelled runs say.

    Args:
        model: settings of a task, as parsed.
        data_module: class of the data module.
        data: its settings; runs of a group (``grouped``) say more than halves of runs.

    Returns:
        a line for each, of what was chosen and why; see :func:`pdessl.inference.choose_time`. Where groups are too few
        the halves of runs choose, and where runs are too few or too short for that nothing does: ``random``.

    Raises:
        SchemaError: data that are simulated while they are used.
    """
    lines = []
    for where, _, settings in _networks(model, "model"):
        if settings.get("time") != "choose":
            continue
        if "stream" in data:
            raise SchemaError(
                f"{where}.init_args.time is choose, which looks at runs that are there; these are simulated when they "
                "are needed. Say random, early or late."
            )
        name, why = _choice(data_module(**data.as_dict()))
        settings["time"] = "random" if name == "whole" else name
        lines.append(f"{why}; {where}.init_args.time={settings['time']}")
    return lines


def _choice(module: Any) -> tuple[str, str]:
    """Return the frames that tell most, and why."""
    module.setup()
    pool = next(selection for selection in module.selections("unlabelled") if len(selection))
    chosen = np.arange(min(len(pool), _LOOKED_AT))
    groups = None
    if module.grouped is not None:
        numbers = group_numbers(pool, module.grouped)
        # Whole groups: those that come first have the smallest numbers.
        order = np.argsort(numbers, kind="stable")[:_LOOKED_AT]
        chosen = np.sort(order)
        groups = numbers[chosen]
    runs = Windows([pool[chosen]], module.crop, module.stride, module.fields, labels=False)
    reason = ""
    for known in (groups, None) if groups is not None else (None,):
        try:
            found = choose_time(runs.everything(), known)
        except (DataError, ShapeError) as error:
            reason += f"{' ' if reason else ''}{error}"
        else:
            return found.name, f"{found}{f' ({reason})' if reason else ''}"
    return "random", f"time: any, since nothing could be chosen: {reason}"


def first_view(data_module: type, data: Namespace, augmentation: Namespace | None) -> Trajectories:
    """Return a view of one training trajectory, read from disk or simulated as training will do it.

    Args:
        data_module: class of the data module.
        data: its settings.
        augmentation: class path and arguments of what makes views; None: the trajectory itself.
    """
    settings = {**data.as_dict(), "batch_size": 1, "num_workers": 0}
    # One trajectory: nothing is held in memory, read ahead or simulated in advance.
    settings |= {"batches": 1, "together": 1} if "stream" in settings else {"memory": 0.0}
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.WARNING)  # how this one is read is not how the others will be
    try:
        batch = next(iter(data_module(**settings).train_dataloader()))
    finally:
        log.setLevel(level)
    if augmentation is None:
        return batch
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--augmentation", type=nn.Module)
    # Named instantiate since jsonargparse 4.49.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return instantiate(Namespace(augmentation=augmentation)).augmentation(batch)[0]


def complete(model: Namespace, view: Trajectories) -> None:
    """Fill in, in place, ``in_channels``, ``channels`` and ``periodic`` of every network where they are None.

    What a recipe does say stays; padding round an axis that is not periodic, or the other way, is told in a warning.

    Args:
        model: settings of a task, as parsed.
        view: one view, as training makes them.

    Raises:
        SchemaError: the recipe's number of channels or of space axes is not that of the data.
    """
    channels = view.fields.shape[1]
    space = [kind == "periodic" for kind in view.boundary]
    for where, name, settings in _networks(model, "model"):
        for key in _CHANNELS:
            if key not in settings:
                continue
            if settings[key] is None:
                settings[key] = channels
            elif settings[key] != channels:
                raise SchemaError(
                    f"{where}.init_args.{key} is {settings[key]}, the data have {channels} fields "
                    f"({', '.join(view.field_names)}). Leave it out to take the number from the data, or choose fields "
                    "with data.fields."
                )
        if "periodic" not in settings:
            continue
        expected = [False, *space] if name == TokenPredictor.__name__ else space
        given = settings["periodic"]
        given = [given] if isinstance(given, bool) else given  # of a network on one axis
        if given is None:
            settings["periodic"] = expected
        elif len(given) != len(expected):
            raise SchemaError(
                f"{where}.init_args.periodic is {list(given)}, for {name} of these data it has {len(expected)} entries"
                f"{' (time first)' if name == TokenPredictor.__name__ else ''}; the space axes are "
                f"{', '.join(view.axis_names)}. Leave it out to take it from the data."
            )
        elif [bool(p) for p in given] != expected:
            warnings.warn(
                f"{where}.init_args.periodic is {list(given)}, but the axes of the views are "
                f"{', '.join(view.boundary)}. Leave it out to take it from the views; what the recipe says is used.",
                stacklevel=2,
            )


def _networks(content: Any, where: str) -> Iterator[tuple[str, str, Namespace]]:
    """Yield place, class name and arguments of every class that a recipe names, the inner ones too."""
    if isinstance(content, (list, tuple)):
        content = {str(number): value for number, value in enumerate(content)}
    if not isinstance(content, (Namespace, Mapping)):
        return
    path, arguments = content.get("class_path"), content.get("init_args")
    if isinstance(path, str) and isinstance(arguments, Namespace):
        yield where, path.rpartition(".")[2], arguments
        where, content = f"{where}.init_args", arguments
    for key, value in (vars(content) if isinstance(content, Namespace) else content).items():
        yield from _networks(value, f"{where}.{key}")
