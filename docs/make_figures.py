"""Draws every picture of docs/simulators again: python docs/make_figures.py"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    for script in sorted((Path(__file__).parent / "simulators").glob("*.py")):
        print(script.name)
        runpy.run_path(str(script), run_name="__main__")
