"""A PDE system read from text, and the file format that carries its declared symmetries."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdessl import catalog
from pdessl.equations.expression import (
    Derivative,
    Expression,
    Names,
    infer_names,
    parse_equation,
    parse_expression,
    walk,
)
from pdessl.errors import EquationError, SchemaError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from pdessl.trajectory import Trajectories

__all__ = ["BOUNDARY_CONDITIONS", "STRENGTH_UNITS", "Equation", "GeneratorDeclaration", "load_equation"]

# How the size of a strength is measured on the window that is augmented:
STRENGTH_UNITS = {
    "window": "shift of t or x as a fraction of the window",
    "window_displacement": "largest displacement inside the window as a fraction of the window",
    "log": "logarithm of the factor (the strength itself)",
    "angle": "radians",
    "window_angle": "largest angle inside the window, radians",
    "window_time": "strength times the duration of the window",
    "std": "shift of the field in standard deviations of that field",
}

BOUNDARY_CONDITIONS = ("periodic", "noslip", "dirichlet", "zero_gradient", "window")


@dataclass(frozen=True)
class GeneratorDeclaration:
    """One entry of ``generators:`` in an equation file, before anything is verified.

    Args:
        name: human name, the stable key in recipes and logs.
        components: coordinate -> component text; coordinates that are absent have component 0.
        trees: the same, parsed.
        functions: arbitrary function -> (its variables, texts of the equations it obeys).
        members: name of a member -> {function: text}; empty for a generator without arbitrary functions.
        strength_max: largest strength in ``strength_unit``; 0: known, not used unless asked for.
        strength_unit: one of :data:`STRENGTH_UNITS`.
        kind: an optional assertion, ``SYM`` or ``EQV``.
        source: ``file: generators.name`` for messages.
    """

    name: str
    components: Mapping[str, str]
    trees: Mapping[str, Expression]
    functions: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    strength_max: float = 0.0
    strength_unit: str = "log"
    kind: str | None = None
    source: str = ""


@dataclass(frozen=True, eq=False)
class Equation:
    """A system of polynomial PDEs.

    Made by :meth:`parse` from text, or by :func:`load_equation` from a file of ``symmetries/``.

    Args:
        name: name in the catalog; ``equation`` when typed in.
        title: one line for people.
        independent: time and space letters, ``("t", "x")``.
        dependent: the fields, ``("u",)``.
        parameters: letters of the constants, ``("nu",)``.
        texts: the equations as they were written.
        trees: the equations as trees, each equal to zero.
        parameter_names: letter -> the name users see, ``{"nu": "viscosity"}``.
        parameter_units: letter -> unit text; letters without one are absent.
        positive: letters of the parameters that are positive.
        observed: the fields a network sees; all by default.
        vectors: field of tensor rank 1 or 0 -> {axis: component} or {"": component}.
        boundary: axis -> field or ``""`` -> condition, as usually solved.
        declarations: the declared generators, in the order in which their flows are composed.
        ansatz: degrees ``{"degree", "parameter_degree"}`` of the discovery.
        references: where it comes from.
        path: the file, if any.
    """

    name: str
    title: str
    independent: tuple[str, ...]
    dependent: tuple[str, ...]
    parameters: tuple[str, ...]
    texts: tuple[str, ...]
    trees: tuple[Expression, ...]
    parameter_names: Mapping[str, str]
    parameter_units: Mapping[str, str] = field(default_factory=dict)
    positive: frozenset[str] = frozenset()
    observed: tuple[str, ...] = ()
    vectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    boundary: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    declarations: tuple[GeneratorDeclaration, ...] = ()
    ansatz: Mapping[str, int] = field(default_factory=lambda: {"degree": 2, "parameter_degree": 1})
    references: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def space(self) -> tuple[str, ...]:
        """The space letters."""
        return tuple(i for i in self.independent if i != "t")

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Everything a generator may move: independents, fields, parameters."""
        return (*self.independent, *self.dependent, *self.parameters)

    @property
    def names(self) -> Names:
        """The names that texts about this equation may use."""
        return Names(self.independent, self.dependent, self.parameters)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The fields that are not observed."""
        return tuple(f for f in self.dependent if f not in self.observed)

    def __repr__(self) -> str:
        return f"Equation({self.name}: {'; '.join(t if '=' in t else f'{t} = 0' for t in self.texts)})"

    @staticmethod
    def parse(
        text: str | Sequence[str],
        *,
        independent: Sequence[str] | None = None,
        dependent: Sequence[str] | None = None,
        parameters: Sequence[str] = (),
        name: str = "equation",
        title: str = "",
    ) -> Equation:
        """Read one equation or a system.

        Args:
            text: ``"u_t + u*u_x = nu*u_xx"``, or a list of such texts; an expression without ``=`` is equal to zero.
            independent: letters of time and space; by default those of the derivatives, ``t`` first.
            dependent: the fields; by default the names that are differentiated, in order of appearance.
            parameters: letters of the constants.
            name: name used in messages.
            title: one line for people.

        Raises:
            EquationError: the text cannot be read; the message shows the place.
        """
        texts = (text,) if isinstance(text, str) else tuple(text)
        if not texts:
            raise EquationError("no equation given; write one such as 'u_t + u*u_x = nu*u_xx'.")
        if isinstance(parameters, str):
            parameters = tuple(p for p in re.split(r"[,\s]+", parameters) if p)
        found_independent, found_dependent = infer_names(texts, parameters)
        if independent is None:
            independent = found_independent
        if dependent is None:
            dependent = found_dependent
        if not dependent:
            raise EquationError(f"no derivative in '{texts[0]:.80}'; write derivatives as u_t, u_xx.")
        names = Names(tuple(independent), tuple(dependent), tuple(parameters))
        trees = tuple(parse_equation(t, names) for t in texts)
        return Equation(
            name=name,
            title=title,
            independent=names.independent,
            dependent=names.dependent,
            parameters=names.parameters,
            texts=texts,
            trees=trees,
            parameter_names={p: p for p in names.parameters},
            observed=names.dependent,
        )

    def symmetries(self, degree: int | None = None, **options: Any) -> Any:
        """Discover the symmetry algebra of this equation; the same as :func:`pdessl.symmetry.discover`.

        Args:
            degree: degree of the components in independents and fields; by default 2, or as the equation file says.
            options: further arguments of :func:`pdessl.symmetry.discover`.

        Returns:
            a :class:`~pdessl.symmetry.SymmetryAlgebra` with its certificate.
        """
        # The symmetry package builds on this one; this convenience resolves it when called, as pdessl itself does.
        return importlib.import_module("pdessl.symmetry").discover(self, degree=degree, **options)

    def residual(self, trajectories: Trajectories) -> tuple[Tensor, ...]:
        """Evaluate every equation on gridded trajectories; see :func:`pdessl.equations.residual.residual`."""
        from pdessl.equations.residual import residual  # needs torch

        return residual(self, trajectories)


# ------------------------------------------------------------------- the file format

_TOP_KEYS = {
    "name", "title", "independent", "dependent", "observed", "parameters", "equations", "boundary", "ansatz",
    "generators", "references",
}  # fmt: skip
_GENERATOR_KEYS = {"field", "members", "strength", "kind", "functions"}


class _Reader:
    """Reads one mapping of a YAML file; every complaint names file and key."""

    def __init__(self, file: str) -> None:
        self.file = file

    def fail(self, key: str, message: str) -> SchemaError:
        return SchemaError(f"{self.file}: {key}: {message}")

    def mapping(self, value: Any, key: str, known: set[str] | None = None) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(key, f"expected a mapping, found {type(value).__name__}.")
        for name in value:
            if not isinstance(name, str):
                raise self.fail(key, f"the key {name!r} is {type(name).__name__}; put it in quotes.")
            if known is not None and name not in known:
                raise self.fail(
                    key, f"unknown key '{name}'.{did_you_mean(name, known)} Known keys: {', '.join(sorted(known))}."
                )
        return value

    def texts(self, value: Any, key: str) -> list[str]:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not value:
            raise self.fail(key, f"expected a list of texts, found {value!r:.60}.")
        return [self.text(v, f"{key}[{i}]") for i, v in enumerate(value)]

    def text(self, value: Any, key: str) -> str:
        # YAML reads the component 1 as an integer and 0.5 as a float; both are texts here.
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.fail(key, f"expected text, found {value!r:.60}.")
        return value if isinstance(value, str) else repr(value)

    def number(self, value: Any, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise self.fail(key, f"expected a number >= 0, found {value!r:.60}.")
        return float(value)

    def integer(self, value: Any, key: str, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"expected a whole number from {low} to {high}, found {value!r:.60}.")
        return value

    def parsed(self, text: str, key: str, names: Names) -> Expression:
        try:
            return parse_expression(text, names)
        except EquationError as error:
            raise SchemaError(f"{self.file}: {key}: {error}") from None


def load_equation(name: str | os.PathLike[str] | Equation) -> Equation:
    """Read an equation file by its name in the catalog or by its path; the generators are read but not yet verified.

    Raises:
        CatalogError: no such name or file.
        SchemaError: the file does not follow the format; the message names file and key.
    """
    if isinstance(name, Equation):
        return name
    path = catalog.find("symmetries", name)
    return _read(catalog.read_yaml(path), path)


def _read(content: dict[str, Any], path: Path) -> Equation:
    read = _Reader(path.name if path.parent.name == "symmetries" else str(path))
    read.mapping(content, "top level", _TOP_KEYS)
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
        entry = read.mapping(value or {}, f"parameters.{letter}", {"name", "unit", "positive"})
        parameter_names[letter] = read.text(entry.get("name", letter), f"parameters.{letter}.name")
        if "unit" in entry:
            units[letter] = read.text(entry["unit"], f"parameters.{letter}.unit")
        if entry.get("positive", False) not in (True, False):
            raise read.fail(f"parameters.{letter}.positive", f"expected true or false, found {entry['positive']!r}.")
        if entry.get("positive", False):
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
    ansatz = read.mapping(content.get("ansatz") or {}, "ansatz", {"degree", "parameter_degree"})
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
        entry = read.mapping(entry, key, {"rank", "components"})
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
            read.mapping(of, f"{key}.functions.{function}", {"of", "where"})
            of, where = of.get("of"), of.get("where", [])
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
        read.mapping(strength, f"{key}.strength", {"max", "unit"})
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
