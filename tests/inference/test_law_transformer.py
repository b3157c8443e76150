"""A law speaks scikit-learn."""

import copy
import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

import pdessl
from pdessl.errors import CheckpointError
from pdessl.inference import LawTransformer
from pdessl.operators import save_law
from pdessl.trajectory import Trajectories


def heat(count=24, seed=0):
    """Exact solutions of u_t = ν u_xx on 40 frames and 48 nodes."""
    generator = torch.Generator().manual_seed(seed)
    nu = 0.05 + 0.3 * torch.rand(count, generator=generator, dtype=torch.float64)
    t = torch.linspace(0, 2, 40, dtype=torch.float64)
    x = torch.arange(48, dtype=torch.float64) * 2 * torch.pi / 48
    u = 0
    for k in (1, 2, 3):
        a, phase = torch.randn(2, count, 1, 1, generator=generator, dtype=torch.float64)
        u = u + a * torch.exp(-nu[:, None, None] * k**2 * t[:, None]) * torch.sin(k * x + 3 * phase)
    return Trajectories(
        fields=u[:, None],
        time=t.expand(count, -1),
        space=(x.expand(count, -1),),
        lengths=torch.full((count, 1), 2 * torch.pi, dtype=torch.float64),
        parameters={"diffusivity": nu},
    )


@pytest.fixture(scope="module")
def fitted():
    return LawTransformer(half_width=(6, 6)).fit(heat())


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_mixin_order,
        estimator_checks.check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn_accepts_it(check):
    """Those of its checks that feed no table: a law is one of fields in time."""
    check("LawTransformer", LawTransformer())


def test_codes_are_features(fitted):
    test = heat(8, seed=3)
    codes = fitted.transform(test)
    assert type(codes) is np.ndarray and codes.shape == (8, 1) and list(fitted.get_feature_names_out()) == ["z"]
    assert np.allclose(codes[:, 0], test.parameters["diffusivity"], rtol=5e-3)
    assert np.array_equal(codes, fitted.law_.encode(test)[0].numpy())
    assert np.array_equal(LawTransformer(half_width=(6, 6)).fit_transform(test), fitted_again(test).transform(test))


def fitted_again(runs):
    return LawTransformer(half_width=(6, 6)).fit(runs, np.random.default_rng(0).normal(size=len(runs)))


def test_it_is_not_fitted_before_and_data_stay_as_they_were(fitted):
    with pytest.raises(NotFittedError):
        LawTransformer().transform(heat(4))
    with pytest.raises(NotFittedError):
        LawTransformer().get_feature_names_out()
    check_is_fitted(fitted)
    runs = heat(6)
    before = runs.fields.clone()
    fitted.transform(runs)
    assert torch.equal(runs.fields, before)
    assert not hasattr(clone(fitted), "law_") and clone(fitted).get_params() == fitted.get_params()


def test_copies_and_pickles_encode_alike(fitted):
    runs = heat(5, seed=2)
    for other in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(other.transform(runs), fitted.transform(runs))


def test_datasets_keep_their_coordinates(fitted):
    runs = heat(6, seed=4)
    data = runs.to_xarray().assign_coords(tank=("trajectory", np.arange(6) % 2)).assign_attrs(experiment="3")
    codes = fitted.transform(data)
    assert isinstance(codes, xr.DataArray) and codes.dims == ("trajectory", "feature")
    assert list(codes.feature.values) == ["z"] and codes.tank.identical(data.tank.drop_vars([]))
    assert codes.attrs["experiment"] == "3" and np.allclose(codes, fitted.transform(runs))


def test_arrays_have_unit_steps_and_a_pipeline_regresses():
    runs = heat(24)
    array, labels = runs.fields.numpy(), runs.parameters["diffusivity"].numpy()
    pipeline = make_pipeline(LawTransformer(half_width=(6, 6)), LinearRegression())
    assert cross_val_score(pipeline, array, labels, cv=3).min() > 0.99
    step, space = float(runs.time_step[0]), float(runs.grid_spacing[0, 0])
    codes = LawTransformer(half_width=(6, 6)).fit_transform(array)
    assert np.allclose(codes[:, 0] * space**2 / step, labels, rtol=5e-3)


def test_a_saved_law_is_taken_as_it_is(fitted, tmp_path):
    save_law(fitted.law_, tmp_path)
    runs = heat(5, seed=6)
    for law in (tmp_path, str(tmp_path), fitted.law_, pdessl.load(tmp_path)):
        assert np.array_equal(LawTransformer(law).fit(runs).transform(runs), fitted.transform(runs))


def test_bad_input_is_told_with_the_repair(fitted, tmp_path):
    with pytest.raises(ValueError, match=r"expected runs \(n, C, T, \*X\)"):
        LawTransformer().fit(np.zeros((5, 4)))
    with pytest.raises(ValueError, match="NaN"):
        LawTransformer().fit(np.full((5, 1, 20, 20), np.nan))
    with pytest.raises(CheckpointError, match="pdessl discover DATA"):
        LawTransformer(tmp_path / "none").fit(heat(4))
    with pytest.raises(CheckpointError, match="rank 0"):
        LawTransformer(rank=0, half_width=(6, 6)).fit(heat(8))
