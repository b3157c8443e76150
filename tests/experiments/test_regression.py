"""The few-label comparison: nothing leaks, floors are floors, intervals and shifts are what they say."""

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pdessl
from pdessl import Trajectories, catalog, cli
from pdessl.cli.regress import counts
from pdessl.data import generate
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.tables import findings
from pdessl.experiments.comparison import compare_methods
from pdessl.experiments.comparison_result import as_report
from pdessl.experiments.estimates import Classical
from pdessl.experiments.quickstart import read_settings
from pdessl.experiments.regress import default_recipe, regress
from pdessl.experiments.regression import Regression
from pdessl.experiments.robustness import INTERVALS, Intervals, Robustness, interval_rows, reliability
from pdessl.experiments.scales import declared_scale
from pdessl.experiments.shifts import Shift, applicable, shifted
from pdessl.experiments.supervision import Supervision
from pdessl.inference import Views, features, fit_parameter_model
from pdessl.inference.readouts import NeighbourReadout
from pdessl.models import ConvEncoder, Encoder, save_pretrained

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers


@pytest.fixture
def data(small_store):
    module = PDEDataModule(small_store)
    module.setup()
    return module


def encoder(seed=0, features=None):
    torch.manual_seed(seed)
    return Encoder(ConvEncoder(width=4, blocks=(1, 1), features=features), [0.0], [0.4]).eval()


SHORT = Supervision(learning_rates=(1e-2,), steps=4, check_every=2)
SETTINGS = Regression(
    labels=(8, 0),
    seeds=2,
    scratch=SHORT,
    moved=Supervision(
        learning_rates=(1e-2,),
        steps=4,
        check_every=2,
        views=Views({"viscosity_scaling": 0.3}, moves=("viscosity",), count=2),
    ),
    others={"attentive": Supervision(learning_rates=(1e-2,), steps=4, check_every=2, readout="tokens", trained="none")},
    classical=Classical(),
    intervals=Intervals(),
    robustness=Robustness({"noisy": Shift(noise=0.1), "coarse and short": Shift(every=2, share=0.5)}),
)


def test_permuted_test_labels_change_scores_and_nothing_else(small_store, data):
    before = compare_methods(encoder(), data, SETTINGS)
    other = PDEDataModule(small_store)
    other.setup()
    runs = other.test
    swapped = runs.replace(parameters={"viscosity": runs.parameters["viscosity"].flip(0)})
    type(other).test, kept = property(lambda self: swapped if self is other else kept.fget(self)), type(other).test
    try:
        after = compare_methods(encoder(), other, SETTINGS)
    finally:
        type(other).test = kept
    assert before.predictions.keys() == after.predictions.keys() >= {"frozen", "physics", "scratch", "moved"}
    for method, values in before.predictions.items():
        assert torch.equal(values, after.predictions[method]), method
    assert before.chosen == after.chosen
    first, second = (next(r for r in found.rows if r["method"] == "frozen") for found in (before, after))
    assert first["relative_error"] != second["relative_error"]


def test_every_method_is_there_bounded_and_the_mean_is_the_floor(data):
    result = compare_methods(encoder(), data, SETTINGS)
    rows = {(r["method"], r["labels"]): r for r in result.rows}
    methods = {"law", "frozen", "neighbours", "random", "physics", "mean", "scratch", "moved", "attentive"}
    assert {m for m, n in rows if n == 16} == {m for m, n in rows if n == 8} == methods
    assert {m for m, n in rows if n is None} == {"least_squares", "weak_form"}
    # Predict the mean of all labels on the log scale: its NMSE is 1 up to the distance of the two means.
    known, truth = data.labelled_subset(None).parameters["viscosity"], data.test.parameters["viscosity"]
    guess = known.log().mean().exp()
    wanted = 1 + (guess - truth.mean()) ** 2 / truth.var(correction=0)
    assert rows["mean", 16]["nmse"]["values"][0] == pytest.approx(float(wanted), rel=1e-6)
    labels = data.labelled_subset(8, 0).parameters["viscosity"].log()
    room = (labels.max() - labels.min()) / 2
    for method in ("frozen", "random", "physics", "scratch"):
        values = result.predictions[method].log()
        assert (values >= labels.min() - room - 1e-9).all() and (values <= labels.max() + room + 1e-9).all(), method
    sections, _ = as_report(result, SETTINGS)
    assert {r["runs"] for r in sections["intervals"]["rows"]} == {"as in training", "noisy", "coarse and short"}
    assert {(r["runs"], r["title"]) for r in sections["robustness"]["rows"]} >= {
        ("noisy", "supervised from scratch"),
        ("coarse and short", "least squares, weak form"),
    }
    json.dumps(sections)


