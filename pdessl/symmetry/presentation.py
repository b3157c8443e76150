"""A symmetry algebra for reading: generators, flows, what moves parameters, what survives the boundary."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["text"]

_WIDTH = 110


def text(description: Mapping[str, Any]) -> str:
    """Write the data of :meth:`pdessl.symmetry.SymmetryAlgebra.describe` for people.

    Symmetries come first (they keep every parameter: two such views of a trajectory share its labels), then equivalence
    transformations (they move parameters, and with them labels), each with its vector field, its flow by the strength
    ε, what the boundary conditions leave of it and what it does to fields that are not observed.
    """
    equation, generators = description["equation"], description["generators"]
    blocks = [_head(description)]
    typed = not any(g["named"] for g in generators)
    symmetries = [g for g in generators if g["kind"] == "SYM"]
    moving = [g for g in generators if g["kind"] != "SYM"]
    if symmetries:
        title = "Symmetries (they keep every parameter)"
        blocks.append(_generators(title, symmetries, equation, typed))
    if moving:
        title = "Equivalence transformations (they move parameters, and labels with them)"
        blocks.append(_generators(title, moving, equation, typed))
    if not generators:
        blocks.append("No symmetry is declared, and none was found.")
    blocks += [b for b in (_families(description), _discrete(description), _identifiable(description)) if b]
    if typed and generators:
        blocks.append("\n".join(["To keep them, in an equation file:", "generators:",
                                 *(f"  {g['declaration']}" for g in generators)]))  # fmt: skip
    blocks.append(_certificate(description["certificate"]))
    return "\n\n".join(blocks)


def _wrapped(line: str, indent: str = "    ") -> str:
    filled = textwrap.fill(
        line, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return filled.replace("\u00a0", " ")


def _unbroken(formula: str) -> str:
    return formula.replace(" ", "\u00a0")


def _head(description: Mapping[str, Any]) -> str:
    equation, boundary = description["equation"], description["boundary"]
    lines = [equation["title"] or equation["name"]]
    lines += [f"    {t if '=' in t else f'{t} = 0'}" for t in equation["texts"]]
    if equation["parameters"]:
        names = [
            letter + (f" = {p['name']}" if p["name"] != letter else "") + (f" [{p['unit']}]" if p["unit"] else "")
            for letter, p in equation["parameters"].items()
        ]
        lines.append(f"    parameters  {', '.join(names)}")
    hidden = [f for f in equation["dependent"] if f not in equation["observed"]]
    unseen = f"; not observed: {', '.join(hidden)}" if hidden else ""
    lines.append(f"    fields      {', '.join(equation['observed'])}{unseen}")
    lines.append(f"    boundary    {'; '.join(f'{a}: {_condition(c)}' for a, c in boundary.items()) or 'none'}")
    lines += [_wrapped(f"implied     {c}") for c in description["integrability_conditions"]]
    if description["divided_by"]:
        lines.append(_wrapped(
            f"solved      by dividing by {', '.join(description['divided_by'])}: what follows holds where "
            f"{' and '.join(f'{letter} != 0' for letter in description['divided_by'])}"
        ))  # fmt: skip
    return "\n".join(lines)


def _condition(conditions: Mapping[str, str]) -> str:
    if set(conditions) == {""}:
        return conditions[""]
    return ", ".join(f"{c} {f}".strip() for f, c in conditions.items())


def _generators(title: str, generators: Sequence[Mapping[str, Any]], equation: Mapping[str, Any], typed: bool) -> str:
    return "\n".join([title, *(_generator(g, equation, typed) for g in generators)])


def _generator(generator: Mapping[str, Any], equation: Mapping[str, Any], typed: bool) -> str:
    unknown = not generator["named"] and not typed
    lines = [f"  {generator['name']}" + ("   (found; not declared in the equation's file)" if unknown else "")]
    lines.append(_wrapped(f"v = {_unbroken(generator['vector_field']).replace(chr(160) + '+', ' +')}"))
    if generator["no_flow"]:
        lines.append(_wrapped(f"no closed flow found: {generator['no_flow']}"))
    else:
        lines.append(_wrapped(", ".join(_unbroken(f"{c}' = {t}") for c, t in generator["flow_shown"].items())))
    letters = {p["name"]: letter for letter, p in equation["parameters"].items()}
    for name in generator["moves"]:
        image = (generator["flow_shown"] or {}).get(letters[name])
        lines.append(_wrapped(f"moves {name}" + (f": {letters[name]}' = {image}" if image else "")))
    lines.append(_wrapped(generator["boundary"]["text"]))
    if generator["hidden"]:
        verb = "is" if len(generator["hidden"]) == 1 else "are"
        lines.append(_wrapped(f"touches {', '.join(generator['hidden'])}, which {verb} not observed"))
    if generator["warning"]:
        lines.append(_wrapped(f"warning: {generator['warning']}"))
    if generator["not_batched"]:
        lines.append(_wrapped(f"not applied to batches: {_reason(generator['not_batched'])}"))
    if unknown:
        lines.append(_wrapped(f"to name it, declare: {generator['declaration']}"))
    return "\n".join(lines)


def _reason(obstruction: str) -> str:
    """Return why a flow is not slice-affine, without the image that is shown above."""
    for verb in ("depends on", "is not affine", "multiplies", "adds more"):
        if verb in obstruction:
            what = f"{obstruction.split(' = ')[0]} {obstruction[obstruction.rindex(verb) :]}"
            return f"{what}, outside the slice-affine class"
    return obstruction


def _families(description: Mapping[str, Any]) -> str:
    lines = []
    for family in description["families"]:
        members = [g["name"] for g in description["generators"] if g["family"] == family["name"]]
        functions = " and ".join(f"{f}({', '.join(v)})" for f, v in family["functions"].items())
        body = ", ".join(f"{c}: {t}" for c, t in family["components"].items())
        where = f" with {', '.join(f'{w} = 0' for w in family['where'])}" if family["where"] else ""
        shown = f"; shown: {', '.join(members)}" if members else ""
        lines.append(_wrapped(f"{family['name']}: {{{body}}} for every {functions}{where}{shown}", "  "))
    if description["linear"] and not any(f["where"] for f in description["families"]):
        lines.append("  superposition: the equations are linear, so that any other solution may be added")
    return "\n".join(["Infinite families, verified for arbitrary functions", *lines]) if lines else ""


def _discrete(description: Mapping[str, Any]) -> str:
    if not description["discrete"]:
        return "Discrete: no reflection of space or fields (time is never reversed)"
    lines = []
    for found in description["discrete"]:
        notes = [f"moves {', '.join(found['parameters'])}"] if found["parameters"] else []
        if found["boundary"]["class"] != "exact":
            notes.append(found["boundary"]["text"])
        lines.append("  " + "; ".join([found["text"], *notes]))
    return "\n".join(["Discrete (exact on the grid, about the middle of the box)", *lines])


def _identifiable(description: Mapping[str, Any]) -> str:
    equation = description["equation"]
    if not equation["parameters"]:
        return ""
    found = description["identifiable"]
    lines = [_wrapped(f"given {given}: {', '.join(names) or 'nothing'}", "  ") for given, names in found.items()]
    return "\n".join(["Invariant under every scaling (what can be learnt without knowing a scale)", *lines])


def _certificate(certificate: Mapping[str, Any] | None) -> str:
    verified = "Every generator was verified exactly: its prolongation vanishes on the solutions of the equation."
    if certificate is None:
        return textwrap.fill(verified, _WIDTH)
    lines = f"{verified} {certificate['text']}"
    if certificate["next_degree"] is not None:
        more = certificate["next_degree"] - certificate["generic"]
        lines += f" Degree {certificate['degree'] + 1} " + (
            f"holds {more} more, members of infinite families or generators of that degree: ask for it to see them."
            if more
            else "holds no more."
        )
    return textwrap.fill(lines, _WIDTH)
