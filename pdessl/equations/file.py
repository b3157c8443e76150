"""The file format of ``symmetries/``: one YAML file per PDE, with its declared symmetries."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pdessl import catalog
from pdessl.equations.equation import BOUNDARY_CONDITIONS, STRENGTH_UNITS, Equation, GeneratorDeclaration
from pdessl.equations.expression import Derivative, Expression, Names, walk
from pdessl.equations.parser import parse_equation, parse_expression
from pdessl.errors import EquationError, SchemaError, did_you_mean
from pdessl.schema import Natural, Overrides, Range, Text, check_keys, override, read_value, read_yaml

__all__ = ["load_equation"]

_TOP_KEYS = (
    "name", "title", "independent", "dependent", "observed", "parameters", "equations", "boundary", "ansatz",
    "generators", "references",
)  # fmt: skip
_GENERATOR_KEYS = ("field", "members", "strength", "kind", "functions")


class _Reader:
    """Reads one mapping of a YAML file; every complaint names file and key."""

    def __init__(self, file: str) -> None:
        self.file = file

    def fail(self, key: str, message: str) -> SchemaError:
        return SchemaError(f"{self.file}: {key}: {message}")

    def mapping(self, value: Any, key: str, known: Collection[str] | None = None) -> dict[str, Any]:
        check_keys(value, known, (), f"{self.file}: {key}" if key else self.file)
        return value

    def texts(self, value: Any, key: str) -> list[str]:
        found = read_value(Text | tuple[Text, ...], value, f"{self.file}: {key}")
        if found == ():
            raise self.fail(key, "expected at least one text, found an empty list.")
        return [str(v) for v in (found if isinstance(found, tuple) else (found,))]

    def text(self, value: Any, key: str) -> str:
        # YAML reads the component 1 as an integer and 0.5 as a float; both are texts here.
        return str(read_value(Text, value, f"{self.file}: {key}"))

    def number(self, value: Any, key: str) -> float:
        return read_value(Natural, value, f"{self.file}: {key}")

    def flag(self, value: Any, key: str) -> bool:
        return read_value(bool, value, f"{self.file}: {key}")

    def integer(self, value: Any, key: str, low: int, high: int) -> int:
        return read_value(Annotated[int, Range(low, high)], value, f"{self.file}: {key}")

    def parsed(self, text: str, key: str, names: Names) -> Expression:
        try:
            return parse_expression(text, names)
        except EquationError as error:
            raise SchemaError(f"{self.file}: {key}: {error}") from None


def load_equation(name: str | os.PathLike[str] | Equation, overrides: Overrides | None = None) -> Equation:
    """Read an equation file by its name in the catalog or by its path; the generators are read but not yet verified.

    Args:
        name: of the catalog, path of a YAML file, or an equation, which is returned.
        overrides: other values for keys of the file, ``{"ansatz.degree": 3}`` or ``["ansatz.degree=3"]``.

    Raises:
        CatalogError: no such name or file.
        SchemaError: the file, or a change, does not follow the format; the message names file and key.
    """
    if isinstance(name, Equation):
        if overrides:
            raise SchemaError(f"{name.name} is an equation that was read already: other values are for files.")
        return name
    path = catalog.find("symmetries", name)
    return _read(override(read_yaml(path), overrides), path)


def _read(content: dict[str, Any], path: Path) -> Equation:
    read = _Reader(path.name if path.parent.name == "symmetries" else str(path))
    read.mapping(content, "", _TOP_KEYS)
    for key in ("name", "independent", "dependent", "equations"):
        if key not in content:
            raise read.fail(key, "this key is required.")
    independent = tuple(read.mapping(content["independent"], "independent"))
    for letter, role in content["independent"].items():
        if role not in ("time", "space") or (role == "time") != (letter == "t"):
            raise read.fail(f"independent.{letter}", f"expected 't: time' and other letters 'space', found {role!r}.")
    dependent, vectors = _read_dependent(read, content["dependent"], independent)
    parameters = read.mapping(content.get("parameters") or {}, "parameters")
    parameter_names, units, positive = {}, {}, set()
    for letter, value in parameters.items():
        entry = read.mapping(value or {}, f"parameters.{letter}", ("name", "unit", "positive"))
        parameter_names[letter] = read.text(entry.get("name", letter), f"parameters.{letter}.name")
        if "unit" in entry:
            units[letter] = read.text(entry["unit"], f"parameters.{letter}.unit")
        if read.flag(entry.get("positive", False), f"parameters.{letter}.positive"):
            positive.add(letter)
    try:
        names = Names(independent, dependent, tuple(parameters))
    except EquationError as error:
        raise read.fail("names", str(error)) from None
    texts = tuple(read.texts(content["equations"], "equations"))
    trees = []
    for i, text in enumerate(texts):
        try:
            trees.append(parse_equation(text, names))
        except EquationError as error:
            raise SchemaError(f"{read.file}: equations[{i}]: {error}") from None
    observed = tuple(read.texts(content.get("observed", list(dependent)), "observed"))
    for f in observed:
        if f not in dependent:
            raise read.fail("observed", f"no field '{f}'.{did_you_mean(f, dependent)} Fields: {', '.join(dependent)}.")
    ansatz = read.mapping(content.get("ansatz") or {}, "ansatz", ("degree", "parameter_degree"))
    degrees = {
        "degree": read.integer(ansatz.get("degree", 2), "ansatz.degree", 1, 6),
        "parameter_degree": read.integer(ansatz.get("parameter_degree", 1), "ansatz.parameter_degree", 0, 6),
    }
    generators = read.mapping(content.get("generators") or {}, "generators")
    declarations = tuple(_read_generator(read, name, entry, names) for name, entry in generators.items())
    _check_unique(read, declarations)
    references = content.get("references", [])
    return Equation(
        name=read.text(content["name"], "name"),
        title=read.text(content.get("title", content["name"]), "title"),
        independent=independent,
        dependent=dependent,
        parameters=tuple(parameters),
        texts=texts,
        trees=tuple(trees),
        parameter_names=parameter_names,
        parameter_units=units,
        positive=frozenset(positive),
        observed=observed,
        vectors=vectors,
        boundary=_read_boundary(read, content.get("boundary") or {}, names, vectors),
        declarations=declarations,
        ansatz=degrees,
        references=tuple(read.texts(references, "references")) if references else (),
        path=path,
    )


def _read_dependent(
    read: _Reader, value: Any, independent: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """``{velocity: {rank: 1, components: {x: u, y: v}}, pressure: {rank: 0, components: p}}``."""
    components: list[str] = []
    vectors: dict[str, dict[str, str]] = {}
    for name, entry in read.mapping(value, "dependent").items():
        key = f"dependent.{name}"
        entry = read.mapping(entry, key, ("rank", "components"))
        rank = read.integer(entry.get("rank", 0), f"{key}.rank", 0, 1)
        if rank == 0:
            vectors[name] = {"": read.text(entry.get("components", name), f"{key}.components")}
        else:
            axes = read.mapping(entry.get("components"), f"{key}.components")
            space = tuple(i for i in independent if i != "t")
            if set(axes) != set(space):
                raise read.fail(
                    f"{key}.components",
                    f"expected one component per space axis {', '.join(space)}, found {', '.join(axes)}.",
                )
            vectors[name] = {axis: read.text(c, f"{key}.components.{axis}") for axis, c in axes.items()}
        components.extend(vectors[name].values())
    if not components:
        raise read.fail("dependent", "at least one field is required.")
    return tuple(components), vectors


def _read_boundary(
    read: _Reader, value: Any, names: Names, vectors: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """``{x: periodic}``, or per axis ``{velocity: noslip, scalar: zero_gradient}``; keys become components."""
    boundary: dict[str, dict[str, str]] = {}
    for axis, entry in read.mapping(value, "boundary").items():
        if axis not in names.independent or axis == "t":
            raise read.fail(f"boundary.{axis}", f"no space axis '{axis}'.")
        entries = {"": entry} if isinstance(entry, str) else read.mapping(entry, f"boundary.{axis}")
        boundary[axis] = {}
        for field_name, condition in entries.items():
            if condition not in BOUNDARY_CONDITIONS:
                raise read.fail(
                    f"boundary.{axis}",
                    f"unknown condition {condition!r}.{did_you_mean(str(condition), BOUNDARY_CONDITIONS)} "
                    f"Known: {', '.join(BOUNDARY_CONDITIONS)}.",
                )
            if field_name and field_name not in vectors and field_name not in names.dependent:
                raise read.fail(f"boundary.{axis}", f"no field '{field_name}'.{did_you_mean(field_name, vectors)}")
            for component in vectors.get(field_name, {"": field_name}).values():
                boundary[axis][component] = condition
    return boundary


def _read_generator(read: _Reader, name: str, value: Any, names: Names) -> GeneratorDeclaration:
    key = f"generators.{name}"
    entry = read.mapping(value, key, _GENERATOR_KEYS)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise read.fail(key, "names of generators are lower-case words joined by '_'.")
    functions: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for function, of in read.mapping(entry.get("functions") or {}, f"{key}.functions").items():
        where: Any = []
        if isinstance(of, dict):
            said = read.mapping(of, f"{key}.functions.{function}", ("of", "where"))
            of, where = said.get("of"), said.get("where", [])
        variables = tuple(read.texts(of, f"{key}.functions.{function}"))
        for variable in variables:
            if variable not in names.independent:
                raise read.fail(f"{key}.functions.{function}", f"'{variable}' is not an independent variable.")
        functions[function] = (
            variables,
            tuple(read.texts(where, f"{key}.functions.{function}.where")) if where else (),
        )
    try:
        wide = Names(names.independent, names.dependent, names.parameters, tuple(functions))
    except EquationError as error:
        raise read.fail(key, str(error)) from None
    if "field" not in entry:
        raise read.fail(key, "the key 'field' is required: the components by coordinate, such as {x: t, u: 1}.")
    components: dict[str, str] = {}
    trees: dict[str, Expression] = {}
    for coordinate, text in read.mapping(entry["field"], f"{key}.field").items():
        allowed = (*names.independent, *names.dependent, *names.parameters)
        if coordinate not in allowed:
            raise read.fail(
                f"{key}.field",
                f"the equation has no variable '{coordinate}'.{did_you_mean(coordinate, allowed)} Variables: "
                f"{', '.join(allowed)}.",
            )
        components[coordinate] = read.text(text, f"{key}.field.{coordinate}")
        trees[coordinate] = read.parsed(components[coordinate], f"{key}.field.{coordinate}", wide)
        for node in walk(trees[coordinate]):
            if isinstance(node, Derivative) and node.by and node.field not in functions:
                raise read.fail(
                    f"{key}.field.{coordinate}",
                    f"contains the derivative {node.text}; only point symmetries are supported.",
                )
    if not components:
        raise read.fail(f"{key}.field", "no component is given.")
    if functions and not entry.get("members"):
        raise read.fail(key, "a generator with arbitrary functions needs 'members', such as {galilean_boost_x: t}.")
    members: dict[str, dict[str, str]] = {}
    for member, choice in read.mapping(entry.get("members") or {}, f"{key}.members").items():
        place = f"{key}.members.{member}"
        if not functions:
            raise read.fail(place, "members need 'functions'.")
        if not isinstance(choice, dict):
            choice = {next(iter(functions)): choice}
        members[member] = {}
        for function, text in read.mapping(choice, place, set(functions)).items():
            members[member][function] = read.text(text, place)
            tree = read.parsed(members[member][function], place, names)
            for node in walk(tree):
                if isinstance(node, Derivative):
                    raise read.fail(
                        place, f"contains the field {node.text}; a member is a function of t, x and parameters."
                    )
        if set(members[member]) != set(functions):
            raise read.fail(place, f"give all functions: {', '.join(functions)}.")
    strength_max, unit = 0.0, "log"
    if isinstance(strength := entry.get("strength", 0), dict):
        read.mapping(strength, f"{key}.strength", ("max", "unit"))
        strength_max = read.number(strength.get("max", 0), f"{key}.strength.max")
        unit = read.text(strength.get("unit", "log"), f"{key}.strength.unit")
        if unit not in STRENGTH_UNITS:
            raise read.fail(
                f"{key}.strength.unit",
                f"unknown unit '{unit}'.{did_you_mean(unit, STRENGTH_UNITS)} Known: {', '.join(STRENGTH_UNITS)}.",
            )
    else:
        strength_max = read.number(strength, f"{key}.strength")
    kind = entry.get("kind")
    if kind not in (None, "SYM", "EQV"):
        raise read.fail(f"{key}.kind", f"expected SYM or EQV, found {kind!r}.")
    return GeneratorDeclaration(
        name, components, trees, functions, members, strength_max, unit, kind, f"{read.file}: {key}"
    )


def _check_unique(read: _Reader, declarations: Sequence[GeneratorDeclaration]) -> None:
    seen: set[str] = set()
    for declaration in declarations:
        for name in declaration.members or (declaration.name,):
            if name in seen:
                raise read.fail(f"generators.{declaration.name}", f"the name '{name}' is used twice.")
            seen.add(name)
