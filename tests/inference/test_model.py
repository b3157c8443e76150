import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import betabinom
from torch import nn

from pdessl import SimulationEncoder, Trajectories
from pdessl.data import load_recipe, simulate
from pdessl.errors import DataError, SchemaError
from pdessl.evaluation.novelty import area_under_roc
from pdessl.inference import HeadReadout, Views, fit_parameter_model
from pdessl.models import ConvEncoder
from pdessl.tasks import ParameterRegression

from .conftest import UNITS, random_encoder

FRAMES, POINTS = 6, 8


class Moments(nn.Module):
    """Mean and energy of a field: features of which a linear readout makes the slope of :func:`lines`."""

    in_channels, feature_dim = 1, 2

    def forward(self, fields):
        return torch.stack([fields.mean(dim=(1, 2, 3)), fields.square().mean(dim=(1, 2, 3))], dim=1)


def lines(count, seed):
    """Runs u = p t with noise in every point, p in [1, 2]: exchangeable, and no encoder could be exact."""
    rng = np.random.default_rng(seed)
    p = 1 + rng.random(count)
    time, x = np.linspace(0, 1, FRAMES), np.arange(POINTS) / POINTS
    fields = p[:, None, None, None] * time[None, None, :, None] + 2.0 * rng.normal(size=(count, 1, FRAMES, POINTS))
    return Trajectories(
        fields=torch.from_numpy(fields),
        time=torch.from_numpy(np.tile(time, (count, 1))),
        space=(torch.from_numpy(np.tile(x, (count, 1))),),
        lengths=torch.ones(count, 1, dtype=torch.float64),
        parameters={"slope": torch.from_numpy(p)},
    )


def inside(model, runs, shrink=1.0):
    """Number of truths in the intervals of the whole path, made narrower about the prediction by a factor."""
    found, truth = model.predict(runs), runs.parameters["slope"].numpy()
    low = found.slope - shrink * (found.slope - found.slope_low)
    high = found.slope + shrink * (found.slope_high - found.slope)
    return int(((low.values <= truth) & (truth <= high.values)).sum())


@pytest.mark.parametrize(("scale", "interval"), [("linear", "adaptive"), ("log", "constant"), ("log", "quantile")])
def test_intervals_hold_as_many_truths_as_promised_and_narrower_ones_do_not(scale, interval):
    """Split conformal on exchangeable runs: the number inside is beta-binomial, whatever the encoder is worth."""
    n, m, level = 600, 1000, 0.9
    model = fit_parameter_model(Moments(), lines(100, 1), lines(n, 2), {"slope": scale}, level=level, interval=interval)
    rank = math.ceil((n + 1) * level)
    low, high = betabinom.interval(0.999, m, rank, n + 1 - rank)
    test = lines(m, 3)
    assert low <= inside(model, test) <= high
    assert inside(model, test, shrink=0.8) < low


@pytest.mark.parametrize("interval", ["adaptive", "quantile"])
def test_labels_that_calibrate_themselves_are_not_too_sure(interval):
    """CV+ on 60 labels: no fewer truths inside than the level allows, and intervals of a fifth less hold too few."""
    shares, narrow = [], []
    for seed in range(12):
        model = fit_parameter_model(Moments(), lines(60, 100 + seed), level=0.9, interval=interval)
        test = lines(200, 200 + seed)
        shares.append(inside(model, test) / 200)
        narrow.append(inside(model, test, shrink=0.8) / 200)
    # Standard deviation of the mean of 12 shares: sqrt(0.09 (1/60 + 1/200) / 12) = 0.013
    assert abs(np.mean(shares) - 0.9) < 4 * 0.013
    assert np.mean(narrow) < 0.9 - 4 * 0.013


