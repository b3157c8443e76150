import pytest
import torch

from pdessl.data import load_recipe, simulate
from pdessl.models import ConvEncoder, Encoder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def labelled():
    """48 runs of the shipped tiny Burgers dataset, (48, 1, 24, 32); tests must not change them."""
    return simulate(load_recipe("burgers_small"), "labelled", range(48))


@pytest.fixture(scope="session")
def held_out():
    return simulate(load_recipe("burgers_small"), "test", range(64))


@pytest.fixture(scope="session")
def encoder(labelled):
    """A random network whose normalisation layers have seen the data, which is what a probe of one needs."""
    return random_encoder(labelled, seed=0)


def random_encoder(runs, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(ConvEncoder(width=8, blocks=(1, 1, 1)), [0.0], [0.6])
    encoder.train()
    with torch.no_grad():
        for _ in range(30):
            encoder(runs.fields)
    return encoder.eval()


UNITS = {"u": "length/time", "viscosity": "length^2/time", "time": "time", "x": "length"}


@pytest.fixture(scope="session")
def model(encoder, labelled):
    from pdessl.inference import fit_parameter_model

    return fit_parameter_model(encoder, labelled, units=UNITS)
