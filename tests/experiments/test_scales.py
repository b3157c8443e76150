"""Fields whose size does not fit what is done with them are told before anything is trained."""

import numpy as np
import pytest
import torch
import xarray as xr

from pdessl.augmentation import LieAugmentation
from pdessl.data import PDEDataModule
from pdessl.experiments.cross_validation import cross_validate
from pdessl.experiments.inputs import read_labelled
from pdessl.experiments.regression import Regression
from pdessl.experiments.scales import ScaleCheck, out_of_scale
from pdessl.objectives.diagnosis import collapse_diagnosis

T, X = 0.1 * np.arange(16), 2 * np.pi * np.arange(32) / 32


def written(tmp_path, change, runs=12):
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.05, 0.4, runs)
    u = np.exp(-rates[:, None, None] * T[:, None]) * np.sin(X + rng.uniform(0, 6, (runs, 1, 1)))
    xr.Dataset(
        {"u": (("trajectory", "time", "x"), change(u)), "viscosity": ("trajectory", np.exp(rates))},
        coords={"time": T, "x": X},
        attrs={"boundary": "periodic", "equation": "burgers"},
    ).to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")
    return PDEDataModule(tmp_path / "runs.nc", batch_size=4)


CASES = {
    "as it should be": (lambda u: u, []),
    "far from 0": (lambda u: 101325 + 0.05 * u, [r"field u is 101325 with .*Subtract a constant:  ds.assign\(u=ds.u"]),
    "of no size": (
        lambda u: 1e-7 * u,
        [r"its views one of .*: galilean_boost, projective add .*Bring u, time and space to one sys"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fields_out_of_scale_are_told_in_training(tmp_path, name):
    change, expected = CASES[name]
    module = written(tmp_path, change)
    module.setup()
    found = out_of_scale(LieAugmentation("burgers"), module)
    assert len(found) == len(expected)
    for line, pattern in zip(found, expected, strict=True):
        with pytest.warns(UserWarning, match=pattern):
            ScaleCheck().on_fit_start(*fit(module))
        assert "Subtract" in line or "drowns" in line
    if name == "of no size":  # the repairs end it
        assert not out_of_scale(LieAugmentation("burgers", strengths={"scaling": 0.3}), module)
        assert not out_of_scale(None, module)


def fit(module):
    class Task:
        def views(self):
            return LieAugmentation("burgers")

    class Trainer:
        is_global_zero, datamodule = True, module

    return Trainer(), Task()


def test_a_regression_notes_fields_far_from_zero(tmp_path):
    module = read_labelled(written(tmp_path, lambda u: 101325 + 0.05 * u).path, "viscosity")
    result = cross_validate(None, module, Regression(target="viscosity", methods=("balance", "mean")))
    assert any("Subtract a constant" in note for note in result.notes)


def test_features_that_are_one_number_are_a_collapse_from_the_first_epoch():
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(64, 1, generator=generator, dtype=torch.float64) * torch.ones(16).double()
    few = line + 0.1 * torch.randn(64, 16, generator=generator, dtype=torch.float64)
    found = collapse_diagnosis(few, features=line + 1e-6 * few, target_std=None)
    assert found.cause == "dimensional collapse" and found.relative_to is None
    assert collapse_diagnosis(few, features=few, target_std=None).relative_to == "features_rank_me"
