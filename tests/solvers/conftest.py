import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays are tiny here: threads would only wait for each other, the longer the busier the machine is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