def test_quantiles_of_errors_make_intervals_as_wide_as_errors_are():
    """Noise that grows with the slope: intervals of quantiles grow with it, at every level; one width does not."""

    class First(nn.Module):
        in_channels, feature_dim = 1, 1

        def forward(self, fields):
            return fields[:, 0, 0, :1].double()

    def runs(count, seed):
        rng = np.random.default_rng(seed)
        seen = 1 + rng.random(count)
        made = lines(count, seed)
        fields = torch.from_numpy(np.broadcast_to(seen[:, None, None, None], made.fields.shape).copy())
        truth = seen + 0.3 * (seen - 0.9) * rng.normal(size=count)
        return made.replace(fields=fields, parameters={"slope": torch.from_numpy(truth)})

    test = runs(400, 3)
    steep = test.fields[:, 0, 0, 0].numpy()
    widths = {}
    for kind in ("constant", "quantile"):
        model = fit_parameter_model(First(), runs(400, 1), runs(400, 2), {"slope": "linear"}, interval=kind)
        for level in (0.5, 0.9):
            found = model.predict(test, level=level)
            width = (found.slope_high - found.slope_low).values
            widths[kind, level] = width[steep > 1.8].mean() / width[steep < 1.2].mean()
            truth = test.parameters["slope"].numpy()
            share = ((found.slope_low <= truth) & (truth <= found.slope_high)).mean()
            assert abs(float(share) - level) < 0.1
    assert widths["constant", 0.9] == pytest.approx(1)
    assert min(widths["quantile", level] for level in (0.5, 0.9)) > 2.5  # noise is 4.75 times as large


def test_measured_coverage_is_in_the_record():
    test = lines(300, 3)
    model = fit_parameter_model(Moments(), lines(80, 1), lines(200, 2), held_out=test)
    measured = model.record["coverage"]["slope"]
    assert measured["share"] == inside(model, test) / 300
    assert measured == dataclasses.asdict(model.measure(test).parameters["slope"].coverage)


def test_errors_coverage_and_novelty_are_measured_on_other_runs_too():
    alike, test = lines(200, 4), lines(300, 3)
    bright = alike.replace(fields=alike.fields + 20)
    # Noise in every point: a coarser grid cannot be interpolated.
    coarse = alike.replace(fields=alike.fields[..., ::2], space=(alike.space[0][:, ::2],))
    others = {"alike": alike, "unlabelled": alike.without_parameters(), "bright": bright, "coarse": coarse}
    model = fit_parameter_model(Moments(), lines(80, 1), lines(200, 2), held_out=test, elsewhere=others)
    rows = model.record["elsewhere"]
    assert list(rows) == ["as in training", *others]
    assert rows["as in training"]["coverage"]["slope"] == model.record["coverage"]["slope"]["share"]
    assert rows["alike"]["coverage"]["slope"] == inside(model, alike) / 200
    found, truth = model.predict(alike), alike.parameters["slope"].numpy()
    assert rows["alike"]["error"]["slope"] == pytest.approx(100 * (np.abs(found.slope - truth) / truth).mean())
    assert rows["alike"]["area"] == area_under_roc(model.predict(test).novelty, found.novelty)
    assert abs(rows["alike"]["area"] - 0.5) < 0.1
    assert rows["unlabelled"] == {**rows["alike"], "error": {}, "coverage": {}}
    assert (rows["bright"]["area"], rows["bright"]["novel"]) == (1, 1)
    assert "x has steps of 0.25" in rows["coarse"]["refused"]
    card = model.card()
    assert f"| bright | 200 | {rows['bright']['error']['slope']:.3g} | 0% | 100% | 1.00 |" in card
    assert "| coarse | - | - | - | refused | - |" in card
    assert f"* coarse: refused: {rows['coarse']['refused']}" in card
    with pytest.raises(DataError, match="compared with held-out runs like them: give held_out too"):
        fit_parameter_model(Moments(), lines(80, 1), elsewhere=others)


def test_another_level_is_recalibrated():
    runs, calibration, test = lines(60, 1), lines(99, 2), lines(20, 3)
    model = fit_parameter_model(Moments(), runs, calibration, level=0.9)
    other = fit_parameter_model(Moments(), runs, calibration, level=0.5)
    assert model.predict(test, level=0.5).drop_attrs().identical(other.predict(test).drop_attrs())
    assert (model.predict(test).slope_high > model.predict(test, level=0.5).slope_high).all()
    with pytest.warns(UserWarning, match="99 calibration runs are too few for level 0.995: the intervals are infinite"):
        assert np.isinf(model.predict(test, level=0.995).slope_high).all()


