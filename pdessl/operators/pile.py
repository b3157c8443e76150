"""Normal equations of more runs than memory holds: part by part on disk, one of them in memory at a time."""

# B runs, E targets, K terms

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pdessl.operators.fit import Normal, Normals
from pdessl.operators.latent import normals
from pdessl.operators.weak import Grams

__all__ = ["Pile", "stacked"]

_HELD = 2**20  # numbers of normal equations held in memory (8 MB); what is above goes to disk
_NAMES = ("whole", "first", "second")
_KEYS = ("gram", "right")


class Pile:
    """Normal equations in files, which sums over runs read one after another.

    Args:
        files: what :func:`stacked` wrote.
        sizes: runs in each.
        name: which of the equations in a file: of the whole run, or of a half.
    """

    def __init__(self, files: Sequence[Path], sizes: Sequence[int], name: str) -> None:
        self.files, self.sizes, self.name = tuple(files), tuple(sizes), name

    def __len__(self) -> int:
        return sum(self.sizes)

    def parts(self) -> Iterator[Normal]:
        """Return the equations of the runs, file by file."""
        for file in self.files:
            with safe_open(file, "pt") as held:
                yield Normal(*(held.get_tensor(f"{self.name}.{key}") for key in _KEYS))


def stacked(
    grams: Iterable[Grams], terms: int, remove: bool, stack: ExitStack, held: int | None = None
) -> tuple[Normals, tuple[Normals, Normals], Tensor]:
    """Return the normal equations of all runs and of their halves, and the noise of the runs, from Grams part by part.

    What does not fit into memory goes to a temporary folder, on the disk that ``TMPDIR`` names: per run some kilobytes.

    Args:
        grams: of parts of the runs, in order.
        terms: K.
        remove: subtract the expected Gram of noise.
        stack: removes the folder when it is left.
        held: numbers that are kept in memory; None: 8 MB of them.

    Returns:
        whole runs, their halves, and the level of the noise (B, C).
    """
    most = _HELD if held is None else held
    waiting: list[tuple[Normal, Normal, Normal]] = []
    levels: list[Tensor] = []
    files: list[Path] = []
    sizes: list[int] = []
    temporary: Path | None = None

    def write() -> None:
        nonlocal temporary
        temporary = temporary or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pdessl_law_")))
        made = [Normal.join(column) for column in zip(*waiting, strict=True)]
        content = {f"{n}.{key}": getattr(p, key).cpu() for n, p in zip(_NAMES, made, strict=True) for key in _KEYS}
        temporary_part = temporary / f"{len(files):05d}.safetensors"
        files.append(temporary_part)
        sizes.append(len(made[0]))
        save_file({key: value.contiguous() for key, value in content.items()}, temporary_part)
        waiting.clear()

    for part in grams:
        whole, (first, second) = normals(part, terms, remove)
        waiting.append((whole, first, second))
        levels.append(part.level)
        if sum(n.gram.numel() for held_part in waiting for n in held_part) > most:
            write()
    level = torch.cat(levels)
    if not files:
        joined = [Normal.join(column) for column in zip(*waiting, strict=True)]
        return joined[0], (joined[1], joined[2]), level
    if waiting:
        write()
    whole_pile, *halves = (Pile(files, sizes, name) for name in _NAMES)
    return whole_pile, (halves[0], halves[1]), level
