"""Laws on disk: plain data in ``law.json``, and the law as an equation file that everything else reads."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
import yaml

from pdessl import files
from pdessl.errors import CheckpointError
from pdessl.operators.fit import Fitted
from pdessl.operators.latent import Candidate, LatentOperator
from pdessl.operators.library import Derived, Term
from pdessl.operators.weak import Projection

__all__ = ["LAW", "load_law", "save_law"]

LAW = "law.json"
_FORMAT = 4


def save_law(law: LatentOperator, folder: str | os.PathLike[str], boundary: dict[str, str] | None = None) -> Path:
    """Write ``law.json`` and ``equation.yaml``; numbers are written such that they are read back bit for bit.

    Args:
        law: to write.
        folder: made where it does not exist.
        boundary: kind by axis, for the equation file.
    """
    place, fitted = Path(folder), law.fitted
    content = {
        "kind": "latent_operator",
        "format": _FORMAT,
        "fields": list(law.field_names),
        "axes": list(law.axis_names),
        "projection": dataclasses.asdict(law.projection),
        "constant": fitted.constant.tolist(),
        "varying": fitted.varying.tolist(),
        "kept": fitted.kept.tolist(),
        "pivots": [list(p) for p in fitted.pivots],
        "errors": law.errors.tolist(),
        "noise_removed": law.noise_removed,
        "level": law.level.tolist(),
        "spread": law.spread.tolist(),
        "count": law.count,
        "tolerance": law.tolerance,
        "waves": list(law.waves),
        "steady": law.steady,
        "candidates": [dataclasses.asdict(c) for c in law.candidates],
    }
    equation = law.equation()
    text = {
        "name": equation.name,
        "title": equation.title,
        "independent": {"t": "time", **dict.fromkeys(law.axis_names, "space")},
        "dependent": {n: {"rank": 0, "components": n} for n in law.names},
        "observed": list(law.field_names),
        "parameters": {z: {"name": z} for z in equation.parameters},
        "equations": list(equation.texts),
        "boundary": {a: k for a, k in (boundary or {}).items() if k == "periodic"},
        "ansatz": dict(equation.ansatz),
    }
    text = {k: v for k, v in text.items() if v}
    files.write_text(place / "equation.yaml", yaml.safe_dump(text, sort_keys=False))
    files.write_json(place / LAW, content)
    return place / LAW


def load_law(folder: str | os.PathLike[str]) -> LatentOperator:
    """Read what :func:`save_law` wrote.

    Raises:
        CheckpointError: no law there, or one that is damaged or of another version.
    """
    path = Path(folder) / LAW
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != "latent_operator" or content["format"] != _FORMAT:
            raise ValueError(f"kind {content['kind']}, format {content['format']}")
        number = functools.partial(torch.tensor, dtype=torch.float64)
        constant = number(content["constant"])
        return LatentOperator(
            projection=_projection(content["projection"]),
            fitted=Fitted(
                constant,
                number(content["varying"]).reshape(-1, *constant.shape),
                torch.tensor(content["kept"], dtype=torch.bool),
                tuple((int(c), int(k)) for c, k in content["pivots"]),
            ),
            noise_removed=bool(content["noise_removed"]),
            field_names=tuple(content["fields"]),
            axis_names=tuple(content["axes"]),
            level=number(content["level"]),
            spread=number(content["spread"]),
            candidates=tuple(Candidate(**{**c, "half_width": tuple(c["half_width"])}) for c in content["candidates"]),
            errors=number(content["errors"]),
            count=int(content["count"]),
            tolerance=float(content["tolerance"]),
            waves=tuple(map(float, content["waves"])),
            steady=bool(content.get("steady", False)),  # laws of before have none
        )
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} cannot be read as a law ({type(error).__name__}: {reason}). Find it again: pdessl discover DATA "
            "--out FOLDER."
        ) from None


def _projection(content: dict[str, Any]) -> Projection:
    def term(t: dict[str, Any]) -> Term:
        return Term(tuple(map(int, t["powers"])), tuple(map(int, t["orders"])), int(t["time"]), str(t["factor"]))

    derived = tuple(
        Derived(str(d["name"]), tuple((float(w), int(f), tuple(map(int, a))) for w, f, a in d["parts"]))
        for d in content["derived"]
    )
    return Projection(
        terms=tuple(map(term, content["terms"])),
        half_width=tuple(map(int, content["half_width"])),
        targets=tuple(map(term, content["targets"])),
        derived=derived,
        centred=bool(content["centred"]),
        high_pass=int(content["high_pass"]),
        stride=tuple(map(int, content["stride"])),
        power=int(content["power"]),
        advected=tuple(map(int, content["advected"])),
        refined=int(content.get("refined", 1)),  # laws of before have none
    )