def test_the_report_says_where_hand_made_features_win(data):
    rows = compare_methods(encoder(), data, Regression(labels=(16,), seeds=2)).rows
    at = {r["method"]: r["relative_error"] for r in rows}
    lines = " ".join(findings(rows))
    wins = at["physics"]["mean"] < min(at[m]["mean"] for m in ("frozen", "trunk", "neighbours") if m in at)
    assert ("loses to hand-made physics features" in lines) == wins
    for r in rows:
        if r["method"] == "physics":
            r["relative_error"] = {**r["relative_error"], "mean": 1e-3}
    assert "loses to hand-made physics features (spectra, moments) at 16 labels (0.001 against" in " ".join(
        findings(rows)
    )


def test_an_estimate_that_cannot_be_made_is_noted_and_the_rest_goes_on(data):
    settings = Regression(labels=(8,), seeds=1, classical=Classical(equation="boussinesq_velocity"))
    result = compare_methods(encoder(), data, settings)
    assert {r["method"] for r in result.rows} == {"law", "frozen", "neighbours", "random", "physics", "mean"}
    assert "least squares, pointwise: boussinesq_velocity lives on the axes x, y" in " ".join(result.notes)


def test_an_encoder_of_other_fields_or_dimensions_is_refused_before_anything_is_trained(data):
    two = Encoder(ConvEncoder(in_channels=2, width=4, blocks=(1,)), [0.0, 0.0], [1.0, 1.0]).eval()
    plane = Encoder(ConvEncoder(width=4, blocks=(1,), periodic=(True, True)), [0.0], [1.0]).eval()
    for network, why in ((two, "was trained on 2 fields and got 1"), (plane, "with 2 space axes")):
        with pytest.raises(
            ShapeError, match=rf"cannot read .* \(u over time, x\): .*{why}.* Pretrain one on data like"
        ):
            compare_methods(network, data, SETTINGS)


def test_an_encoder_of_another_equation_is_read_with_a_note(data):
    network = encoder()
    network.trained_on = {"equation": "kuramoto_sivashinsky", "steps": {"time": [0.2, 0.2], "x": [0.5, 0.5]}}
    result = compare_methods(network, data, Regression(labels=(8,), seeds=1, methods=("frozen", "mean")))
    assert "pretrained on runs of kuramoto_sivashinsky, these are of burgers" in result.notes[0]
    plain = compare_methods(encoder(), data, Regression(labels=(8,), seeds=1, methods=("frozen", "mean")))
    assert torch.equal(result.predictions["frozen"], plain.predictions["frozen"])  # on the grid the runs have
    assert not any("pretrained on runs" in note for note in plain.notes)


def test_networks_read_other_grids_on_that_of_training_or_say_why_not(data):
    shifts = {"half the points": Shift(every=2), "every sixteenth": Shift(every=16), "noisy": Shift(noise=0.1)}
    settings = Regression(labels=(0,), seeds=1, scratch=SHORT, intervals=Intervals(), robustness=Robustness(shifts))
    result = compare_methods(encoder(), data, settings)
    at = {(r["runs"], r["method"]): r["relative_error"] for r in result.robustness}
    plain = next(r for r in result.rows if r["method"] == "frozen")["relative_error"]["mean"]
    assert at["half the points", "frozen"] == pytest.approx(plain, rel=0.3)
    assert {m for n, m in at if n == "half the points"} == {"mean", "law", "frozen", "random", "physics", "scratch"}
    assert {m for n, m in at if n == "every sixteenth"} <= {"mean", "physics", "law"}
    assert {r["runs"] for r in result.intervals} == {"as in training", "half the points", "noisy"}
    notes = "\n".join(result.notes)
    assert "half the points: brought to the grid of training, but for the law: x interpolated from steps of" in notes
    assert "frozen encoder, ridge on its features, every sixteenth: not read: run" in notes