def test_no_label_of_new_runs_is_read(model, held_out):
    """Permuting, or removing, the labels of new runs changes no prediction, interval or flag."""
    expected = model.predict(held_out)
    permuted = held_out.replace(parameters={"viscosity": held_out.parameters["viscosity"].flip(0)})
    assert model.predict(permuted).identical(expected)
    assert model.predict(permuted.to_xarray()).drop_attrs().identical(expected.drop_attrs())
    assert model.predict(held_out.without_parameters()).drop_attrs().identical(expected.drop_attrs())


def test_labels_of_held_out_runs_change_nothing_but_the_measured_coverage(encoder, labelled, held_out):
    permuted = held_out.replace(parameters={"viscosity": held_out.parameters["viscosity"].flip(0)})
    one, other = (fit_parameter_model(encoder, labelled, held_out=runs) for runs in (held_out, permuted))
    assert one.predict(held_out).identical(other.predict(held_out))
    assert one.record["coverage"] != other.record["coverage"]


def test_a_prediction_depends_on_its_run_only(encoder, labelled, held_out):
    """Alone, in another order, and read in other pieces: the same views, the same answer."""
    views = Views(strengths={"galilean_boost": 0.3}, window=(16, 32), count=3)
    model = fit_parameter_model(encoder, labelled, views=views, units=UNITS)
    whole = model.features(held_out)
    xr.testing.assert_identical(model.features(held_out, batch=5), whole)
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(1))
    xr.testing.assert_identical(model.features(held_out[order]), whole.isel(trajectory=order.numpy()))
    xr.testing.assert_identical(model.features(held_out[7]), whole.isel(trajectory=[7]))
    alone, all_of_them = model.predict(held_out[7]), model.predict(held_out).isel(trajectory=[7])
    xr.testing.assert_allclose(alone, all_of_them, rtol=1e-12)


def test_it_predicts_better_than_the_mean_and_says_the_range(model, labelled, held_out):
    truth = held_out.parameters["viscosity"].numpy()
    found = model.predict(held_out)
    mean = float(labelled.parameters["viscosity"].log().mean().exp())
    assert np.abs(np.log(found.viscosity / truth)).mean() < 0.5 * np.abs(np.log(mean / truth)).mean()
    assert (found.viscosity_low <= found.viscosity).all()
    assert (found.viscosity <= found.viscosity_high).all()
    assert found.viscosity.attrs["units"] == found.viscosity_low.attrs["units"] == "length^2/time"
    target = model.targets[0]
    assert (target.low, target.high) == (
        float(labelled.parameters["viscosity"].min()),
        float(labelled.parameters["viscosity"].max()),
    )
    assert repr(model).startswith("ParameterModel(viscosity in [0.0")


def test_several_targets_each_on_its_scale(encoder, labelled, held_out):
    """A second target on a linear scale, zero and negative values allowed, leaves the first as it is."""

    def with_excess(runs):
        return runs.replace(parameters={**runs.parameters, "excess": runs.parameters["viscosity"] - 0.1})

    both = fit_parameter_model(encoder, with_excess(labelled))
    assert {t.name: t.scale for t in both.targets} == {"viscosity": "log", "excess": "linear"}
    alone = fit_parameter_model(encoder, labelled)
    found = both.predict(held_out)
    assert found.viscosity.identical(alone.predict(held_out).viscosity)
    truth = with_excess(held_out).parameters["excess"].numpy()
    assert np.corrcoef(found.excess, truth)[0, 1] > 0.9
    one = fit_parameter_model(encoder, with_excess(labelled), targets="excess")
    assert set(one.predict(held_out).data_vars) == {"excess", "excess_low", "excess_high", "novelty", "in_distribution"}


