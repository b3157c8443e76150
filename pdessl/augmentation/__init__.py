"""Views of batches, on the device they are on: flows of symmetries composed, applied and resampled at most once."""

from pdessl.augmentation.actuated import ActuatedSymmetries
from pdessl.augmentation.draws import draw_rows
from pdessl.augmentation.lie import GroupElements, LieAugmentation
from pdessl.augmentation.slice_affine import SliceAffine
from pdessl.augmentation.windows import RandomWindows

__all__ = ["ActuatedSymmetries", "GroupElements", "LieAugmentation", "RandomWindows", "SliceAffine", "draw_rows"]