def test_runs_too_short_for_a_spectrum_leave_hand_made_features_out(data):
    settings = Regression(labels=(8,), seeds=1, robustness=Robustness({"five frames": Shift(share=0.14)}))
    result = compare_methods(encoder(), data, settings)
    assert {r["method"] for r in result.robustness} <= {"mean", "law", "frozen", "random"}
    assert "hand-made physics features, ridge on every view, five frames: not read: physics_fea" in " ".join(
        result.notes
    )


class ShorterTest(PDEDataModule):
    @property
    def test(self):
        runs = super().test
        return runs.window(slice(0, runs.fields.shape[2] - 4))


def test_shorter_test_runs_cost_no_floor(small_store):
    module = ShorterTest(small_store)
    module.setup()
    result = compare_methods(encoder(), module, Regression(labels=(8,), seeds=1, methods=("physics", "mean")))
    assert {"physics", "mean"} <= {row["method"] for row in result.rows}
    assert not any("hand-made" in line for line in result.notes)


def test_the_scale_is_that_of_dataset_or_equation(data, ks_store):
    assert declared_scale(data, "viscosity") == "log"
    assert declared_scale(data, "initial_mean") == "linear"
    other = PDEDataModule(ks_store)
    other.setup()
    assert declared_scale(other, "hyperviscosity") == "log"  # positive in the equation's file
    assert declared_scale(other, "steepening") == "linear"
    with pytest.raises(DataError, match="no parameter 'viscosty'. Did you mean 'viscosity'"):
        compare_methods(encoder(), data, Regression(target="viscosty", labels=(8,)))


def test_every_row_in_closed_form_is_the_model_that_is_saved(data, tmp_path):
    """Bit for bit: a row of the table, the model behind it, and that model saved, loaded and given the test runs."""
    views = Views({"space_translation": 0.5}, window=(16, 32), count=2)
    settings = Regression(labels=(8, 0), seeds=2, views=views, classical=Classical())
    result = regress(encoder(features=3), data, settings=settings, out=tmp_path / "out", announce=lambda line: None)
    at = {(r["method"], r["labels"]): r["relative_error"]["values"] for r in result.rows}
    assert {m for m, n in at if n} == {"law", "frozen", "trunk", "neighbours", "mean", "random", "physics"}
    assert at["trunk", 16] != at["frozen", 16]
    for (method, n, seed), model in result.models.items():
        folder = model.save(tmp_path / f"{method}{n}{seed}")
        found = pdessl.load(folder).measure(data.test)
        assert found.parameters["viscosity"].error == at[method, n][seed], (method, n, seed)
    saved = pdessl.load(tmp_path / "out").measure(data.test).parameters["viscosity"]
    assert result.best() == "law" and saved.error == at["law", 16][0]
    assert (saved.prediction == result.model.predict(data.test)["viscosity"].values).all()
    floors = result.model.record["floors"]
    assert floors["random encoder, same ridge, %"] == pytest.approx(np.mean(at["random", 16]))


