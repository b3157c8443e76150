"""Runs of different lengths: those of a split that have as many frames are a part of it, with a name that says so."""

# T frames

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pdessl.data.selection import Selection

__all__ = ["common_frames", "long_enough", "named", "parts_of", "split_of_part"]

_PART = re.compile(r"(?P<split>.+)_(?P<frames>\d+)frames")


def named(split: str, frames: int) -> str:
    """Return what the runs of a split are called that have another number of frames than most."""
    return f"{split}_{frames}frames"


def split_of_part(name: str) -> str:
    """Return the split that a part belongs to; of any other name, the name itself."""
    found = _PART.fullmatch(name)
    return found["split"] if found else name


def parts_of(split: str, splits: Mapping[str, int] | Iterable[str]) -> list[str]:
    """Return a split and its parts of other lengths, in the order of the layout."""
    return [name for name in splits if name == split or split_of_part(name) == split]


def common_frames(lengths: Mapping[int, int]) -> int:
    """Return how long windows are that lose the fewest frames, where ``lengths`` says how many runs have T frames.

    Shorter runs are left out, longer ones cut: of all lengths the one with the most frames in all windows.
    """
    return max(lengths, key=lambda t: (t * sum(n for frames, n in lengths.items() if frames >= t), t))


def long_enough(selections: Sequence[Selection], frames: int | None, stride: int = 1) -> tuple[list[Selection], int]:
    """Return trajectories in selections of one shape each, those left out that have too few frames, and the frames.

    Args:
        selections: of one or several datasets.
        frames: of a window; None: :func:`common_frames` where trajectories differ.
        stride: of the frames.

    Returns:
        The selections, and the frames of a window where trajectories differ in length and ``frames`` is None; else 0.
    """
    equal = [part for chosen in selections for part in chosen.of_equal_shape() if len(part)]
    counts: dict[int, int] = {}
    for part in equal:
        there = -(-part.shape[1] // stride)
        counts[there] = counts.get(there, 0) + len(part)
    if len(counts) < 2:
        return list(equal), 0
    wanted = common_frames(counts) if frames is None else frames
    kept = [part for part in equal if -(-part.shape[1] // stride) >= wanted]
    return kept or list(equal), 0 if frames is not None else wanted
