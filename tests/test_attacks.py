"""The scripts that kill the verbs and alter their files at random, for a minute; docs/guarantees.md has longer runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the scripts fork processes")]


def script(name, *words):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(FOLDER / f"{name}.py"), *words],
        capture_output=True, text=True, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr[-2000:]


def test_killed_verbs_end_bitwise_as_undisturbed_ones():
    code, said = script("kills", "--kills", "6", "--seed", "1")
    assert code == 0, said
    assert re.search(r"^6 kills, 0 results that differ", said, re.MULTILINE) and said.count(", 0 wrong") == 6


def test_altered_files_and_texts_are_read_or_refused():
    code, said = script("fuzz", "--files", "100", "--strings", "300", "--layouts", "65", "--seed", "1")
    assert code == 0, said
    assert "100 files, 65 files of other programs and 300 texts: 0 failures" in said
