"""``pdessl pretrain``: train an encoder without labels, from a recipe of the catalog."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]


class _Pretrain(Parser):
    def format_all(self) -> str:
        """Return the help, and that of every key of a pretraining recipe."""
        from pdessl.experiments.pretraining import settings_help

        return f"{self.format_help()}\nKeys of a recipe, for --set KEY=VALUE:\n\n{settings_help()}"


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.experiments.pretraining.pretrain`, print where the encoder is."""
    parser = _Pretrain(
        "pretrain",
        "Train an encoder on unlabelled runs: on pairs of views made by the symmetries of the equation, by predicting\n"
        "the latent of the next window, or of hidden blocks. A recipe names the task, and gives its settings (model),\n"
        "the data (data) and the trainer; 'pdessl list objectives' says which objective is for what.\n"
        "The run's folder then holds the encoder for pdessl.load, the curves (history.json), and last.ckpt.",
        examples=[
            "pdessl pretrain --data runs/ --out work/encoder                       a recipe is made for the data",
            "pdessl pretrain --config burgers_vicreg --data data/burgers",
            "pdessl pretrain --config burgers_vicreg --data data/burgers --set trainer.max_epochs=1 --out runs/short",
            "pdessl pretrain --config burgers_vicreg --set data.stream=burgers     simulated meanwhile: no run twice",
            "pdessl pretrain --config burgers_vicreg --print_config                the recipe, complete, ready to run",
            "pdessl pretrain --config ks_jepa --preset full --data data/ks --set monitor.stop_on_collapse=true",
            "pdessl pretrain --config burgers_vicreg --data data/burgers --ckpt_path runs/pretraining/last.ckpt",
        ],
        python="import pdessl\n"
        "pdessl.pretrain('data/burgers', config='burgers_vicreg', overrides={'trainer.max_epochs': 1}, out='runs/x')",
    )
    parser.add_argument(
        "--config",
        metavar="NAME",
        help="recipe: name from 'pdessl list configs', or a file; default: made for the data",
    )
    parser.add_argument("--preset", metavar="NAME", help="a variant in the recipe, e.g. full")
    parser.add_argument("--data", metavar="PATH", help="store, or files of any layout: the recipe's data.path")
    parser.add_changes("recipe", "trainer.max_epochs=1")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run; default runs/pretraining")
    parser.add_argument("--ckpt_path", metavar="FILE", help="last.ckpt of a run of the same task, which is continued")
    parser.add_allowed()
    options = parser.parse_args(arguments)
    if options.config is None and options.data is None and not any("data." in word for word in options.set):
        parser.error("it needs data (--data PATH), or a recipe (--config NAME; 'pdessl list configs' prints them)")

    from pdessl.experiments.default_recipe import recipe_for
    from pdessl.experiments.pretraining import pretrain, pretraining_recipe
    from pdessl.schema import dump_yaml, read_words

    changes = read_words(options.set) | ({} if options.data is None else {"data.path": options.data})
    config, out = options.config, options.out
    if config is None and options.data is not None:
        out = out or Path("runs/pretraining")
        config, lines = recipe_for(options.data, changes, None if options.print_config else out)
        say("\n".join(lines), file=sys.stderr if options.print_config else sys.stdout)
    given = (config, changes, out, options.ckpt_path, options.preset, options.allow)
    if options.print_config:
        print(dump_yaml(pretraining_recipe(*given)), end="")
        return 0
    run = pretrain(*given)
    package = type(run.task.encoder.module).__module__.partition(".")[0]
    trusted = "" if package in ("pdessl", "torch") else f", allow=('{package}',)"
    if run.early:
        say(f"warning: {run.early}")
    say(f"{run.folder}: encoder saved; pdessl.load('{run.folder}'{trusted}) reads it")
    return 0