def test_nearest_neighbours_and_a_trained_head_as_readouts(encoder, labelled, held_out):
    near = fit_parameter_model(encoder, labelled, readout="neighbours", novelty="neighbours").predict(held_out)
    low, high = (float(f(labelled.parameters["viscosity"])) for f in (torch.min, torch.max))
    assert ((near.viscosity >= low) & (near.viscosity <= high)).all()
    task = ParameterRegression(copy.deepcopy(encoder), trained="none")
    labels = labelled.parameters["viscosity"].log()
    task.target_mean.fill_(labels.mean())
    task.target_std.fill_(0.1 * labels.std())  # an untrained head; this keeps it within the labels
    task.eval()
    readout = HeadReadout(task.head, 0, task.target_mean.tolist(), task.target_std.tolist())
    model = fit_parameter_model(task.encoder, labelled[:24], labelled[24:], readout=readout)
    assert np.allclose(model.predict(held_out).viscosity, task.estimate(held_out), rtol=1e-5)
    with pytest.raises(DataError, match="give calibration runs it was not trained on"):
        fit_parameter_model(encoder, labelled, readout=readout)
    with pytest.raises(DataError, match="which a trained head has all seen. Choose interval='constant'"):
        fit_parameter_model(encoder, labelled[:24], labelled[24:], readout=readout, interval="quantile")


def test_runs_of_a_group_are_left_out_together(encoder, labelled):
    group = np.arange(48) // 4
    model = fit_parameter_model(encoder, labelled, groups=group, folds=5)
    fold = model.targets[0].conformal.fold
    assert all(len(set(fold[group == g])) == 1 for g in set(group))
    assert len(set(fold)) == 5
    with pytest.raises(DataError, match="3 groups for 48 labelled runs"):
        fit_parameter_model(encoder, labelled, groups=[0, 1, 2])
    with pytest.raises(DataError, match="1 groups of labelled runs; expected 2 or more"):
        fit_parameter_model(encoder, labelled, groups=np.zeros(48))


