"""``pdessl symmetries``: the symmetry algebra of an equation of the catalog, or of one typed in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.errors import PdesslError
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.symmetry.find_symmetries`, print (and draw)."""
    parser = Parser(
        "symmetries",
        "Print the symmetries of an equation of the catalog, of a YAML file, or typed in: the vector fields, their\n"
        "flows in closed form, which move parameters (and therefore labels), what the boundary conditions leave of\n"
        "them, discrete reflections, identifiable combinations of parameters, and a certificate of completeness\n"
        "within the polynomial ansatz. A declared vector field that is no symmetry is refused, with its residual.",
        examples=[
            "pdessl symmetries burgers --plot burgers.png",
            "pdessl symmetries navier_stokes_2d --boundary periodic",
            "pdessl symmetries boussinesq --boundary x=periodic,y=noslip --observed u,v",
            'pdessl symmetries --equation "u_t + a*u*u_x + d*u_xxx" --parameters a d --degree 2',
        ],
        python="import pdessl\nfrom pdessl.symmetry import find_symmetries\n"
        "equation = pdessl.Equation.parse('u_t + u*u_x = nu*u_xx', parameters=['nu'])\n"
        "print(find_symmetries(equation, degree=2).text())",
    )
    parser.add_argument("name", nargs="?", help="name from 'pdessl list symmetries', or a YAML file")
    parser.add_argument(
        "--equation", action="append", metavar="TEXT", help="an equation typed in; once per equation of a system"
    )
    parser.add_argument("--parameters", nargs="+", default=[], metavar="LETTER", help="constants of a typed equation")
    parser.add_changes("equation's file", "ansatz.degree=3")
    parser.add_argument("--degree", type=int, help="degree of the ansatz in coordinates and fields (default 2)")
    parser.add_argument(
        "--general",
        action="store_true",
        help="let fields enter every component; default: independents move free of fields, which are linear in theirs",
    )
    parser.add_argument(
        "--boundary",
        metavar="KIND|AXIS=KIND,...",
        help="periodic, noslip (or wall), dirichlet, zero_gradient or window; default as in the equation's file",
    )
    parser.add_argument("--observed", metavar="FIELD,...", help="the fields that are seen; default as in the file")
    parser.add_argument("--json", action="store_true", help="print JSON, for another program to read")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw a trajectory under each generator (png, pdf, svg)"
    )
    parser.add_argument("--data", metavar="PATH", help="store or file whose first trajectory --plot draws")
    options = parser.parse_args(arguments)
    if (options.name is None) == (options.equation is None):
        parser.error("give either a name (or file), or --equation TEXT")
    if options.parameters and options.equation is None:
        parser.error("--parameters belongs to --equation; the files of the catalog declare their own")
    if (options.set or options.print_config) and options.equation is not None:
        parser.error("--set and --print_config are about a file; a typed equation is as it is typed")
    if options.data and not options.plot:
        parser.error("--data says what --plot draws; give --plot FILE too")

    from pdessl import catalog
    from pdessl.equations import Equation, load_equation
    from pdessl.schema import dump_yaml, override
    from pdessl.symmetry import find_symmetries

    if options.equation is None:
        equation = load_equation(options.name, options.set)
    else:
        equation = Equation.parse(options.equation, parameters=options.parameters)
    if options.print_config:
        print(dump_yaml(override(catalog.read("symmetries", options.name), options.set)), end="")
        return 0
    algebra = find_symmetries(equation, degree=options.degree, projectable=not options.general)
    boundary = _boundary(options.boundary)
    observed = None if options.observed is None else [f.strip() for f in options.observed.split(",")]
    if options.json:
        print(json.dumps(algebra.describe(boundary, observed), indent=2))
    else:
        say(algebra.text(boundary, observed))
    if options.plot:
        from pdessl.experiments.orbits import draw

        draw(algebra, options.plot, options.data)
        if not options.json:
            say(f"\nPicture: {options.plot}")
    return 0


def _boundary(text: str | None) -> str | dict[str, str] | None:
    """Read ``periodic`` or ``x=periodic,y=noslip``."""
    if text is None or "=" not in text:
        return text
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise PdesslError(f"--boundary '{text}' is neither one condition nor like x=periodic,y=noslip.")
    return {axis.strip(): condition.strip() for axis, condition in pairs}