def test_a_law_is_compared_saved_and_predicts_from_the_command_line(small_store, data, tmp_path, capsys):
    assert cli.main(["discover", str(small_store), "--out", str(tmp_path / "law")]) == 0
    words = ["--encoder", str(tmp_path / "law"), "--data", str(small_store), "--labels", "4,all", "--seeds", "1"]
    assert cli.main(["regress", *words, "--preset", "quick", "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())["regression"]
    at = {(r["method"], r["labels"]): r["relative_error"]["mean"] for r in report["rows"]}
    assert {m for m, n in at if n} == {"law", "neighbours", "mean", "physics"}
    assert at["law", 4] < 0.3 * at["mean", 4]
    capsys.readouterr()
    out = tmp_path / "v.csv"
    assert cli.main(["predict", "--model", str(tmp_path / "out"), str(small_store), "--split", "test",
                     "--out", str(out)]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "expected error of viscosity:" in said and "held-out runs); best floor: " in said
    assert len(out.read_text().splitlines()) == 1 + len(data.test)


def test_a_users_own_encoder_goes_without_what_cannot_be_built_untrained(data):
    class Own(torch.nn.Module):
        def forward(self, fields):
            return torch.stack([fields.mean((1, 2, 3)), fields.square().mean((1, 2, 3))], dim=1)

    result = compare_methods(Own(), data, Regression(labels=(8,), seeds=1, scratch=SHORT))
    assert {r["method"] for r in result.rows} == {"law", "frozen", "neighbours", "mean", "physics"}
    notes = " ".join(result.notes)
    assert "random encoder, same ridge: Own has no attribute init_args" in notes
    assert "supervised from scratch: Own has no attribute init_args" in notes


def test_neighbours_choose_their_number_by_leaving_out():
    x = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]
    noise = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Labels that follow the features are read from the nearest; labels that do not, from as many as there are.
    assert (NeighbourReadout.fit(x, x[:, 0]).predict(x) - x[:, 0]).abs().max() < 0.04
    assert NeighbourReadout.fit(x, noise).predict(x).std() < 0.6 * noise.std()
    assert NeighbourReadout.fit(x, x[:, 0]).neighbours < NeighbourReadout.fit(x, noise).neighbours


# ----------------------------------------------------------------------------------------- intervals


class Given:
    """Features that the first nodes of a field hold."""

    def features(self, runs):
        return runs.fields[:, 0, 0, :2].double()


def heteroscedastic(count, seed):
    stream = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 2, generator=stream, dtype=torch.float64)
    noise = torch.randn(count, generator=stream, dtype=torch.float64)
    nodes = torch.arange(4, dtype=torch.float64).expand(count, 4)
    return Trajectories(
        fields=torch.cat([x, x], dim=1)[:, None, None].expand(count, 1, 3, 4).clone(),
        time=nodes[:, :3].clone(),
        space=(nodes.clone(),),
        lengths=torch.full((count, 1), 4.0, dtype=torch.float64),
        parameters={"y": 10 + 4 * x[:, 0] + (0.02 + 0.5 * x[:, 0]) * noise},
    )


def of_every_kind():
    given = heteroscedastic(200, 0), heteroscedastic(300, 1)
    return {kind: fit_parameter_model(Given(), *given, {"y": "linear"}, interval=kind) for kind in INTERVALS}


def test_intervals_cover_what_they_promise_and_adapt():
    models, tests = of_every_kind(), heteroscedastic(1000, 2)
    rows = {r["kind"]: r for r in interval_rows(models, {"alike": tests}, "y")}
    for row in rows.values():
        # 300 calibration and 1000 test runs: three standard deviations of the share are 0.06.
        assert abs(row["share"] - 0.9) < 0.06, row
    assert rows["constant"]["spread_of_widths"] < 1.5
    assert rows["adaptive"]["spread_of_widths"] > 2
    assert rows["quantile"]["spread_of_widths"] > 2
    curve = reliability(models, tests, "y", (0.5, 0.9))
    assert all(abs(shares[0] - 0.5) < 0.1 for shares in curve.values())


def test_under_a_shift_the_promise_is_measured_to_be_broken():
    runs = heteroscedastic(1000, 2)
    moved = runs.replace(parameters={"y": runs.parameters["y"] + 3})
    rows = interval_rows(of_every_kind(), {"moved": moved}, "y")
    assert all(r["share"] < 0.3 < r["expected"][0] for r in rows)


# -------------------------------------------------------------------------------------------- shifts


def test_shifts_do_what_they_say(data):
    runs = data.test
    assert torch.equal(shifted(data, Shift()).fields, runs.fields)
    noisy = shifted(data, Shift(noise=0.5))
    rms = runs.fields.square().mean().sqrt()
    assert float((noisy.fields - runs.fields).std() / rms) == pytest.approx(0.5, rel=0.05)
    small = shifted(data, Shift(every=2, share=0.5))
    assert torch.equal(small.fields, runs.fields[:, :, :18, ::2])
    assert torch.equal(small.space[0], runs.space[0][:, ::2]) and torch.equal(small.lengths, runs.lengths)
    assert torch.equal(small.time, runs.time[:, :18])
    assert small.boundary == runs.boundary
    blind = shifted(data, Shift(without=("u",)))
    assert float(blind.fields.std()) == pytest.approx(0, abs=1e-6)
    assert torch.equal(noisy.parameters["viscosity"], runs.parameters["viscosity"])


def test_lost_frames_are_filled_in_linearly(data):
    runs = data.test
    ramp = runs.replace(fields=(runs.time[:, None, :, None] * torch.ones_like(runs.fields)).float())
    kept, type(data).test = type(data).test, property(lambda self: ramp)
    try:
        filled = shifted(data, Shift(lost=0.5))
    finally:
        type(data).test = kept
    torch.testing.assert_close(filled.fields, ramp.fields)  # a straight line is filled in exactly
    changed = shifted(data, Shift(lost=0.25)).fields != runs.fields
    per_run = changed.any(dim=3).any(dim=1).sum(dim=1)
    assert (per_run == round(0.25 * 34)).all()
    assert not changed[:, :, [0, -1]].any()


def test_other_initial_conditions_are_simulated(data):
    other = shifted(data, Shift(simulate={"initial_condition.rms": 0.1}))
    assert len(other) == len(data.test)
    assert other.fields.std() < 0.5 * data.test.fields.std()
    with pytest.raises(DataError, match="expected noise >= 0"):
        shifted(data, Shift(lost=1.0))
    with pytest.raises(DataError, match="no field 'v'"):
        shifted(data, Shift(without=("v",)))


def test_another_equation_is_simulated_on_the_grid_of_the_data_from_initial_fields_like_theirs(data):
    runs, test = shifted(data, Shift(dataset="heat", simulate={"parameters.diffusivity.high": 0.05})), data.test
    assert (runs.equation, runs.field_names, runs.fields.shape) == ("heat", test.field_names, test.fields.shape)
    assert torch.equal(runs.time, test.time) and torch.equal(runs.space[0], test.space[0])
    assert float(runs.parameters["diffusivity"].max()) <= 0.05
    first, known = (r.fields[:, :, 0].std() for r in (runs, test))
    assert float(first / known) == pytest.approx(1, rel=0.3)
    two = test.replace(fields=test.fields.expand(-1, 2, -1, -1), field_names=("u", "v"))
    with pytest.raises(DataError, match="heat has the fields u, .* has u, v: give a dataset with as many"):
        shifted(SimpleNamespace(store=data.store, test=two), Shift(dataset="heat"))


def test_data_that_were_not_simulated_here_go_without_the_shifts_that_simulate():
    lab = SimpleNamespace(store=SimpleNamespace(name="lab.h5"))
    shifts = {"noisy": Shift(noise=0.1), "other fields": Shift(simulate={"seed": 3}), "heat": Shift(dataset="heat")}
    found, reasons = applicable(lab, shifts)
    assert list(found) == ["noisy"]
    assert [reason.split(":")[0] for reason in reasons] == ["other fields", "heat"]
    assert "lab.h5 was not simulated here" in reasons[0]


def test_windows_shrink_to_the_runs_and_features_do_not_see_labels(data):
    views = Views({"space_translation": 0.5}, window=(32, 64), count=2)
    small = shifted(data, Shift(every=2, share=0.5))
    assert views.within(small).window == (18, 32)
    assert Views().within(small) == Views()
    known = features(encoder(), small, views.within(small), "burgers", seed=1)
    assert torch.equal(known, features(encoder(), small.without_parameters(), views.within(small), "burgers", seed=1))


# ------------------------------------------------------------------------------------ recipes, verb


def test_groups_that_share_a_parameter_lie_in_one_split(tmp_path):
    size = {"unlabelled": 8, "labelled": 16, "validation": 8, "test": 8}
    generate("burgers_small", tmp_path / "data", size=size, overrides={"parameters.viscosity.per": 4})
    module = PDEDataModule(tmp_path / "data")
    parts = [getattr(module, name).parameters["viscosity"].tolist() for name in ("labelled", "validation", "test")]
    sets = [set(p) for p in parts]
    assert [len(s) for s in sets] == [4, 2, 2]  # four runs share each value
    assert not (sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2])


