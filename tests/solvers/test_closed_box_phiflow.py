"""Smoke in a closed box against ΦFlow, which made the public data. Skipped without the extra ``validation``."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "closed_box_phiflow.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_every_frame_agrees_with_phiflow():
    pytest.importorskip("phi", reason="pip install 'pdessl[validation]' to compare with ΦFlow")
    spec = importlib.util.spec_from_file_location("closed_box_phiflow", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    state = script.initial_smoke(32)
    theirs, _ = script.phiflow_frames(state[0, 2], 24)
    ours, _ = script.our_frames(state, 24)
    found = script.differences(ours, theirs)
    assert found.max() < 1e-9, f"relative differences of u, v, s per frame: {found}"
    assert np.abs(theirs[:2]).max() > 0.5
