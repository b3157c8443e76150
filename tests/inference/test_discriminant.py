"""Closed forms: what groups share is found, what they do not is not, and no value of a label is needed."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline

import pdessl
from pdessl.errors import CheckpointError, DataError, ShapeError
from pdessl.inference import SimulationEncoder, fit_parameter_model
from pdessl.inference.discriminant import GroupDiscriminant, _pairs
from pdessl.models import ConvEncoder, Encoder
from pdessl.models.discriminant import fit_discriminant, fit_principal, fit_views, intraclass_correlation
from pdessl.models.linear_code import LinearCode
from pdessl.trajectory import Trajectories

SIZES = [1, 2, 3, 4, 5, 6] * 12


def planted(seed=0, width=12, noise=0.3):
    """Rows of groups of 1 to 6 runs: one factor that a group shares, one that each run has alone, mixed with noise."""
    draw = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(SIZES)), SIZES)
    shared, own = draw.normal(size=len(SIZES))[groups], 3 * draw.normal(size=len(groups))
    mixing = draw.normal(size=(2, width))
    x = np.stack([shared, own], axis=1) @ mixing + noise * draw.normal(size=(len(groups), width))
    return torch.from_numpy(x), torch.from_numpy(groups), shared, own


def correlation(code, factor):
    return abs(np.corrcoef(code[:, 0].numpy(), factor)[0, 1])


def test_a_shared_factor_is_recovered_and_one_of_single_runs_is_not():
    x, groups, shared, own = planted()
    fitted = fit_discriminant(x, groups)
    code = fitted.apply(x)
    assert code.shape[1] == 1 and fitted.scores[0] > 0.9
    assert correlation(code, shared) > 0.98 and correlation(code, own) < 0.2
    # What varies most is the other one.
    assert correlation(fit_principal(x, 1).apply(x), own) > 0.95
    fresh, _, shared, own = planted(7)
    assert fit_discriminant(fresh, groups).scores[0] > 0.9


def test_permuted_groups_leave_nothing():
    x, groups, shared, _ = planted()
    permuted = groups[torch.from_numpy(np.random.default_rng(5).permutation(len(groups)))]
    fitted = fit_discriminant(x, permuted)
    assert fitted.weights.shape[1] == 1 and fitted.scores[0] < 0.2
    few = slice(0, 24)
    read = RidgeCV(np.logspace(-4, 4, 9)).fit(fitted.apply(x)[few].numpy(), shared[few])
    error = np.mean((read.predict(fitted.apply(x)[24:].numpy()) - shared[24:]) ** 2)
    assert error > 0.8 * np.var(shared[24:])
    # With the true groups the same readout finds it.
    code = fit_discriminant(x, groups).apply(x).numpy()
    read = RidgeCV(np.logspace(-4, 4, 9)).fit(code[few], shared[few])
    assert np.mean((read.predict(code[24:]) - shared[24:]) ** 2) < 0.05 * np.var(shared[24:])


@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_the_discriminant_is_the_generalised_eigenproblem(ridge):
    x, groups, _, _ = planted(3)
    fitted = fit_discriminant(x, groups, components=4, ridge=ridge)
    z = np.clip((x.numpy() - x.numpy().mean(0)) / x.numpy().std(0), -6, 6)
    between, within = np.zeros((12, 12)), np.zeros((12, 12))
    for g in np.unique(groups):
        rows = z[groups.numpy() == g]
        apart = rows.mean(0) - z.mean(0)
        between += len(rows) * np.outer(apart, apart) / (len(SIZES) - 1)
        within += (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / (len(z) - len(SIZES))
    within += ridge * np.trace(within) / 12 * np.eye(12)
    values, vectors = scipy.linalg.eigh(between, within)
    expected = vectors[:, ::-1][:, :4]
    sign = np.sign((expected * fitted.weights.numpy()).sum(0))
    np.testing.assert_allclose(fitted.weights.numpy(), expected * sign, rtol=1e-6, atol=1e-9)
    assert (fitted.weights.T @ torch.from_numpy(within) @ fitted.weights - torch.eye(4)).abs().max() < 1e-8


def test_views_are_the_discriminant_of_groups_of_two_and_canonical_correlations():
    draw = np.random.default_rng(1)
    shared = draw.normal(size=(300, 2)) * [2, 1]
    mixing = draw.normal(size=(4, 6))
    a, b = (torch.from_numpy(np.c_[shared, draw.normal(size=(300, 2))] @ mixing) for _ in range(2))
    a, b = torch.cat([a, b]), torch.cat([b, a])  # exchangeable: one map serves both
    fitted = fit_views(a, b, 3, ridge=1e-9)
    x, y = fitted.standardised(a), fitted.standardised(b)
    codes = (x - x.mean(0)) @ fitted.weights, (y - y.mean(0)) @ fitted.weights
    torch.testing.assert_close(codes[0].T @ codes[0] / 600, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)
    agreement = (codes[0] * codes[1]).mean(0)
    torch.testing.assert_close(agreement, fitted.scores, atol=1e-6, rtol=0)
    # Canonical correlations by singular values of the whitened cross-covariance, an independent formula.
    ux, uy = (np.linalg.svd((z - z.mean(0)).numpy(), full_matrices=False)[0] for z in (x, y))
    # (They have no sign, and a code that two views share with the other sign is none that they share.)
    np.testing.assert_allclose(np.linalg.svd(ux.T @ uy)[1][:2], fitted.scores[:2].numpy(), atol=1e-6)
    groups = torch.arange(300).repeat(2)
    other = fit_discriminant(torch.cat([a[:300], b[:300]]), groups, components=1, ridge=1e-9)
    assert correlation(other.apply(a), fitted.apply(a)[:, 0].numpy()) > 1 - 1e-6


def test_intraclass_correlation_is_that_of_the_variances():
    draw = torch.Generator().manual_seed(0)
    groups = torch.arange(4000) // 4
    codes = torch.randn(1000, 1, generator=draw, dtype=torch.float64)[groups] * 2
    codes = codes + torch.randn(4000, 1, generator=draw, dtype=torch.float64)
    assert float(intraclass_correlation(codes, groups)) == pytest.approx(0.8, abs=0.02)
    assert abs(float(intraclass_correlation(codes, torch.randperm(4000, generator=draw) // 4))) < 0.05


def test_what_cannot_be_fitted_is_said():
    x, groups, _, _ = planted()
    with pytest.raises(DataError, match="0 of 252 groups have two runs.*repeated at a setting"):
        fit_discriminant(x, torch.arange(len(x)))
    with pytest.raises(DataError, match="too few to hold out parts of them"):
        fit_discriminant(x[:20], groups[:20])
    with pytest.raises(DataError, match="not finite"):
        fit_discriminant(x.index_fill(0, torch.tensor([3]), torch.nan), groups)
    with pytest.raises(ShapeError, match=r"features \(252, 12\) and groups \(5,\)"):
        fit_discriminant(x, groups[:5])
    with pytest.raises(ShapeError, match="expected one row each"):
        fit_views(x, x[1:], 1)
    with pytest.raises(ShapeError, match=r"expected \(n, 12\)"):
        fit_principal(x, 2).apply(x[:, :3])
    with pytest.raises(DataError, match="needs groups=.*method='principal'"):
        GroupDiscriminant().fit(x.numpy())
    with pytest.raises(ValueError, match="choose discriminant, views, principal"):
        GroupDiscriminant(method="magic").fit(x.numpy(), groups=groups)
    with pytest.raises(DataError, match="3 groups for 252 runs"):
        GroupDiscriminant().fit(x.numpy(), groups=[1, 2, 3])
    with pytest.raises(CheckpointError, match="found 'Linear'"):
        LinearCode("Linear", {}, 1)


def test_a_constant_feature_and_an_outlier_change_little():
    x, groups, shared, _ = planted()
    wide = torch.cat([x, torch.full((len(x), 1), 3.0, dtype=x.dtype)], dim=1)
    wide[0] *= 1e6
    code = fit_discriminant(wide, groups).apply(wide)
    assert bool(torch.isfinite(code).all()) and correlation(code[1:], shared[1:]) > 0.9


# ------------------------------------------------------------------------------------------------------ runs


def diffusing(groups=24, size=4, seed=0, frames=12, points=16):
    """Decaying modes: groups share the rate of decay, runs have amplitude and phase of their own."""
    draw = torch.Generator().manual_seed(seed)
    rate = (torch.rand(groups, generator=draw, dtype=torch.float64) * 2 - 2).exp().repeat_interleave(size)
    n = len(rate)
    time = torch.linspace(0, 1, frames, dtype=torch.float64).expand(n, -1)
    x = torch.arange(points, dtype=torch.float64) * 2 * torch.pi / points
    u = torch.zeros(n, 1, frames, points, dtype=torch.float64)
    for k in (1, 2):
        amplitude = 0.5 + torch.rand(n, 1, 1, generator=draw, dtype=torch.float64)
        phase = 6.3 * torch.rand(n, 1, 1, generator=draw, dtype=torch.float64)
        u[:, 0] += amplitude * torch.exp(-rate[:, None, None] * k**2 * time[:, :, None]) * torch.sin(k * x + phase)
    return Trajectories(
        fields=u.float(),
        time=time,
        space=(x.expand(n, -1),),
        lengths=torch.full((n, 1), 2 * torch.pi, dtype=torch.float64),
        parameters={"rate": rate},
        index=torch.arange(n),
    ), torch.arange(groups).repeat_interleave(size).numpy()


def test_runs_to_a_code_that_is_saved_loaded_and_used(tmp_path):
    runs, groups = diffusing()
    fitted = GroupDiscriminant().fit(runs.without_parameters(), groups=groups)
    code = fitted.transform(runs)
    rate = runs.parameters["rate"].log().numpy()
    assert abs(np.corrcoef(code[:, 0], rate)[0, 1]) > 0.99 and fitted.map_.scores[0] > 0.95 and fitted.seconds_ > 0
    fitted.save(tmp_path / "code", {"note": 1})
    loaded = pdessl.load(tmp_path / "code")
    assert isinstance(loaded, LinearCode) and loaded.feature_dim == code.shape[1] and not loaded.train().training
    again = SimulationEncoder(str(tmp_path / "code"), views=1).fit(runs).transform(runs)
    np.testing.assert_allclose(again.values, code, rtol=1e-9)
    np.testing.assert_allclose(loaded.head(loaded.trunk(runs.fields, spacing=_spacing(runs))).numpy(), code, rtol=1e-9)
    other, _ = diffusing(seed=5)
    pipeline = make_pipeline(SimulationEncoder(str(tmp_path / "code"), views=1), RidgeCV())
    few = pipeline.fit(runs.to_xarray().isel(trajectory=slice(0, 96, 8)), rate[::8])
    predicted = few.predict(other.to_xarray())
    truth = other.parameters["rate"].log().numpy()
    assert np.mean((predicted - truth) ** 2) < 0.05 * np.var(truth)
    model = fit_parameter_model(fitted.encoder_, runs, targets=["rate"])
    assert model.predict(other.to_xarray()).rate.values.shape == (96,)


def _spacing(runs):
    return torch.cat([runs.time_step[:, None], runs.grid_spacing], dim=1)


def test_labels_are_never_read():
    runs, groups = diffusing()
    permuted = runs.replace(parameters={"rate": runs.parameters["rate"].flip(0)})
    renamed = np.array(["abcdefghijklmnopqrstuvwxyz"[::-1][g] for g in groups])
    one = GroupDiscriminant().fit(runs, np.arange(len(runs)), groups=groups)
    for fitted in (GroupDiscriminant().fit(permuted, groups=groups), GroupDiscriminant().fit(runs, groups=renamed)):
        np.testing.assert_allclose(np.abs(fitted.transform(runs)), np.abs(one.transform(runs)), rtol=1e-6)


def test_a_code_of_a_frozen_network_and_of_a_table(tmp_path):
    runs, groups = diffusing()
    torch.manual_seed(0)
    network = Encoder(ConvEncoder(1, 4, (1, 1)), [0.0], [0.7]).eval()
    fitted = GroupDiscriminant(network, components=2, ridge=0.1).fit(runs, groups=groups)
    fitted.save(tmp_path / "code")
    np.testing.assert_allclose(pdessl.load(tmp_path / "code")(runs.fields).numpy(), fitted.transform(runs), rtol=1e-5)
    with torch.no_grad():
        table = network(runs.fields).double().numpy()
    alone = GroupDiscriminant(components=2, ridge=0.1).fit(table, groups=groups)
    np.testing.assert_allclose(alone.transform(table), fitted.transform(runs), rtol=1e-5, atol=1e-8)
    with pytest.raises(DataError, match="no encoder of runs to save"):
        alone.save(tmp_path / "none")
    with pytest.raises(DataError, match="fitted on a table"):
        alone.transform(runs)
    views = GroupDiscriminant(method="views", components=1).fit(table, groups=groups)
    assert views.transform(table).shape == (96, 1)
    assert GroupDiscriminant(method="principal").fit(runs).transform(runs).shape == (96, 4)


def test_pairs_of_neighbours_are_of_one_group():
    groups = torch.tensor([2, 0, 1, 0, 2, 0, 1, 3, 2, 2])
    first, second = _pairs(groups)
    assert torch.equal(groups[first], groups[second]) and len(first) == 4
    assert len(set(torch.cat([first, second]).tolist())) == 8
