"""The text of an equation as a tree: a small grammar of its own, so that no text is ever executed.

    equation   = sum [ "=" sum ]
    sum        = [sign] product { ("+" | "-") product }
    product    = power { ("*" | "/") power }           the divisor is a number
    power      = atom [ "**" integer ]                 0 <= integer <= 16
    atom       = number | name | "(" sum ")" [ "_" letters ] | sign power

``(u**2*u_x)_x`` is the total derivative of the bracket. A name is an independent variable, a parameter, a field, an
arbitrary function, or a derivative such as ``u_xx``.
Numbers are exact: ``0.1`` is one tenth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pdessl.equations.expression import (
    Derivative,
    Expression,
    Names,
    Number,
    Power,
    Variable,
    negative,
    product_of,
    sum_of,
    total_derivative,
    walk,
)
from pdessl.errors import EquationError, did_you_mean

__all__ = ["infer_names", "parse_equation", "parse_expression"]

# Bounds on what a text may ask for, far above any textbook PDE; they keep hostile text from costing time or memory.
MAX_LENGTH = 10_000  # characters
MAX_NAME = 100  # characters of a name or a number
MAX_NESTING = 40  # parentheses
MAX_DEGREE = 16  # total degree of a term, and order of a derivative
MAX_TERMS = 5_000  # terms after expansion
MAX_BITS = 256  # size of a number


def _caret(text: str, at: int) -> str:
    """The line of ``text`` that holds position ``at``, with a caret below it; long lines are cut around the place."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    line, column = text[start : len(text) if end < 0 else end], at - start
    if len(line) > 100:
        cut = max(0, column - 50)
        line, column = line[cut : cut + 100], column - cut
    line = "".join(c if c.isprintable() else "?" for c in line)
    return f"\n    {line}\n    {' ' * column}^"


def _fail(text: str, at: int, message: str) -> EquationError:
    return EquationError(f"{message}{_caret(text, at)}")


_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<subscript>(?<=\))_[A-Za-z]+)"
    r"|(?P<operator>\*\*|//|[-+*/()=^])"
)
_OPERATORS = ("diff", "derivative", "d")
_CALL = re.compile(r"\b(?P<name>diff|Diff|derivative|Derivative|D|d)\s*\([^()]*$")
_METHOD = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_]*)\s*\.\s*diff\b")
_SPACE = re.compile(r"[ \t\r\n]+")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    if not isinstance(text, str):
        raise EquationError(f"an equation is text, found {type(text).__name__}: {text!r:.60}")
    if len(text) > MAX_LENGTH:
        raise EquationError(f"the text has {len(text)} characters, at most {MAX_LENGTH} are read.")
    tokens, at = [], 0
    while at < len(text):
        if space := _SPACE.match(text, at):
            at = space.end()
            continue
        found = _TOKEN.match(text, at)
        if not found:
            if text[at] in "∂∇Δ∆":
                raise _fail(
                    text,
                    at,
                    f"'{text[at]}' is not read; write derivatives with '_': u_t for the first in t, u_xx for the "
                    "second in x.",
                )
            if text[at] == "," and (called := _CALL.search(text, 0, at)):
                raise _fail(
                    text,
                    called.start(),
                    f"'{called.group('name')}(...)' is not read; write derivatives with '_': u_t for diff(u, t), u_xx "
                    "for diff(u, x, 2).",
                )
            if text[at] == "." and (method := _METHOD.search(text)) and method.start() < at < method.end():
                raise _fail(
                    text,
                    method.start(),
                    f"'{method.group('name')}.diff(...)' is not read; write derivatives with '_': u_t for u.diff(t), "
                    "u_xx for u.diff(x, 2).",
                )
            advice = " Write Greek letters out in ASCII: nu." if text[at].isalpha() else ""
            if text[at] == "_" and text[:at].rstrip().endswith(")"):
                advice = " The derivative of a bracket is written without a space, its variables by letters: (u*v)_x."
            raise _fail(text, at, f"unexpected character {text[at]!r}.{advice}")
        kind = str(found.lastgroup)
        if found.group() == "^":
            raise _fail(text, at, "'^' is not a power here; write '**'.")
        if found.group() == "//":
            raise _fail(text, at, "'//' is a division that rounds down; write '/'.")
        if len(found.group()) > MAX_NAME:
            raise _fail(text, at, f"a {kind} of {len(found.group())} characters; at most {MAX_NAME} are read.")
        tokens.append(_Token(kind, found.group(), at))
        at = found.end()
    return [*tokens, _Token("end", "", len(text))]


