"""The comparison of time-steppers: what each row is told, what it reads, and what is written."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import pdessl
from pdessl import catalog, cli
from pdessl.data import generate
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError, FormatError, SchemaError, SymmetryError
from pdessl.experiments.stepping import Stepping, compare_steppers
from pdessl.experiments.stepping_conditions import told
from pdessl.experiments.stepping_scores import as_report, scores, table
from pdessl.experiments.training import quietly
from pdessl.inference.conditions import Components
from pdessl.inference.surrogates import banded
from pdessl.inference.views import Views
from pdessl.models import ConvEncoder, Encoder
from pdessl.schema import override

TINY = Stepping(context=8, steps=4, seeds=1, width=4, blocks=1, components=2)


@pytest.fixture(scope="module")
def data(small_store):
    module = PDEDataModule(small_store)
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(ConvEncoder(width=4, blocks=(1,)), [0.0], [0.4]).eval()


def test_no_condition_reads_beyond_the_context(data, encoder):
    names = (
        "none", "parameter", "representation", "predicted", "posterior", "operator", "hybrid", "shuffled", "random",
        "law",
    )  # fmt: skip
    settings = Stepping(conditions=names, context=12, components=2)
    train, test = data.labelled, data.test
    found = told(encoder, data, train, test, 12, settings, lambda line: None)
    assert tuple(found) == names

    def spoilt(runs):
        fields = runs.fields.clone()
        fields[:, :, 12:] = 7.0
        return runs.replace(fields=fields)

    again = told(encoder, data, spoilt(train), spoilt(test), 12, settings, lambda line: None)
    for name in names:
        for a, b in zip(found[name].vectors(0), again[name].vectors(0), strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b), name
    # Floors: the same vectors, of other runs; another draw for every seed.
    kept, moved = found["representation"].test, found["shuffled"].vectors(0)[1]
    assert torch.equal(kept.sort(dim=0).values, moved.sort(dim=0).values)
    assert not torch.equal(kept, moved)
    assert not torch.equal(moved, found["shuffled"].vectors(1)[1])
    # What was not known of a prediction: as many values as draws, about the prediction.
    values, middle = found["posterior"].test, found["predicted"].test
    assert values.shape == (settings.draws, len(test), 1)
    assert torch.equal(found["posterior"].train, found["parameter"].train)
    blind = told(
        encoder, data, train, test.without_parameters(), 12,
        Stepping(conditions=("predicted", "posterior"), context=12, components=2), lambda line: None,
    )  # fmt: skip
    assert torch.equal(blind["posterior"].test, values) and torch.equal(blind["predicted"].test, middle)
    with pytest.raises(DataError, match="the test runs have no parameter viscosity: leave out"):
        told(
            encoder, data, train, test.without_parameters(), 12, Stepping(conditions=("parameter",)), lambda line: None
        )
    spread = found["predicted"].condition.prediction.errors.std()
    assert ((values.mean(dim=0) - middle).abs() < spread).all()
    assert (values.std(dim=0) > 0).all()


@pytest.mark.parametrize(("draws", "share"), [(4, 3 / 5), (16, 15 / 17), (19, 0.9), (64, 0.9)])
def test_a_band_holds_the_share_of_further_draws_that_it_says(draws, share):
    values = torch.rand(draws + 1, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(draws))
    _, low, high = banded(values[:-1, :, None, None])
    held = (low[:, 0, 0] <= values[-1]) & (values[-1] <= high[:, 0, 0])
    assert abs(float(held.double().mean()) - share) < 0.02


def test_components_have_deviation_one():
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)
    neck = Components.fit(features, 3)
    torch.testing.assert_close(neck.of(features).T.cov(), torch.eye(3).double())
    assert Components.fit(features, 50).directions.shape[1] == 6


def test_the_exact_solution_scores_zero_and_context_frames_are_no_targets(data):
    test, context = data.test, 8
    truth = test.fields[:, :, context:]
    exact = scores(truth, truth, test, context)
    assert exact.one_step == exact.rollout == exact.pooled == 0
    assert exact.correlated[0] == pytest.approx(float(test.time_step.mean()) * (test.fields.shape[2] - context))
    # A band that the true value leaves in a quarter of the nodes, as wide as half of it.
    low, high = 0.5 * truth, 1.5 * truth
    low, high = torch.minimum(low, high), torch.maximum(low, high)
    low[..., : truth.shape[-1] // 4] = high[..., : truth.shape[-1] // 4] = 9.0
    banded = scores(truth, truth, test, context, (low, high))
    assert banded.covered == pytest.approx(0.75)
    inside = truth[..., truth.shape[-1] // 4 :].double().square().sum() / truth.double().square().sum()
    assert banded.width == pytest.approx(0.5 * float(inside.sqrt()))
    with quietly():
        result = compare_steppers(None, data, Stepping(**{**vars(TINY), "conditions": ("none",)}))
    assert len(result.time) == len(result.scores["none"][0].over_time) == test.fields.shape[2] - context
    assert float(result.time[0]) == pytest.approx(float(test.time[0, context]))


def test_the_law_row_beats_networks_that_hardly_trained(data):
    settings = Stepping(**{**vars(TINY), "conditions": ("none", "operator", "law", "parameter"), "context": 12})
    with quietly():
        result = compare_steppers(None, data, settings)
    pooled = {m: s[0].pooled for m, s in result.scores.items()}
    assert pooled["law"] < 0.1 * min(pooled["persistence"], pooled["none"])
    sections, arrays = as_report(result, settings)
    rows = {r["method"]: r for r in sections["timestepping"]["rows"]}
    assert set(rows) == {"persistence", *settings.conditions}
    low, high = rows["law"]["relative_l2"]["interval"]
    assert low <= rows["law"]["relative_l2"]["mean"] <= high
    assert "the law itself" in table(result)
    assert arrays["rollout/law"].shape == arrays["rollout/truth"].shape


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plane") / "data"
    size = {"unlabelled": 8, "labelled": 8, "validation": 2, "test": 4}
    changes = {"observation.points": 32, "observation.frames": 14, "observation.end": 1.0}
    changes["parameters.viscosity.low"] = 0.08
    generate("navier_stokes_2d_small", folder, size=size, overrides=changes)
    return folder


@pytest.mark.slow
def test_two_dimensions_of_two_fields_and_the_law_of_their_vorticity(plane, tmp_path):
    conditions = ("none", "operator", "law", "parameter")
    settings = Stepping(context=9, steps=2, seeds=1, width=4, blocks=1, network="unet", conditions=conditions)
    with quietly():
        result = pdessl.timestep(None, plane, settings=settings, out=tmp_path, announce=lambda line: None)
    pooled = {m: s[0].pooled for m, s in result.scores.items()}
    assert pooled["law"] < 0.05 * pooled["persistence"]
    ds = pdessl.open(plane).load("test", slice(0, 2)).to_xarray().isel(time=slice(9))
    for name in conditions:
        future = pdessl.load(tmp_path / name).rollout(ds, steps=2)
        assert future.u.shape == future.v.shape == (2, 2, 32, 32)


def test_every_row_is_a_model_and_says_what_it_is_told(data, encoder, tmp_path):
    conditions = ("none", "representation", "recomputed", "predicted", "posterior", "hybrid")
    settings = Stepping(
        conditions=conditions, context=12, steps=3, seeds=1, width=4, blocks=1, components=2, draws=3, derivatives=2,
        spacing=True, also=("other",),
    )  # fmt: skip
    other = {"other": lambda runs: runs.parameters["viscosity"].square() + runs.fields[:, 0, 0, 0].abs().double()}
    wide = Widened(data, other)
    with quietly():
        result = compare_steppers(encoder, wide, settings, out=tmp_path)
    assert set(result.scores) == {"persistence", *conditions}
    section = as_report(result, settings)[0]["timestepping"]
    rows = {r["method"]: r for r in section["rows"]}
    assert sum(line.startswith("The band of 90 %") for line in section["notes"]) == 1
    assert rows["predicted"]["title"] == "conditioned on the predicted viscosity and other"
    assert rows["posterior"]["width"]["mean"] > 0
    assert "covered" not in rows["predicted"]
    # One coarse step of the law, which a network that hardly trained leaves as it is, is a good forecast.
    assert result.scores["hybrid"][0].pooled < 0.1 * min(result.scores[m][0].pooled for m in ("persistence", "none"))
    test = data.test
    ds, steps = test.window(slice(0, 12)).to_xarray(), test.fields.shape[2] - 12
    for name in (n for n in conditions if n != "recomputed"):
        future = pdessl.load(tmp_path / name).rollout(ds, steps)
        torch.testing.assert_close(
            torch.from_numpy(future.u.values[result.row]), result.shown[name], rtol=1e-4, atol=1e-5
        )
        card = (tmp_path / name / "card.md").read_text()
        assert "the time step and the node distances" in card
    band = pdessl.load(tmp_path / "posterior").rollout(ds, steps)
    assert float((band.u_low - band.u).max()) < 1e-6 > float((band.u - band.u_high).max())  # up to rounding
    assert float((band.u_high - band.u_low).max()) > 0
    anew = pdessl.load(tmp_path / "representation").rollout(ds, steps, recompute=12)
    torch.testing.assert_close(torch.from_numpy(anew.u.values[result.row]), result.shown["recomputed"])
    with pytest.raises(ValueError, match="recompute for a posterior.*Leave it out"):
        pdessl.load(tmp_path / "posterior").rollout(ds, steps, recompute=2)
    # Told its steps, a network takes those between which it was trained, here a single one, and no others.
    model = pdessl.load(tmp_path / "none")
    assert model.surrogate.condition_std.tolist() == [1.0, 1.0]  # not what round-off makes of equal logarithms
    with pytest.raises(FormatError, match="was told its steps, from .* in training"):
        model.rollout(ds.isel(x=slice(None, None, 2)), 2)
    assert dataclasses.replace(model, reach={"time": (1e-6, 9.0), "x": (1e-6, 9.0)}).rollout(
        ds.isel(x=slice(None, None, 2)), 2
    )


def test_a_law_without_a_code_is_corrected_all_the_same(data, tmp_path):
    law = pdessl.discover(data.unlabelled.without_parameters(), rank=0, resamples=2)
    assert law.rank == 0
    settings = Stepping(**{**vars(TINY), "conditions": ("none", "hybrid"), "context": 12})
    with quietly():
        result = compare_steppers(law, data, settings, out=tmp_path)
    assert result.scores["hybrid"][0].pooled < 0.5 * result.scores["none"][0].pooled
    future = pdessl.load(tmp_path / "hybrid").rollout(data.test.window(slice(0, 12)), 2)
    torch.testing.assert_close(torch.from_numpy(future.u.values[result.row]), result.shown["hybrid"][:2])
    with pytest.raises(DataError, match="rank 0.: leave out the condition 'operator'"):
        compare_steppers(law, data, Stepping(**{**vars(TINY), "conditions": ("operator",), "context": 12}))


class Widened:
    """Data whose labelled and test runs have further parameters."""

    def __init__(self, data, further):
        self.unlabelled, self.data = data.unlabelled, data
        more = [runs.replace(parameters={**runs.parameters, **{n: f(runs) for n, f in further.items()}})
                for runs in (data.labelled, data.test)]  # fmt: skip
        self.labelled, self.test = more

    def labelled_subset(self, count):
        return self.labelled


def test_conditions_without_what_they_need_are_refused(data):
    with pytest.raises(DataError, match="'recomputed' is that of the network of 'representation': add"):
        compare_steppers(None, data, Stepping(**{**vars(TINY), "conditions": ("none", "recomputed")}))
    with pytest.raises(DataError, match="'representation' needs an encoder, and none was given.*--encoder FOLDER"):
        compare_steppers(None, data, TINY)
    with pytest.raises(DataError, match="no parameter 'viscos'. Did you mean 'viscosity'"):
        compare_steppers(None, data, Stepping(**{**vars(TINY), "target": "viscos", "conditions": ("parameter",)}))


def test_runs_of_training_are_moved_by_symmetries_and_by_nothing_that_moves_what_was_read(data):
    plain = dataclasses.replace(TINY, conditions=("none", "parameter"))
    moved = dataclasses.replace(plain, views=Views({"space_translation": 0.5, "galilean_boost": 0.25}))
    with quietly():
        first, second = (compare_steppers(None, data, s) for s in (plain, moved))
    assert first.scores["persistence"][0].pooled == second.scores["persistence"][0].pooled
    for row in ("none", "parameter"):
        assert np.isfinite(second.scores[row][0].pooled)
        assert first.scores[row][0].pooled != second.scores[row][0].pooled
    with pytest.raises(DataError, match=r"views move viscosity; conditions are read from the context.*Leave out"):
        moving = Views({"galilean_boost": 0.2}, moves=("viscosity",))
        compare_steppers(None, data, dataclasses.replace(plain, views=moving))
    with pytest.raises(DataError, match=r"are windows of \[16, 64\]"):
        compare_steppers(None, data, dataclasses.replace(plain, views=Views(window=(16, 64))))
    nameless = Widened(data, {})
    nameless.labelled = data.labelled.replace(equation=None)
    with pytest.raises(DataError, match=r"these runs name none. Leave out timestepping.views"):
        compare_steppers(None, nameless, moved)
    with quietly():  # what the message says to do
        compare_steppers(None, nameless, dataclasses.replace(plain, conditions=("none",)))
    with pytest.raises(SymmetryError, match="no generator 'boost'"):
        compare_steppers(None, data, dataclasses.replace(plain, views=Views({"boost": 0.2})))


def test_the_command_writes_models_that_load_and_an_animation(small_store, tmp_path, capsys):
    words = ["timestep", "--data", str(small_store), "--condition", "none", "law", "--out", str(tmp_path / "steps")]
    changes = ["timestepping={context: 12, steps: 2, seeds: 1, width: 4, blocks: 1, network: unet}", "workers=1"]
    with quietly():
        assert cli.main([*words, "--set", *changes]) == 0
    assert "| the law itself" in capsys.readouterr().out
    report = json.loads((tmp_path / "steps" / "report.json").read_text())
    assert [r["method"] for r in report["timestepping"]["rows"]] == ["persistence", "law", "none"]
    with Image.open(tmp_path / "steps" / "rollout.gif") as picture:
        assert picture.n_frames == report["timestepping"]["frames"]
    ds = pdessl.open(small_store).load("test", slice(0, 2)).to_xarray()
    for name in ("none", "law"):
        model = pdessl.load(tmp_path / "steps" / name)
        future = model.rollout(ds.isel(time=slice(0, 12)), steps=3)
        assert future.u.shape == (2, 3, 64)
        assert np.isfinite(future.u).all()
        assert not list((tmp_path / "steps" / name).glob("*.npz"))


STEPS = [n for n in catalog.names("configs") if n.startswith("timestep/")]


@pytest.mark.parametrize("name", STEPS)
def test_every_recipe_trains_two_steps_at_the_command_line(name, small_store, tmp_path, capsys):
    small = "context: 12, steps: 2, seeds: 1, width: 4, blocks: 1, unroll: 1, target: viscosity, also: []"
    changes = [f"timestepping.{word}" for word in small.replace(": ", "=").split(", ")]
    given = ["--data", str(small_store), "--out", str(tmp_path / "out"), "--condition", "parameter"]
    with quietly():
        assert cli.main(["timestep", "--config", name, *given, "--set", *changes, "workers=1"]) == 0
    assert "| conditioned on the true viscosity (ceiling) |" in capsys.readouterr().out


def test_a_study_of_steppers_runs_nothing_twice(small_store, tmp_path):
    content = override(catalog.read("configs", "timestep_burgers"), [f"data.path={small_store}", "encoder=null"])
    tiny = {"context": 12, "steps": 2, "seeds": 1, "width": 4, "blocks": 1, "conditions": ["parameter"]}
    content["timestepping"] |= tiny
    content["variants"] = {"U-Net": {"network": "unet"}, "FNO": {"network": "fno", "modes": 4}}
    path, said = tmp_path / "study.yaml", []
    path.write_text(yaml.safe_dump(content))
    with quietly():
        first = pdessl.study(path, tmp_path / "out", announce=said.append)
        count = len(said)
        again = pdessl.study(path, tmp_path / "out", announce=said.append)
    assert count and len(said) == count
    assert again["results"] == first["results"]
    assert "**FNO**" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "u_net" / "parameter" / "card.md").is_file()
    with pytest.raises(SchemaError, match="none named 'V-Net'"):
        pdessl.study(path, tmp_path / "out", only=["V-Net"])
    assert set(catalog.read("configs", "timestep_burgers")["variants"]) >= {"dilated", "U-Net", "FNO"}
