"""Laws of the parser on texts that are drawn: what is written is read back, and nothing but our error comes out."""

import contextlib
from fractions import Fraction

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pdessl.equations import Equation
from pdessl.equations.expression import Derivative, Names, Number, Power, Product, Sum, Variable, evaluate, walk
from pdessl.equations.parser import MAX_DEGREE, MAX_NESTING, infer_names, parse_equation, parse_expression
from pdessl.errors import EquationError

# derandomize: the same texts in every run; no database, no deadline: a busy machine is no failure.
LAW = settings(
    derandomize=True, database=None, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
NAMES = Names(("t", "x", "y"), ("u", "v"), ("nu", "a_0"), ("f",))

numbers = st.fractions(min_value=0, max_value=50, max_denominator=12).map(Number)
letters = st.sampled_from([*NAMES.independent, *NAMES.parameters]).map(Variable)
derivatives = st.builds(
    lambda field, by: Derivative(field, tuple(sorted(by))),
    st.sampled_from([*NAMES.dependent, *NAMES.functions]),
    st.lists(st.sampled_from(NAMES.independent), max_size=3),
)
trees = st.recursive(
    numbers | letters | derivatives,
    lambda inner: (
        st.builds(Sum, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Product, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Power, inner, st.integers(0, 3))
    ),
    max_leaves=8,
)


def written(tree):
    """Text of a tree, with a bracket around everything that has parts: a printer that knows no precedence."""
    match tree:
        case Number(value=value):
            return f"({value})" if value.denominator > 1 else str(value)
        case Variable(name=name):
            return name
        case Derivative():
            return tree.text
        case Sum(terms=terms):
            return f"({' + '.join(map(written, terms))})"
        case Product(factors=factors):
            return f"({' * '.join(map(written, factors))})"
        case Power(base=base, exponent=exponent):
            return f"({written(base)})**{exponent}"


def values(seed):
    """A number for every leaf, the same for the same leaf."""
    held = {}

    def leaf(node):
        if isinstance(node, Number):
            return node.value
        return held.setdefault(node, Fraction(seed + 7 * len(held), 3))

    return leaf


def degree(tree):
    match tree:
        case Sum(terms=terms):
            return max(map(degree, terms))
        case Product(factors=factors):
            return sum(map(degree, factors))
        case Power(base=base, exponent=exponent):
            return degree(base) * exponent
    return 0 if isinstance(tree, Number) else 1


@LAW
@given(trees.filter(lambda tree: degree(tree) <= MAX_DEGREE), st.integers(1, 9))
def test_what_is_written_out_is_read_back(tree, seed):
    read = parse_expression(written(tree), NAMES)
    leaf = values(seed)  # shared: a derivative has the same number in both
    assert evaluate(read, leaf) == evaluate(tree, leaf)
    # Reading is a normal form: once read, writing and reading again changes nothing.
    assert parse_expression(written(read), NAMES) == read


@LAW
@given(trees.filter(lambda tree: degree(tree) < MAX_DEGREE), trees.filter(lambda tree: degree(tree) <= MAX_DEGREE))
def test_an_equation_is_read_back_and_is_its_left_side_minus_its_right(left, right):
    text = f"u_t + nu*{written(left)} = {written(right)}"
    tree = parse_equation(text, NAMES)
    leaf = values(5)
    u_t, nu = (evaluate(parse_expression(name, NAMES), leaf) for name in ("u_t", "nu"))
    assert evaluate(tree, leaf) == u_t + nu * evaluate(left, leaf) - evaluate(right, leaf)
    again = Equation.parse(
        f"{written(tree)} = 0", independent="txy", dependent=("u", "v", "f"), parameters=["nu", "a_0"]
    )
    assert evaluate(again.trees[0], leaf) == evaluate(tree, leaf)
    # Names guessed from the text are among those that were used.
    independent, dependent = infer_names([text], ["nu", "a_0"])
    used = [node for node in walk(tree) if isinstance(node, Derivative)]
    assert {letter for node in used for letter in node.by} <= set(independent)
    assert {node.field for node in used if node.by} <= set(dependent)


hostile = (
    st.text(max_size=60)
    | st.text(alphabet="tuxyvnu_a0123456789.eE+-*/()= \n^,", max_size=60)
    | st.lists(
        st.sampled_from(
            ["u", "u_t", "u_xx", "nu", "x", "(", ")", "+", "-", "*", "/", "**", "=", "2", "0", "1e9", "16"]
        ),
        max_size=25,
    ).map(" ".join)
    | st.sampled_from(["(", "-", "2**", "u**16*", "u_x", "9", "u+", "1/"]).flatmap(
        lambda part: st.integers(1, 12_000).map(lambda n: (part * n)[:12_000])
    )
)


@LAW
@example("__import__('os').system('true')")
@example("u_t = " + "(" * (MAX_NESTING + 1) + "u" + ")" * (MAX_NESTING + 1))
@example("u_t = (u + 1)**16**16")
@example("u_t = 1/0")
@example("u_t = \x00")
@example("u_x" * 300)
@example("9" * 300)
@given(hostile)
def test_hostile_text_ends_in_our_error_or_in_a_tree(text):
    for read in (parse_expression, parse_equation):
        try:
            tree = read(text, NAMES)
        except EquationError as error:
            assert len(str(error)) < 1000  # a message, whatever was given
        else:
            assert all(
                node.field in ("u", "v", "f") if isinstance(node, Derivative) else node.name in NAMES.all
                for node in walk(tree)
                if isinstance(node, Derivative | Variable)
            )
    with contextlib.suppress(EquationError):
        Equation.parse(text)


@LAW
@given(trees.filter(lambda tree: degree(tree) <= 6), st.sampled_from(NAMES.independent), st.integers(1, 9))
def test_the_derivative_of_a_bracket_is_that_of_sympy(tree, letter, seed):
    """Every leaf a function of all independents (and a parameter of none): sympy knows the rules of sum and product."""
    import sympy

    letters = sympy.symbols(NAMES.independent)

    def leaf(node):
        if isinstance(node, Number):
            return sympy.Rational(node.value.numerator, node.value.denominator)
        if isinstance(node, Variable):
            return sympy.Symbol(node.name)
        field = sympy.Function(node.field)(*letters)
        return field.diff(*map(sympy.Symbol, node.by)) if node.by else field

    with contextlib.suppress(EquationError):  # more terms than are read
        found = parse_expression(f"({written(tree)})_{letter}", NAMES)
        difference = evaluate(found, leaf) - sympy.diff(evaluate(tree, leaf), sympy.Symbol(letter))
        assert sympy.expand(difference) == 0
