"""A run that was read, simulated again from its first frame at its own times: it goes on where the frames begin."""

import pytest
import torch

import pdessl
from pdessl.solvers import Burgers, KuramotoSivashinsky

SIZE = {"unlabelled": 2, "labelled": 2, "validation": 1, "test": 1}
LATER = {"observation.points": 192, "observation.noise": 0.0}


@pytest.fixture(scope="module")
def chaotic(tmp_path_factory):
    """Frames that begin at t = 10, on the grid of the solver: nothing of the field is lost between them."""
    times = {"observation.start": 10.0, "observation.end": 13.0, "observation.frames": 7, "solver.points": 192}
    folder = tmp_path_factory.mktemp("again") / "ks"
    return pdessl.generate("kuramoto_sivashinsky", folder, size=SIZE, overrides=LATER | times)


def again(runs, time):
    hyper = runs.parameters["hyperviscosity"].double()
    simulator = KuramotoSivashinsky(hyperviscosity=hyper, points=192, domain_length=64.0)
    return simulator(runs.fields[:, :, 0].double(), time).fields


def test_a_stored_run_goes_on_from_its_first_frame_at_its_own_times(chaotic):
    runs = chaotic.load("labelled")
    assert runs.time.min() == 10.0
    found = again(runs, runs.time.double())
    # The stored frames are rounded to float32, and chaos makes that larger.
    torch.testing.assert_close(found, runs.fields, rtol=0.0, atol=2e-4 * float(runs.fields.abs().max()))
    # Integrating from zero to these times instead would be this far off, and does not pass.
    late = again(runs, torch.cat([torch.zeros(1).double(), runs.time[0].double()]))[:, :, 1:]
    assert (late - runs.fields).abs().max() > 0.5


def test_times_of_a_dataset_in_xarray_may_start_anywhere(chaotic):
    run = chaotic.to_xarray("labelled").isel(trajectory=0)
    time = torch.tensor(run["time"].values).double()
    whole = torch.tensor(run["u"].values).double()[None, None]
    hyper = float(run["hyperviscosity"])
    found = KuramotoSivashinsky(hyperviscosity=hyper, points=192, domain_length=64.0)(whole[:, :, 0], time).fields
    torch.testing.assert_close(found.double(), whole, rtol=0.0, atol=2e-4 * float(whole.abs().max()))


def test_the_first_time_is_that_of_the_initial_field():
    x = torch.arange(64) * (2 * torch.pi / 64)
    simulator, start = Burgers(viscosity=0.1, points=64), torch.sin(x).expand(1, 1, -1)
    early, late = (simulator(start, torch.tensor([t, t + 0.5, t + 1.0])).fields for t in (0.0, 32.0))
    torch.testing.assert_close(late, early, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(late[:, :, 0], start.float(), rtol=0.0, atol=1e-6)
