"""Frames are chosen where runs tell their setting, and no label is needed."""

import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.inference.time_windows import choose_time

from .test_discriminant import diffusing

HALVES = {"whole": slice(0, 16), "early": slice(0, 8), "late": slice(8, 16)}


def drowned(at):
    """Runs whose other frames are replaced by noise."""
    runs, groups = diffusing(frames=16)
    noise = torch.randn(runs.fields.shape, generator=torch.Generator().manual_seed(0))
    told = torch.zeros(16, dtype=torch.bool)
    told[at] = True
    return runs.replace(fields=torch.where(told[:, None], runs.fields, noise)), groups


@pytest.mark.parametrize("name, other, at", [("early", "late", slice(0, 8)), ("late", "early", slice(8, 16))])
def test_the_frames_that_tell_are_chosen(name, other, at):
    runs, groups = drowned(at)
    found = choose_time(runs, groups)
    # All frames hold these too: they may be a little better, the other half is worth nothing.
    assert found.name in (name, "whole") and found.scores[other] < 0.3 < 0.9 < found.scores[name]
    assert choose_time(runs, groups, {k: v for k, v in HALVES.items() if k != "whole"}).name == name
    assert str(found).startswith(f"time: {found.name}, frames {found.frames.start} to")
    permuted = runs.replace(parameters={"rate": runs.parameters["rate"].flip(0)})
    assert choose_time(permuted, groups) == found


def test_the_shortest_of_equals_is_taken():
    runs, groups = diffusing(frames=16)
    found = choose_time(runs, groups)
    assert min(found.scores.values()) > 0.9 and found.frames.stop - found.frames.start == 8


def test_halves_of_runs_agree_where_there_is_something_to_agree_in():
    runs, _ = drowned(slice(0, 8))
    found = choose_time(runs)
    assert found.by == "split-half reliability" and found.scores["early"] > found.scores["late"] + 0.2


def test_what_cannot_be_chosen_from_is_said():
    runs, groups = diffusing(frames=6)
    with pytest.raises(ShapeError, match="6 frames are too few"):
        choose_time(runs, groups)
    with pytest.raises(DataError, match="give 16 or more, or groups"):
        choose_time(diffusing()[0][:8])
