"""The parser of equation text: what it accepts, and where it points when it does not."""

import random
import time
from fractions import Fraction

import pytest

from pdessl.equations.expression import (
    Derivative,
    Names,
    Number,
    Power,
    Product,
    Sum,
    Variable,
    evaluate,
)
from pdessl.equations.parser import MAX_LENGTH, infer_names, parse_equation, parse_expression
from pdessl.errors import EquationError

NAMES = Names(("t", "x", "y"), ("u", "v"), ("nu", "a_0"), ("f",))


def value(text, **numbers):
    """Evaluate an expression by Fractions; derivatives take the number given under their own text."""

    def leaf(node):
        if isinstance(node, Number):
            return node.value
        return Fraction(numbers[node.name if isinstance(node, Variable) else node.text])

    return evaluate(parse_expression(text, NAMES), leaf)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2*3", 7),
        ("-2**2", -4),
        ("(-2)**2", 4),
        ("2*-3", -6),
        ("1 - 2 - 3", -4),
        ("12/2/3", 2),
        ("0.1 + 1e-1", Fraction(1, 5)),
        ("1/3", Fraction(1, 3)),
        ("--2", 2),
        ("2**3*2", 16),
        ("+4 - -1", 5),
        (".5*2.", 1),
        ("x**0 + 1", 2),
        ("nu*(x - t)**2", 12),
        ("a_0*u_xx", 35),
        ("-x*f_tt", -22),
    ],
)
def test_arithmetic_is_that_of_python_and_exact(text, expected):
    numbers = {"x": 2, "t": 0, "nu": 3, "a_0": 5, "u_xx": 7, "f_tt": 11}
    assert value(text, **numbers) == expected


def test_the_tree_of_a_small_expression():
    assert parse_expression("u*v_yx - 3*nu**2", NAMES) == Sum(
        (
            Product((Derivative("u"), Derivative("v", ("x", "y")))),
            Product((Number(Fraction(-3)), Power(Variable("nu"), 2))),
        )
    )


def test_letters_of_a_derivative_commute():
    assert parse_expression("u_yxt", NAMES) == parse_expression("u_txy", NAMES) == Derivative("u", ("t", "x", "y"))


def test_left_equals_right_means_their_difference():
    numbers = {"u_t": 2, "u_x": 3}
    tree = parse_equation("u_t + 1 = 4*u_x", NAMES)
    assert evaluate(tree, lambda n: n.value if isinstance(n, Number) else Fraction(numbers[n.text])) == 2 + 1 - 12
    assert parse_equation("u_t = 0", NAMES) == Derivative("u", ("t",))


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("u_t + vv*u_x", 6, "unknown name 'vv'.*Did you mean 'v'"),
        ("u_t + u*u_xz", 11, "'z' in 'u_xz' is not an independent"),
        ("u_t + sin(u)", 6, "function call"),
        ("u_t + u_x/u", 10, "not a number"),
        ("u_t + u_x/0", 10, "division by zero"),
        ("u_t + (u*u_x)_xq", 15, "'q' in '\\)_xq' is not an independent variable. Independent variables: t, x"),
        ("u_t + u_x//2", 9, "rounds down; write '/'"),
        ("u_t + u^2", 7, "write '\\*\\*'"),
        ("u_t + u**-1", 9, "negative power"),
        ("u_t + u**0.5", 9, "whole number"),
        ("u_t + u**nu", 9, "whole number"),
        ("u_t + u**2**2", 10, "tower"),
        ("u_t + 2u_x", 7, "operator is missing"),
        ("u_t + u u_x", 8, "operator is missing"),
        ("u_t + (u)(u_x)", 9, "operator is missing"),
        ("u_t + (u_x", 6, "not closed"),
        ("u_t + u_x)", 9, "has no '\\('"),
        ("u_t +", 5, "end of the text"),
        ("u_t = u_x = 0", 10, "second '='"),
        ("", 0, "end of the text"),
        ("u*v", 0, "no derivative"),
        ("u_t + ν*u_xx", 6, "Greek letters"),
        ("u_t + u_", 6, "ends in '_'"),
        ("u_t; import os", 3, "unexpected character"),
        ("u_t + u.__class__", 7, "unexpected character"),
        ("u_t + lambda", 6, "unknown name 'lambda'"),
        ("u_t + 1e99", 6, "out of range"),
        ("u_t + u**17", 9, "whole number from 0 to 16"),
        ("u_t + (u**16)**16", 6, "degree 256"),
        ("u_t + (u+v+x+y+t+nu+1)**16", 6, "terms after expansion"),
        ("u_t + " + "9" * 70, 6, "out of range"),
        ("u_t + ((9**16)**16)**16", 7, "bits"),
    ],
)
def test_errors_point_at_the_place(text, place, message):
    with pytest.raises(EquationError, match=message) as caught:
        parse_equation(text, NAMES)
    caret = str(caught.value).splitlines()[-1]
    assert caret.index("^") - 4 == place


