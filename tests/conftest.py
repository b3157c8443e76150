import pytest
import torch
from command_line import at_command_line

from pdessl import catalog
from pdessl.data import generate
from pdessl.experiments.controlled_runs import generate as generate_runs

# Also while fixtures of a module or session are made: with another number of threads their last bits may be others.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The quickstart at toy size through the real command line, once for all tests that look at it."""
    folder = tmp_path_factory.mktemp("quickstart")
    done = at_command_line(["quickstart", "--preset", "tiny", "--out", folder / "out"], folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "out", done.stdout


@pytest.fixture(scope="session")
def small_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "data"
    size = {"unlabelled": 32, "labelled": 16, "validation": 8, "test": 8}
    # As large as the windows of the shipped recipes.
    generate("burgers_small", folder, size=size, overrides={"observation.points": 64, "observation.frames": 36})
    return folder


@pytest.fixture(scope="session")
def ks_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ks") / "data"
    size = {"unlabelled": 32, "labelled": 16, "validation": 8, "test": 8}
    generate("kuramoto_sivashinsky", folder, size=size, overrides={"observation.start": 12.0, "observation.end": 24.6})
    return folder


@pytest.fixture(scope="session")
def ks22_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ks22") / "data"
    size = {"unlabelled": 32, "labelled": 16, "validation": 8, "test": 8}
    generate("kuramoto_sivashinsky_random_force", folder, size=size, progress=False)
    return folder


@pytest.fixture(scope="session")
def kdv_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kdv") / "data"
    size = {"unlabelled": 32, "labelled": 16, "validation": 8, "test": 8}
    generate("kdv", folder, size=size, overrides={"observation.end": 4.0})
    return folder


@pytest.fixture(scope="session")
def smoke_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke") / "data"
    generate("smoke_buoyancy_small", folder, size={"unlabelled": 16, "labelled": 8, "validation": 8, "test": 8})
    return folder


@pytest.fixture(scope="session")
def burgers_grouped_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups") / "data"
    size = {"unlabelled": 32, "labelled": 16, "validation": 8, "test": 8}
    generate("burgers_grouped", folder, size=size, overrides={"parameters.viscosity.per.unlabelled": 8})
    return folder


@pytest.fixture(scope="session")
def smoke_grouped_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke_groups") / "data"
    size = {"unlabelled": 32, "labelled": 8, "validation": 8, "test": 8}
    coarse = {"solver.points": 32, "observation.frames": 20, "observation.end": 42.0}
    generate("smoke_buoyancy_grouped_small", folder, size=size, overrides=coarse)
    return folder


@pytest.fixture(scope="session")
def ks4_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ks4") / "data"
    generate_runs(
        "ks_control_4",
        folder,
        size={"unlabelled": 16, "validation": 3},
        overrides={"burn_in": 5.0, "control.steps": 20},
    )
    return folder


@pytest.fixture(scope="session")
def ks4_long_store(tmp_path_factory):
    """As ks4_store, with runs that windows of many blocks fit in."""
    folder = tmp_path_factory.mktemp("ks4_long") / "data"
    size = {"unlabelled": 16, "validation": 3}
    generate_runs("ks_control_4", folder, size=size, overrides={"burn_in": 5.0, "control.steps": 140})
    return folder


@pytest.fixture(scope="session")
def gusts_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gusts") / "data"
    sizes = {"unlabelled": 16, "validation": 3}
    generate_runs("burgers_gusts", folder, size=sizes, overrides={"control.steps": 10})
    return folder


@pytest.fixture(scope="session")
def tracer_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracer") / "data"
    sizes, changes = {"unlabelled": 16, "validation": 3}, {"control.steps": 30, "solver.substeps": 1}
    generate_runs("tracer_ring", folder, size=sizes, overrides=changes)
    return folder


@pytest.fixture
def store_of(request):
    """The small store of the equation that a recipe is for, with groups where it wants them."""

    def find(recipe):
        equation = recipe.rpartition("/")[2].partition("_")[0]
        if "grouped" in catalog.read("configs", recipe)["data"]:
            return request.getfixturevalue(f"{equation}_grouped_store")
        stores = {"burgers": "small_store", "ks4": "ks4_long_store" if recipe.endswith("_slow") else "ks4_store"}
        return request.getfixturevalue(stores.get(equation, f"{equation}_store"))

    return find


@pytest.fixture(autouse=True)
def one_thread():
    """What a test sets does not reach the next one."""
    yield
    torch.set_num_threads(1)
