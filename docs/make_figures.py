"""Draws every picture of docs/simulators again: python docs/make_figures.py

Only docs/law.png, the first figure of the report of a quickstart in a folder: python docs/make_figures.py FOLDER
"""

import runpy
import sys
from pathlib import Path

from PIL import Image

from pdessl.evaluation.law_section import law_picture
from pdessl.evaluation.report import read_report

FOLDER = Path(__file__).parent / "simulators"


def shrink(path: Path) -> None:
    """Write a picture again with a palette: 255 colours show the same in a third of the bytes."""
    with Image.open(path) as picture:
        if picture.mode != "P":
            # Not the default method, which gives rare colours, the extremes of a field, to their neighbours.
            few = picture.convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
            few.save(path, optimize=True)


def law(run: str) -> None:
    """Draw the first figure of a quickstart's report."""
    report, arrays = read_report(run)
    _, figure, _ = law_picture(report, arrays)
    figure.savefig(Path(__file__).parent / "law.png", dpi=110)
    shrink(Path(__file__).parent / "law.png")


if __name__ == "__main__":
    if sys.argv[1:]:
        law(sys.argv[1])
        sys.exit()
    sys.argv = sys.argv[:1]
    for script in sorted(FOLDER.glob("*.py")):
        print(script.name)
        runpy.run_path(str(script), run_name="__main__")
    for path in sorted(FOLDER.glob("*.png")):
        shrink(path)