def test_a_long_line_is_cut_around_the_place():
    with pytest.raises(EquationError) as caught:
        parse_equation("u_t" + " + u*u_x" * 60 + " + q + u" + " + u*u_x" * 60, NAMES)
    *_, line, caret = str(caught.value).splitlines()
    assert line[caret.index("^")] == "q" and len(line) < 120


def test_names_are_checked():
    with pytest.raises(EquationError, match="declared twice"):
        Names(("t", "x"), ("u",), ("u",))
    with pytest.raises(EquationError, match="single letter"):
        Names(("t", "xx"), ("u",))
    with pytest.raises(EquationError, match="must not contain '_'"):
        Names(("t", "x"), ("u_1",))
    with pytest.raises(EquationError, match="reads like a derivative"):
        Names(("t", "x"), ("u",), ("u_0",))
    with pytest.raises(EquationError, match="ASCII"):
        Names(("t", "x"), ("u",), ("ν",))


def test_names_are_guessed_from_derivatives():
    assert infer_names(["u_t + a*u*u_x + d*u_xxx"], ["a", "d"]) == (("t", "x"), ("u",))
    assert infer_names(["v_t = p_y + u_zz", "u_x"]) == (("t", "x", "y", "z"), ("v", "p", "u"))
    assert infer_names(["u_t = a_0*u_x"], ["a_0"]) == (("t", "x"), ("u",))


SINGLE = "u v x t nu f 1 2.5 1e3 0 + - * / ** = ( ) _ . , ; : ' [ ] { } @ # $ % & | ! ? ~ ` < > é ∂ 𝑢 ²"


def hostile_texts(count):
    draw = random.Random(5)
    pieces = [
        *SINGLE.split(),
        '"', "\\", " ", "\n", "\t", "\x00", "\x7f",
        "u_t", "u_xx", "f_tt", "__import__('os')", "eval(", "lambda:", "().__class__", "9" * 500, "**" * 40, "(" * 500,
        ")" * 30, "-" * 900, "1e999999999", "u" * 300, "u_" + "x" * 200, "(u+v+x)**16", "((9**16)**16)", "\ud800",
    ]  # fmt: skip
    for _ in range(count):
        kind = draw.random()
        if kind < 0.6:
            yield "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 30)))
        elif kind < 0.8:
            yield "".join(chr(draw.randrange(1, 0x250)) for _ in range(draw.randrange(1, 80)))
        else:  # a valid equation with one piece struck or put in
            text = "u_t + u*(u_x - 2*v_y)**2 = nu*(u_xx + u_yy) - 1/3*x"
            at = draw.randrange(len(text))
            yield text[:at] + draw.choice(["", draw.choice(pieces)]) + text[at + draw.randrange(3) :]


def test_hostile_text_gives_an_equation_error_or_a_tree():
    read = refused = 0
    slowest = 0.0
    for text in hostile_texts(4000):
        start = time.process_time()
        try:
            parse_equation(text, NAMES)
            read += 1
        except EquationError as error:
            assert len(str(error)) < 1500, "the message quotes too much of the text"
            refused += 1
        slowest = max(slowest, time.process_time() - start)
    assert read > 100 and refused > 2000  # both kinds occur, so the test says something
    assert slowest < 1.0, "one short text must not cost a second"


@pytest.mark.parametrize("text", [None, 3, b"u_t", ["u_t"]])
def test_only_text_is_read(text):
    with pytest.raises(EquationError, match="is text"):
        parse_equation(text, NAMES)


def test_very_long_and_very_deep_texts_are_refused():
    with pytest.raises(EquationError, match="characters"):
        parse_equation("u_t" + "+u" * MAX_LENGTH, NAMES)
    with pytest.raises(EquationError, match="nested"):
        parse_equation("(" * 3000 + "u_t" + ")" * 3000, NAMES)
    with pytest.raises(EquationError, match="nested|end of the text"):
        parse_equation("-(" * 3000 + "u_t", NAMES)
