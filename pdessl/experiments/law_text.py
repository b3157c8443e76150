"""A law in words: what is printed of it."""

from __future__ import annotations

from pdessl.errors import PdesslError
from pdessl.operators.latent import LatentOperator
from pdessl.symmetry import find_symmetries

__all__ = ["candidate_table", "summary", "symmetry_line"]


def summary(law: LatentOperator) -> str:
    """Return the law and its diagnostics."""
    names = ", ".join(law.letters)
    codes = {0: "no number differs between runs", 1: f"{names}: one number a run"}.get(
        law.rank, f"{names}: {law.rank} numbers a run"
    )
    sure = f", reliability {law.reliability:.3f}" if law.rank else ""
    noise = ", ".join(f"{v:.3g}" for v in law.level.tolist())
    lines = "\n".join(f"    {line}" for line in str(law).splitlines())
    return f"{lines}\n{codes}{sure}, unexplained {law.unexplained:.1%}, {law.count:,} runs, noise {noise}"


def symmetry_line(law: LatentOperator) -> str:
    """Return the symmetries of the law, derived and verified from its equation, with what moves a code."""
    try:
        algebra = find_symmetries(law.equation())
    except PdesslError as error:
        return f"symmetries of this law: {error}"
    names = []
    for generator in algebra.generators:
        moved = ", ".join(generator.moves)
        names.append(generator.name.replace("_", " ") + (f" (moves {moved})" if moved else ""))
    return f"symmetries of this law: {', '.join(names) or 'none'}"


def candidate_table(law: LatentOperator) -> str:
    """Return everything that was tried, the chosen one first."""
    rows = ["half-widths  mean removed  noise removed  high pass  rank  reliability  apart   unexplained  left side"]
    for c in law.candidates:
        width = "x".join(map(str, c.half_width)) + (f" of {c.refined}n" if c.refined > 1 else "")
        rows.append(
            f"{width:<11s}  {'yes' if c.centred else 'no':<12s}  {'yes' if c.noise_removed else 'no':<13s}  "
            f"{c.high_pass:<9d}  {c.rank:<4d}  {c.reliability:<11.4f}  {c.apart:<6.4f}  {c.unexplained:<11.4f}  "
            f"{c.form}{' along the flow' if c.advected else ''}"
        )
    if any(c.refined > 1 for c in law.candidates):
        rows.append("of 2n: on twice as many nodes along periodic axes, as a wave has too few; half-widths count these")
    return "\n".join(rows)