def test_fitting_changes_neither_the_encoder_nor_the_random_numbers(encoder, labelled):
    before = {n: v.clone() for n, v in encoder.state_dict().items()}
    state = torch.get_rng_state()
    fit_parameter_model(encoder, labelled, views=Views(reflections=True, count=2))
    assert all(torch.equal(v, before[n]) for n, v in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": "viscosty"}, "no parameter 'viscosty'. Did you mean 'viscosity'?"),
        ({"targets": {"viscosity": "decibel"}}, "no scale 'decibel'"),
        ({"views": Views(moves=("viscosity",))}, "views that move viscosity cannot be averaged"),
        ({"targets": []}, "no parameter to predict"),
        ({"interval": "quantiles"}, "no interval 'quantiles'. Did you mean 'quantile'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(encoder, labelled, changes, message):
    with pytest.raises((DataError, SchemaError), match=message):
        fit_parameter_model(encoder, labelled, **changes)


def test_few_labels_and_labels_without_a_logarithm_are_refused(encoder, labelled):
    with pytest.raises(DataError, match="5 labelled runs; expected 6 or more"):
        fit_parameter_model(encoder, labelled[:5])
    negative = labelled.replace(parameters={"viscosity": -labelled.parameters["viscosity"]})
    with pytest.raises(
        DataError, match="must be positive and finite to be regressed on the log scale.*Set its scale to linear"
    ):
        fit_parameter_model(encoder, negative, targets={"viscosity": "log"})
    unknown = labelled.replace(parameters={"viscosity": labelled.parameters["viscosity"] * math.nan})
    with pytest.raises(DataError, match="'viscosity' is not finite in 48 of 48"):
        fit_parameter_model(encoder, unknown)


# ------------------------------------------------------------------------------------------- novelty


@pytest.fixture(scope="module")
def strangers():
    """Runs on the grid of training that differ in one thing: the range of the viscosity, or the equation."""
    same = {"initial_condition": load_recipe("burgers_small").content["initial_condition"]}
    small = load_recipe("burgers_small").content["observation"]
    thick = load_recipe("burgers_small", overrides={"parameters.viscosity.low": 0.4, "parameters.viscosity.high": 0.8})
    # No steepening: what is left of Burgers' equation is the heat equation, from the same initial fields.
    overrides = {f"observation.{k}": small[k] for k in ("points", "frames", "start", "end", "noise")}
    overrides |= {"parameters.diffusivity.low": 0.05, "parameters.diffusivity.high": 0.2, **same}
    return {
        "out of range": simulate(thick, "test", range(48)),
        "other equation": simulate(load_recipe("heat", overrides=overrides), "test", range(48)),
    }


@pytest.mark.parametrize("kind", ["out of range", "other equation"])
@pytest.mark.parametrize("method", ["mahalanobis", "neighbours"])
def test_novelty_tells_other_runs_from_those_of_training(labelled, held_out, strangers, kind, method):
    model = fit_parameter_model(random_encoder(labelled, seed=1), labelled, novelty=method)
    known = model.predict(held_out)
    other = model.predict(strangers[kind].replace(equation="burgers"))
    score = area_under_roc(known.novelty, other.novelty)
    print(f"{kind}, {method}: area {score:.3f}, flagged {1 - float(other.in_distribution.mean()):.2f}")
    assert score > (0.8 if method == "mahalanobis" else 0.7)
    assert float(known.in_distribution.mean()) > 0.9
    target = model.targets[0]
    within = (other.viscosity >= target.low) & (other.viscosity <= target.high)
    assert (other.in_distribution == ((other.novelty <= 1) & within)).all()


def test_a_prediction_outside_the_labels_is_flagged_however_close_the_features_are(encoder, labelled, held_out):
    keep = labelled.parameters["viscosity"] < labelled.parameters["viscosity"].quantile(0.8)
    model = fit_parameter_model(encoder, labelled[keep.nonzero()[:, 0]])
    found = model.predict(held_out)
    outside = (found.viscosity > model.targets[0].high) | (found.viscosity < model.targets[0].low)
    assert outside.sum() >= 5 and not found.in_distribution[outside].any()
    assert (found.in_distribution == (found.novelty <= 1) & ~outside).all()


def test_unlabelled_runs_say_what_runs_are_like(encoder, labelled, held_out, strangers):
    """With few labels the unlabelled runs make the distance and the labelled ones its threshold; predictions stay."""
    few = labelled[:20]
    more = simulate(load_recipe("burgers_small"), "unlabelled", range(96))
    alone, helped = fit_parameter_model(encoder, few), fit_parameter_model(encoder, few, unlabelled=more)
    assert helped.predict(held_out).viscosity.equals(alone.predict(held_out).viscosity)
    # Twenty runs set the threshold: one of them lies on it, whatever the level asked for.
    assert float(helped.predict(few).novelty.max()) == pytest.approx(1.0)
    assert float((helped.predict(held_out).novelty <= 1).mean()) > 0.85
    scores = [
        area_under_roc(
            m.predict(held_out).novelty, m.predict(strangers["other equation"].replace(equation="burgers")).novelty
        )
        for m in (alone, helped)
    ]
    print(f"area with 20 labels: {scores[0]:.3f} alone, {scores[1]:.3f} with 96 unlabelled runs")
    assert scores[1] > max(0.8, scores[0])


def test_an_encoder_that_is_told_the_grid_is_told_it(labelled, held_out):
    encoder = ConvEncoder(width=4, blocks=(1,), spacing=True).eval()
    model = fit_parameter_model(encoder, labelled)
    stretched = held_out.replace(time=held_out.time * 2)
    with pytest.warns(UserWarning, match="time interpolated from steps of 0.1739 to 0.08696|frames outside the range"):
        assert not np.allclose(model.predict(stretched).viscosity, model.predict(held_out).viscosity)
    features = SimulationEncoder(encoder).fit(held_out)
    assert features.transform(held_out).shape == (64, encoder.feature_dim)
    with pytest.raises(ValueError, match="told the time step and the grid spacing, which an array does not have"):
        features.transform(held_out.fields.numpy())