def _number(token: _Token, text: str) -> Fraction:
    mantissa, _, exponent = token.text.lower().partition("e")
    if len(mantissa) > 60 or len(exponent) > 4 or abs(int(exponent or 0)) > 60:
        raise _fail(
            text,
            token.at,
            f"the number {token.text[:20]}... is out of range; at most 60 digits and powers of ten up to 60.",
        )
    return Fraction(token.text)


class _Parser:
    """Recursive descent; also bounds degree and number of terms, so that expansion later is cheap."""

    def __init__(self, text: str, names: Names) -> None:
        self.text, self.names = text, names
        self.tokens = _tokens(text)
        self.next = 0
        self.nesting = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def accept(self, *operators: str) -> _Token | None:
        token = self.token
        if token.kind == "operator" and token.text in operators:
            self.next += 1
            return token
        return None

    def fail(self, message: str, token: _Token | None = None) -> EquationError:
        return _fail(self.text, (token or self.token).at, message)

    # Each rule returns the tree with bounds on its degree and number of terms: (tree, degree, terms).
    def sum(self) -> tuple[Expression, int, int]:
        sign, terms, degree, count = 1, [], 0, 0
        start = self.token
        while operator := self.accept("+", "-"):
            sign = -sign if operator.text == "-" else sign
        while True:
            term, d, n = self.product()
            terms.append(negative(term) if sign < 0 else term)
            degree, count = max(degree, d), count + n
            operator = self.accept("+", "-")
            if not operator:
                break
            sign = -1 if operator.text == "-" else 1
            while operator := self.accept("+", "-"):
                sign = -sign if operator.text == "-" else sign
        self.bound(start, degree, count)
        return self.folded(sum_of(terms), start), degree, count

    def product(self) -> tuple[Expression, int, int]:
        start = self.token
        first, degree, count = self.power()
        factors = [first]
        while operator := self.accept("*", "/"):
            at = self.token
            factor, d, n = self.power()
            if operator.text == "/":
                if not isinstance(factor, Number):
                    raise self.fail(
                        "division by something that is not a number; the coefficients must be polynomial. "
                        "Multiply the equation by it (u_t = u_rr + u_r/r is r*u_t = r*u_rr + u_r), or declare a "
                        "variable for the quotient.",
                        at,
                    )
                if factor.value == 0:
                    raise self.fail("division by zero.", at)
                factor = Number(1 / factor.value)
            factors.append(factor)
            degree, count = degree + d, count * n
            self.bound(start, degree, count)
        return self.folded(product_of(factors), start), degree, count

    def power(self) -> tuple[Expression, int, int]:
        start = self.token
        base, degree, count = self.atom()
        if not self.accept("**"):
            return base, degree, count
        at = self.token
        if at.kind == "operator" and at.text == "-":
            raise self.fail(
                "a negative power is not polynomial; multiply the equation out, or declare a variable for the quotient."
            )
        if at.kind != "number" or not at.text.isdigit() or len(at.text) > 3 or int(at.text) > MAX_DEGREE:
            raise self.fail(
                f"the exponent must be a whole number from 0 to {MAX_DEGREE}, found "
                f"{at.text or 'the end of the text'!r}."
            )
        self.next += 1
        if self.token.text == "**":
            raise self.fail("a tower of powers is not polynomial notation; use parentheses.")
        exponent = int(at.text)
        count = math.comb(count + exponent - 1, exponent) if count < MAX_TERMS else MAX_TERMS + 1
        self.bound(start, degree * exponent, count)
        if isinstance(base, Number):
            return self.folded(Number(base.value**exponent), start), 0, 1
        return (
            (base if exponent == 1 else Number(Fraction(1)) if exponent == 0 else Power(base, exponent)),
            degree * exponent,
            count,
        )

    def atom(self) -> tuple[Expression, int, int]:
        token = self.token
        if token.kind == "number":
            self.next += 1
            if self.token.kind in ("name", "number") or self.token.text == "(":
                raise self.fail(f"an operator is missing; write '{token.text}*{self.token.text}'.")
            return self.folded(Number(_number(token, self.text)), token), 0, 1
        if token.kind == "name":
            self.next += 1
            if self.token.text == "(" and token.text.lower() in _OPERATORS and token.text not in self.names.all:
                raise self.fail(
                    f"'{token.text}(...)' is not read; write derivatives with '_': u_t for diff(u, t), u_xx for "
                    "diff(u, x, 2).",
                    token,
                )
            if self.token.text == "(":
                raise self.fail(
                    f"'{token.text}(...)' reads as a function call; the coefficients must be polynomial. For a "
                    f"product write '{token.text}*(...)'.",
                    token,
                )
            if self.token.kind in ("name", "number"):
                raise self.fail(f"an operator is missing between '{token.text}' and '{self.token.text}'.")
            return self.name(token), 1, 1
        if self.accept("("):
            self.nesting += 1
            if self.nesting > MAX_NESTING:
                raise self.fail(f"more than {MAX_NESTING} nested parentheses.", token)
            inside = self.sum()
            if not self.accept(")"):
                raise self.fail(
                    f"expected ')', found {self.token.text or 'the end of the text'!r}; this '(' is not closed.", token
                )
            self.nesting -= 1
            if self.token.kind == "subscript":
                inside = self.differentiated(*inside, token)
            if self.token.kind in ("name", "number") or self.token.text == "(":
                raise self.fail("an operator is missing after ')'; write '*' for a product.")
            return inside
        if signs := self.accept("-", "+"):
            minus = signs.text == "-"
            while operator := self.accept("-", "+"):
                minus ^= operator.text == "-"
            tree, degree, count = self.power()
            return (negative(tree) if minus else tree), degree, count
        found = f"'{token.text}'" if token.text else "the end of the text"
        raise self.fail(f"expected a number, a name or '(', found {found}.")

    def differentiated(self, tree: Expression, degree: int, count: int, start: _Token) -> tuple[Expression, int, int]:
        """The total derivative of a bracket by the letters of the subscript that follows it."""
        token = self.token
        self.next += 1
        for i, letter in enumerate(token.text[1:]):
            if letter not in self.names.independent:
                raise _fail(
                    self.text,
                    token.at + 1 + i,
                    f"'{letter}' in ')_{token.text[1:]}' is not an independent variable. Independent variables: "
                    f"{', '.join(self.names.independent)}.",
                )
            count *= max(1, degree)  # the product rule: as many terms as factors
            self.bound(start, degree, count)
            tree = total_derivative(tree, letter, self.names.independent)
        if any(isinstance(node, Derivative) and len(node.by) > MAX_DEGREE for node in walk(tree)):
            raise self.fail(f"a derivative of order above {MAX_DEGREE}; no higher one is read.", token)
        return tree, degree, count

    def name(self, token: _Token) -> Expression:
        names, text = self.names, token.text
        if text in names.independent or text in names.parameters:
            return Variable(text)
        fields = (*names.dependent, *names.functions)
        if text in fields:
            return Derivative(text)
        head, underscore, letters = text.partition("_")
        if underscore and head in fields:
            if not letters:
                raise self.fail(
                    f"'{text}' ends in '_'; a derivative names its variables, such as {head}_{names.independent[-1]}.",
                    token,
                )
            for i, letter in enumerate(letters):
                if letter not in names.independent:
                    raise _fail(
                        self.text,
                        token.at + len(head) + 1 + i,
                        f"'{letter}' in '{text}' is not an independent variable. Independent variables: "
                        f"{', '.join(names.independent)}.",
                    )
            if len(letters) > MAX_DEGREE:
                raise self.fail(f"a derivative of order {len(letters)}; at most {MAX_DEGREE} is read.", token)
            return Derivative(head, tuple(sorted(letters, key=names.independent.index)))
        raise self.fail(
            f"unknown name '{text:.40}'.{did_you_mean(text, names.all)} Known names: {', '.join(names.all)}. "
            "A constant of the equation must be declared as a parameter.",
            token,
        )

    def bound(self, token: _Token, degree: int, count: int) -> None:
        if degree > MAX_DEGREE:
            raise self.fail(f"a term of degree {degree}; at most {MAX_DEGREE} is read.", token)
        if count > MAX_TERMS:
            raise self.fail(f"more than {MAX_TERMS} terms after expansion.", token)

    def folded(self, tree: Expression, token: _Token) -> Expression:
        if (
            isinstance(tree, Number)
            and max(tree.value.numerator.bit_length(), tree.value.denominator.bit_length()) > MAX_BITS
        ):
            raise self.fail(f"a number of more than {MAX_BITS} bits.", token)
        return tree

    def finish(self) -> None:
        if self.token.kind != "end":
            if self.token.text == ")":
                raise self.fail("this ')' has no '('.")
            raise self.fail(f"expected the end of the text, found '{self.token.text}'.")


