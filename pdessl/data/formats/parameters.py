"""Physical parameters of the trajectories of a file, from arrays, attributes, the file's name or the mapping."""

# n trajectories of the file

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pdessl.data.formats.container import Container
from pdessl.data.formats.mapping import DatasetMapping, ParameterRule
from pdessl.errors import FormatError

__all__ = ["fixed_parameters", "parameters_of"]

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"


def fixed_parameters(mapping: DatasetMapping) -> dict[str, float]:
    """Return the parameters whose value a mapping sets once for all files, with their values."""
    return {
        name: float(rule.value) ** rule.power * rule.scale
        for name, rule in mapping.parameters.items()
        if rule.value is not None and rule.dataset is None and rule.attribute is None and rule.token is None
    }


def parameters_of(
    container: Container,
    mapping: DatasetMapping,
    prefixes: Sequence[str],
    several: bool,
    stored: int,
    warnings: list[str],
    lacking: dict[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Return ``{name: values}``, each (n,), float64; a parameter that the file does not have is left out.

    Args:
        container: the file.
        mapping: its mapping.
        prefixes: put before the names of arrays, one per trajectory where every run has a group.
        several: every run is a group of its own.
        stored: number of trajectories n.
        warnings: what is odd is added to them.
        lacking: why a parameter that is not optional is left out is added to them.

    Raises:
        FormatError: a parameter is no number or no number per trajectory.
    """
    reader = _Reader(container, list(prefixes), several, stored, warnings, {} if lacking is None else lacking)
    found = {}
    for name, rule in mapping.parameters.items():
        values = reader.parameter(name, rule)
        if values is not None:
            values = _raised(values, rule, f"{container.label}: parameter '{name}'")
            found[name] = values * rule.scale if rule.scale != 1.0 else values
    return found


class _Reader:
    def __init__(
        self,
        container: Container,
        prefixes: list[str],
        several: bool,
        stored: int,
        warnings: list[str],
        lacking: dict[str, str],
    ) -> None:
        self.container, self.prefixes, self.several, self.stored = container, prefixes, several, stored
        self.lacking = lacking
        self.label, self.warnings = container.label, warnings

    def parameter(self, name: str, rule: ParameterRule) -> np.ndarray | None:
        where = f"{self.label}: parameter '{name}'"
        named = None if rule.token is None else _after_token(rule.token, self.container.path)
        if rule.dataset is not None:
            if rule.optional and not all(self._there(p + rule.dataset) for p in self.prefixes):
                return None
            if not any(self._there(p + rule.dataset) for p in self.prefixes):
                self._lacks(name, where, [f"array '{rule.dataset}'"])
                return None
            values = np.array([self._number(p + rule.dataset, where) for p in self.prefixes], dtype=object)
            return np.concatenate(
                [np.broadcast_to(v, (1,) if self.several else (self.stored,)) for v in values]
            ).astype(np.float64)
        value = None if rule.attribute is None else self._attribute(rule, where)
        if isinstance(value, np.ndarray):
            return value
        if value is None:
            value = named
        elif named is not None and abs(named - value) > 1e-6 * abs(value):
            self.warnings.append(
                f"{self.label}: attribute {rule.attribute} is {value:g}, the file's name says {named:g}; the "
                f"attribute is "
                f"taken."
            )
        value = rule.value if value is None else value
        if value is None:
            if rule.optional:
                return None
            looked = [f"attribute '{rule.attribute}'"] if rule.attribute else []
            looked += [f"line '{rule.entry}: NUMBER' in it"] if rule.entry else []
            if rule.token is not None:
                looked += [
                    f"'{rule.token}' in the file's name" if rule.token else "number at the start of the file's name"
                ]
            self._lacks(name, where, looked)
            return None
        return np.full(self.stored, float(value))

    def _there(self, name: str) -> bool:
        return name in self.container.arrays()

    def _lacks(self, name: str, where: str, looked: Sequence[str]) -> None:
        """Note that the file has no such parameter: its runs have no label, unless no file has it."""
        if list(looked) == [f"attribute '{name}'"]:
            found = f"{self.label}: no parameter '{name}', neither as a variable nor as an attribute"
        else:
            found = f"{where}: found no {' and no '.join(looked) or 'rule'}"
        self.lacking[name] = (
            f"{found}. Give it in the mapping, if all runs share a value that you know:  parameters: "
            f"{{{name}: {{value: 0.01}}}}; runs without one are read without it:  parameters: {{}}. "
            f"{self.container.held()}"
        )

    def _attribute(self, rule: ParameterRule, where: str) -> float | np.ndarray | None:
        """Return the number an attribute holds; with a group per run one per run, where the groups have it."""
        if self.several:
            places = [self.container.attributes(prefix + rule.of) for prefix in self.prefixes]
            found = [_number_in(held.get(rule.attribute), rule, where) for held in places]
            if None not in found:
                return np.array(found, dtype=np.float64)
        return _number_in(self.container.attributes(rule.of).get(rule.attribute), rule, where)

    def _number(self, name: str, where: str) -> np.ndarray:
        array = self.container.array(name)
        if array.dtype.kind not in "fiu" or tuple(n for n in array.shape if n != 1) not in ((), (self.stored,)):
            raise FormatError(
                f"{where}: '{name}' is {array.dtype} {array.shape}, expected one number or one per trajectory "
                f"({self.stored},)."
            )
        return self.container.read(name).astype(np.float64).reshape(-1)


def _number_in(value: object, rule: ParameterRule, where: str) -> float | None:
    if rule.entry is not None and isinstance(value, str):
        found = re.search(rf"(?m)^\s*{re.escape(rule.entry)}\s*:\s*({NUMBER})\s*$", value)
        return None if found is None else float(found.group(1))
    if value is not None and not isinstance(value, (int, float)):
        raise FormatError(f"{where}: attribute '{rule.attribute}' is {value!r:.80}, expected a number.")
    return value


def _raised(values: np.ndarray, rule: ParameterRule, where: str) -> np.ndarray:
    if rule.power == 1:
        return values
    if not (values > 0).all():
        raise FormatError(f"{where}: {values.min():g} cannot be raised to {rule.power:g}; expected numbers > 0.")
    return values**rule.power


def _after_token(token: str, path: Path | None) -> float | None:
    """Return the number that follows a text in the file's name, else in its folder's."""
    if path is None:
        return None
    for text in (path.name, path.parent.name):
        before = rf"(?:^|[^A-Za-z]){re.escape(token)}_?" if token else "^"
        found = re.search(rf"{before}({NUMBER})", text)
        if found:
            return float(found.group(1))
    return None
