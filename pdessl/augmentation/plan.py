"""What is done to every axis of one kind of batch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What is done to every axis of one kind of batch. Decided from the flows alone: no device is waited for.

    Args:
        frames: frames of the view.
        points: nodes of the view, per axis.
        sizes: nodes of the source, per axis.
        fields: names of the channels.
        axes: names of the space axes.
        actions: per axis ``cut``, ``fourier``, ``spline`` or ``mixed``.
        carried: per axis, nodes scale with the map and keep their values.
        periodic: per axis, the source wraps.
        bounded: axes where reading is limited to the data.
        boundary: per axis, the kind of boundary of the view.
        rescaled: per axis, lengths may change, so that the target grid may be coarser.
        linear: M is not the identity.
        tilted: b1 or b2 is not zero.
        added: b0 is not zero.
        mixing: S has entries off the diagonal.
    """

    frames: int
    points: tuple[int, ...]
    sizes: tuple[int, ...]
    fields: tuple[str, ...]
    axes: tuple[str, ...]
    actions: tuple[str, ...]
    carried: tuple[bool, ...]
    periodic: tuple[bool, ...]
    bounded: tuple[int, ...]
    boundary: tuple[str, ...]
    rescaled: tuple[bool, ...]
    linear: bool
    tilted: bool
    added: bool
    mixing: bool