def parse_expression(text: str, names: Names) -> Expression:
    """Read an expression in the declared names.

    Raises:
        EquationError: the text is not a polynomial expression in these names; the message shows the place.
    """
    parser = _Parser(text, names)
    tree, _, _ = parser.sum()
    if parser.token.text == "=":
        raise parser.fail("an expression is expected here, not an equation.")
    parser.finish()
    return tree


def parse_equation(text: str, names: Names) -> Expression:
    """Read ``lhs = rhs``, or an expression that is equal to zero; returns lhs - rhs.

    Raises:
        EquationError: the text is not a polynomial equation in these names; the message shows the place.
    """
    parser = _Parser(text, names)
    left, _, _ = parser.sum()
    equals = parser.accept("=")
    if equals:
        right, _, _ = parser.sum()
        if parser.token.text == "=":
            raise parser.fail("a second '=' in one equation.")
        left = sum_of([left, negative(right)]) if right != Number(Fraction(0)) else left
    parser.finish()
    if not any(isinstance(node, Derivative) and node.by for node in walk(left)):
        raise _fail(text, 0, "no derivative in this equation; write derivatives as u_t, u_xx.")
    return left


def infer_names(texts: Sequence[str], parameters: Iterable[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Guess independents and fields of equations from their derivatives (``u_xx``: field u, variable x).

    Returns:
        (independent, dependent): time first, if the texts name it, then space in alphabetical order; fields in order of
        appearance.
    """
    known = set(parameters)
    letters: set[str] = set()
    fields: dict[str, None] = {}
    for text in texts:
        for token in _tokens(text):
            head, underscore, by = token.text.partition("_")
            if token.kind == "name" and underscore and by.isalpha() and token.text not in known:
                fields.setdefault(head)
                letters.update(by)
            elif token.kind == "subscript":
                letters.update(by)
            elif token.text == "t" and "t" not in known:
                letters.add("t")
    # A stationary equation has no time: with one, every symmetry times any function of it would be counted too.
    return tuple(sorted(letters, key=lambda letter: (letter != "t", letter))), tuple(fields)
