"""Letters to the power -1 among polynomials: an equation such as r*u_t = r*u_rr + u_r is solved by dividing by r."""

from __future__ import annotations

from collections.abc import Iterator

from pdessl.equations import Equation
from pdessl.symmetry.polynomial import BITS, JetSpace, Multiindex, Polynomial

__all__ = ["Reciprocals", "names_of_reciprocals"]


def names_of_reciprocals(equation: Equation) -> tuple[str, ...]:
    """Names of the fields ``1/r`` that a jet space of the equation needs, one per letter."""
    return tuple(f"1/{letter}" for letter in (*equation.independent, *equation.parameters))


class Reciprocals:
    """Variables w = 1/r of letters r that are not 0, made on first use.

    In a jet space w is a field with the rules w_r = -w**2 and, by every other independent, 0; r*w = 1 is applied to
    monomials by :meth:`cancelled`, which makes the form of a rational function with such a denominator unique.

    Args:
        space: a jet space whose last fields are those of :func:`names_of_reciprocals`.
    """

    def __init__(self, space: JetSpace) -> None:
        self.space = space
        self._letters: dict[int, int] = {}  # number of w -> number of r

    def __len__(self) -> int:
        return len(self._letters)

    def __contains__(self, number: object) -> bool:
        return number in self._letters

    def __iter__(self) -> Iterator[int]:
        return iter(self._letters)

    def letter(self, number: int) -> int:
        """The number of the letter r of a variable 1/r."""
        return self._letters[number]

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters r by name."""
        return tuple(self.space.letters[k] for k in self._letters.values())

    def of(self, number: int) -> int:
        """The number of 1/r for the number of a letter r, or of r for that of 1/r."""
        space = self.space
        if number in self._letters:
            return self._letters[number]
        w = space.jet(len(space.fields) - space.base + number, space.zero_index)
        self._letters[w] = number
        return w

    def rules(self) -> dict[tuple[int, Multiindex], Polynomial]:
        """The first derivatives of the variables."""
        space = self.space
        return {
            (space.derivative(w)[0], step): {2 * space.units[w]: -1} if axis == letter else {}
            for w, letter in self._letters.items()
            for axis, step in enumerate(space.axis_units)
        }

    def cancelled(self, monomial: int) -> int:
        """The monomial with r*(1/r) = 1."""
        for w, letter in self._letters.items():
            both = min((monomial >> (BITS * w)) & 31, (monomial >> (BITS * letter)) & 31)
            monomial -= both * (self.space.units[w] + self.space.units[letter])
        return monomial
