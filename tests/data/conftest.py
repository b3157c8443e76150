import pytest

import pdessl.data


@pytest.fixture(scope="session")
def small_store(tmp_path_factory):
    """The shipped tiny dataset, generated once; tests must not change it."""
    return pdessl.data.generate("burgers_small", tmp_path_factory.mktemp("stores") / "small", progress=False)


@pytest.fixture
def copied_store(small_store, tmp_path):
    """A copy that a test may damage."""
    import shutil

    return pdessl.data.open(shutil.copytree(small_store.path, tmp_path / "copy"))
