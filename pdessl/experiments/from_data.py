"""What a pretraining recipe leaves open and the data say: numbers of channels, and which axes are periodic."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from torch import nn

from pdessl.errors import SchemaError
from pdessl.models import TokenPredictor
from pdessl.trajectory import Trajectories

__all__ = ["complete", "first_view"]

_CHANNELS = ("in_channels", "channels")


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