@pytest.mark.parametrize("name", [n for n in catalog.names("configs") if n.startswith("regression/")])
def test_every_recipe_of_a_comparison_is_read(name):
    settings = read_settings(name).regression
    assert settings.labels[-1] == 0
    assert settings.intervals is not None
    assert settings.robustness.shifts
    if "quick" in catalog.read("configs", name).get("presets", {}):
        assert read_settings(name, "quick").regression.trainings() == {}


def test_numbers_of_labels_on_the_command_line(data):
    assert counts("16,64,all") == [16, 64, 0]
    assert counts("all") == [0]
    assert counts("8") == [8]
    with pytest.raises(argparse.ArgumentTypeError, match="'all' comes last"):
        counts("all,16")
    assert default_recipe(str(data.path)) == "regression/burgers"


@pytest.mark.slow
def test_the_verb_writes_a_report_and_a_model_that_predicts(small_store, tmp_path, capsys):
    save_pretrained(tmp_path / "encoder", encoder(), {})
    words = ["--encoder", str(tmp_path / "encoder"), "--data", str(small_store), "--preset", "quick"]
    assert cli.main(["regress", *words, "--labels", "8,all", "--seeds", "1", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"pdessl predict --model {tmp_path / 'out'} NEW_RUNS.nc --out viscosity.csv" in said
    assert "heat equation: novelty AUROC" in said
    assert "| heat equation | 8 |" in (tmp_path / "out/model/card.md").read_text()
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert {r["labels"] for r in report["regression"]["rows"]} == {8, 16, None}
    page = (tmp_path / "out/report.html").read_text()
    assert "promised coverage" in page or "Promised and measured coverage" in page
    assert "Runs unlike those of training" in page and "The saved model on other runs" in page
    model = pdessl.load(tmp_path / "out/model")
    found = model.predict(pdessl.open(small_store).load("test"))
    assert np.isfinite(found["viscosity"].values).all()
    assert cli.main(["predict", "--model", str(tmp_path / "out"), str(small_store), "--split", "test"]) == 0


@pytest.mark.parametrize("target", ["initial_cosine_1", "initial_power_1"])
def test_initial_coefficients_and_their_power_are_targets(tmp_path, capsys, target):
    """From the command line to predictions: raw coefficients are stored, their power is made of them."""
    size = {"unlabelled": 16, "labelled": 16, "validation": 12, "test": 12}
    changes = {"observation.points": 64, "observation.frames": 36, "initial_condition.record": True}
    store = generate("burgers_small", tmp_path / "data", size=size, overrides=changes, progress=False)
    save_pretrained(tmp_path / "encoder", encoder(), {})
    words = ["--encoder", str(tmp_path / "encoder"), "--data", str(tmp_path / "data"), "--preset", "quick"]
    words += ["--labels", "all", "--seeds", "1", "--set", "regression.robustness=null"]
    assert cli.main(["regress", *words, "--target", target, "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())["regression"]
    assert (report["target"], report["scale"]) == (target, "linear")
    assert {"frozen", "random", "physics", "mean"} <= {r["method"] for r in report["rows"]}
    assert any(f"'{target}'" in note for note in report["notes"])  # no term of the equation holds it
    found = pdessl.load(tmp_path / "out/model").predict(store.load("test"))
    assert np.isfinite(found[target].values).all()
    assert (found[f"{target}_low"] <= found[target]).all()
    if "power" in target:
        assert cli.main(["regress", *words, "--target", "initial_power_9", "--out", str(tmp_path / "none")]) == 2
        assert "no 'initial_power_9'. Did you mean" in capsys.readouterr().err
