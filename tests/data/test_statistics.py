"""Mean and deviation in one pass agree with numpy on everything at once."""

import numpy as np
import pytest
import torch

from pdessl.data.statistics import field_statistics
from pdessl.errors import DataError


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_equal_numpy(offset, dtype):
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((23, 2, 5, 7)) * 3 + offset).to(dtype)
    values[:, 1] *= 1e-3
    found = field_statistics(values.split([4, 1, 12, 6]), ("u", "v"))
    for channel, name in enumerate(("u", "v")):
        exact = values[:, channel].numpy().astype(np.float64)
        assert found[name].mean == pytest.approx(exact.mean(), rel=1e-13, abs=1e-13)
        assert found[name].std == pytest.approx(exact.std(ddof=1), rel=1e-11)


def test_what_has_no_mean_is_refused():
    with pytest.raises(DataError, match="training split is empty"):
        field_statistics([], ("u",))
    values = torch.ones(3, 2, 4)
    values[1, 1, 2] = torch.nan
    with pytest.raises(DataError, match="field 'v' holds NaN or infinite values"):
        field_statistics([values], ("u", "v"))
    values[1, 1, 2] = -torch.inf
    with pytest.raises(DataError, match="field 'v' holds NaN"):
        field_statistics([values], ("u", "v"))
