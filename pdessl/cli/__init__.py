"""The command ``pdessl``: one subcommand per verb. Each only parses, calls a documented Python function, and prints."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from pdessl.errors import PdesslError, StoreError, did_you_mean
from pdessl.written import say, visible

__all__ = ["VERBS", "main"]

# Verb -> (module, one line of help). A module is imported only when its verb runs, so that --help answers at once.
VERBS = {
    "quickstart": ("pdessl.cli.quickstart", "the whole pipeline on a laptop CPU in minutes, ending in a report"),
    "list": ("pdessl.cli.catalogs", "the equations, datasets and recipes there are by name"),
    "symmetries": (
        "pdessl.cli.symmetries",
        "the symmetry algebra of an equation: generators, flows, what moves parameters",
    ),
    "generate": ("pdessl.cli.generate", "simulate a dataset into a store on disk"),
    "inspect": ("pdessl.cli.inspection", "what is in a store or file: fields, grid, parameters and their ranges"),
    "convert": ("pdessl.cli.convert", "files of any layout into a store, or into The Well's layout"),
    "discover": ("pdessl.cli.discover", "the law that unlabelled runs obey, and the numbers in it that differ"),
    "pretrain": ("pdessl.cli.pretrain", "train an encoder without labels, from a recipe"),
    "regress": ("pdessl.cli.regress", "a physical parameter from few labels, beside its floors"),
    "predict": ("pdessl.cli.predict", "a parameter with an interval for each new run, from a saved model"),
    "timestep": ("pdessl.cli.timestep", "a time-stepping network with and without conditioning, and its rollouts"),
    "surprise": (
        "pdessl.cli.surprise",
        "when new runs stop doing what a law or a stepper foresees, with an alarm",
    ),
    "plan": ("pdessl.cli.plan", "steer a controlled PDE by planning ahead, beside its floors"),
    "design": (
        "pdessl.cli.design",
        "the experiment that decides between hypotheses, in a laboratory or the solver",
    ),
    "study": ("pdessl.cli.study", "many pretrainings, seeds and floors in one table"),
    "report": ("pdessl.cli.report", "the figures and tables of a run as one HTML file"),
}


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {line}" for verb, (_, line) in VERBS.items())
    return (
        "pdessl: self-supervised learning on PDE simulations, with views made by the equation's own symmetries.\n\n"
        f"Usage: pdessl VERB [options]\n\n{verbs}\n\n"
        "'pdessl VERB --help' explains a verb. Start with:  pdessl quickstart"
    )


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(_overview())
        return 0
    verb, *rest = arguments
    if verb in ("-V", "--version"):
        from pdessl import __version__

        say(f"pdessl {__version__}")
        return 0
    if verb not in VERBS:
        raise PdesslError(f"no verb '{verb}'.{did_you_mean(verb, VERBS)} Verbs: {', '.join(VERBS)}.")
    # Read when torch is first loaded. Threads that spin for long while they wait for each other slow a busy machine
    # down, and threads that never spin a quiet one; this many turns serve both.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    return int(importlib.import_module(VERBS[verb][0]).main(rest) or 0)


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except OSError:
        raise StoreError("the working folder was deleted; change to one that exists (cd) and run it again.") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: the words after ``pdessl``; default those of the process.

    Returns:
        0, or 2 for an error the user can repair (one line on stderr, no traceback), or 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # Greek letters on a terminal that has none
    worded = warnings.formatwarning
    warnings.formatwarning = lambda *a, **k: visible(worded(*a, **k), keep="\n\t")
    try:
        _check_working_folder()
        return _run(sys.argv[1:] if arguments is None else arguments)
    except PdesslError as error:
        # What is quoted may come from a file by a stranger.
        say(f"{type(error).__name__}: {error}", file=sys.stderr)
    except BrokenPipeError:
        # `pdessl list | head`: the reader has gone. Keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A full disk, a read-only folder, a missing file: the system's words and the file are all there is to say.
        where = f": {error.filename}" if error.filename else ""
        say(f"{type(error).__name__}: {error.strerror or error}{where}", file=sys.stderr)
    except MemoryError as error:
        said = " ".join(str(error).split())[:200]
        say(f"MemoryError: more memory is needed than there is{f' ({said})' if said else ''}.", file=sys.stderr)
    except KeyboardInterrupt:
        say("interrupted", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = worded
    return 2
