"""A study: variants and seeds in one table beside the floors, resumable, and honest about what failed."""

import copy
import json
import shutil

import pytest
import torch
import yaml

from pdessl import catalog, cli
from pdessl.data import generate, load_recipe, simulate
from pdessl.errors import SchemaError, StoreError
from pdessl.experiments.study import study
from pdessl.experiments.study_jobs import untrained_encoder
from pdessl.experiments.study_table import table
from pdessl.experiments.untrained import calibrated
from pdessl.models import ConvEncoder, Encoder

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
STUDIES = [
    n
    for n in catalog.names("configs")
    if n.startswith("studies/")
    and not {"timestep", "inverse", "search", "sizes", "surprise", "table1"} & set(n[8:].split("_"))
]

SMALL = {
    "study": {
        "target": "viscosity",
        "labels": [8, 16],
        "seeds": 2,
        "draws": 2,
        "supervised": {"learning_rates": [1e-3], "steps": 4, "check_every": 2},
    },
    "base": {
        "model": {
            "encoder": {"class_path": "pdessl.models.ConvEncoder", "init_args": {"width": 4, "blocks": [1]}},
            "projector": {
                "class_path": "pdessl.models.Projector",
                "init_args": {"in_features": 8, "hidden": [8], "out_features": 8},
            },
            "objective": {"class_path": "pdessl.objectives.VICReg"},
            "augmentation": {
                "class_path": "pdessl.augmentation.LieAugmentation",
                "init_args": {"algebra": "burgers", "strengths": {"space_translation": 0.5}},
            },
        },
        "data": {"batch_size": 16},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    },
    "variants": {
        "as it is": None,
        "other weights": {"model": {"objective": {"class_path": "pdessl.objectives.BarlowTwins"}}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "data"
    generate("burgers_small", folder, size={"unlabelled": 16, "labelled": 16, "validation": 8, "test": 8})
    return folder


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def test_every_variant_seed_and_floor_in_one_table_and_nothing_is_run_twice(recipe, store, tmp_path):
    said = []
    words = [f"base.data.path={store}"]
    results = study(recipe, tmp_path / "out", words, workers=2, announce=said.append)
    assert len(said) == len(results["results"]) == 2 * 3 + 1  # the floors without a training once
    names = ["floors", "supervised from scratch", "as it is", "other weights"]
    assert [r["variant"] for r in results["results"][:4]] == names
    for job in results["results"]:
        draws = 1 if job["variant"] == "supervised from scratch" else 2
        methods = {r["method"] for r in job["rows"]}
        if job["variant"] == "floors":
            assert methods == {"law", "mean", "random", "physics", "least_squares", "weak_form"}
        for row in (r for r in job["rows"] if r["labels"] is not None):
            assert row["labels"] in (8, 16) and len(row["relative_error"]["values"]) == draws
    printed = table(results)
    assert printed == (tmp_path / "out/table.md").read_text()
    assert printed.index("as it is") < printed.index("*random encoder, same ridge*") and "±" in printed
    assert {"*predict the mean*", "*supervised from scratch*"} <= {c.strip() for c in printed.split("|")}
    # a second call takes everything from what is kept; another setting is run anew
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("result.json")}
    again = study(recipe, tmp_path / "out", words, announce=said.append)
    assert [r["rows"] for r in again["results"]] == [r["rows"] for r in results["results"]]
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("result.json")}
    study(recipe, tmp_path / "out", [*words, "study.seeds=1"], announce=said.append)  # fewer seeds, the same runs
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("result.json")}
    study(recipe, tmp_path / "out", [*words, "study.draws=1"], ["as it is"], announce=said.append)
    assert before != {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("result.json")}
    kept = json.loads((tmp_path / "out/results.json").read_text())
    assert kept["store"]["dataset"] == "burgers_small" and kept["provenance"]["versions"]["torch"]


def test_results_do_not_depend_on_the_labels_of_the_test_runs(recipe, store, tmp_path, monkeypatch):
    """The test labels enter the score only: permuting them leaves every prediction, hence the features, as it was."""
    from pdessl.data import PDEDataModule

    words = [f"base.data.path={store}", "study.seeds=1", "study.draws=1"]
    first = study(recipe, tmp_path / "one", words, ["as it is"], announce=lambda line: None)
    inner = PDEDataModule.test.fget

    def permuted(self):
        runs = inner(self)
        return runs.replace(parameters={n: p.flip(0) for n, p in runs.parameters.items()})

    monkeypatch.setattr(PDEDataModule, "test", property(permuted))
    second = study(recipe, tmp_path / "two", words, ["as it is"], announce=lambda line: None)
    monitors = [r["monitors"] for r in (first["results"][-1], second["results"][-1])]
    assert monitors[0] == monitors[1]
    assert first["results"][-1]["rows"] != second["results"][-1]["rows"]


def test_other_data_in_the_same_folder_are_trained_on_anew(recipe, store, tmp_path):
    words = ["study.seeds=1", "study.draws=1", "study.supervised=null", f"base.data.path={tmp_path / 'data'}"]
    shutil.copytree(store, tmp_path / "data")
    first = study(recipe, tmp_path / "out", words, ["as it is"], announce=lambda line: None)
    shutil.rmtree(tmp_path / "data")
    size = {"unlabelled": 16, "labelled": 16, "validation": 8, "test": 8}
    generate("burgers_small", tmp_path / "data", size=size, overrides={"seed": 9})
    second = study(recipe, tmp_path / "out", words, ["as it is"], announce=lambda line: None)
    for before, after in zip(first["results"], second["results"], strict=True):
        assert before["rows"] != after["rows"]


def test_the_random_floor_is_built_for_the_data_and_measures_its_norms(store):
    encoder = {"class_path": "pdessl.models.ConvEncoder", "init_args": {"width": 4, "blocks": [1]}}
    model = SMALL["base"]["model"] | {"encoder": encoder}
    model["augmentation"] = copy.deepcopy(model["augmentation"])
    model["augmentation"]["init_args"]["window"] = [8, 16]
    data = {"path": str(store), "batch_size": 8}
    made = untrained_encoder({"model": model, "data": data}, 0)
    assert made.module.init_args["periodic"] == [False] and made.module.in_channels == 1
    norm = made.module.stem[1]
    assert int(norm.num_batches_tracked) > 0 and not torch.equal(norm.running_mean, torch.zeros(4))
    assert not any(m.training for m in made.modules())


def test_a_network_of_a_fixed_number_of_frames_is_calibrated_on_stretches_of_them():
    runs = simulate(load_recipe("burgers_small"), "test", range(6))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ConvEncoder(1, width=4, blocks=(1,), periodic=(True,), stacked_frames=8)
    made = calibrated(Encoder(network, [0.0], [1.0]), [runs])
    stretches = torch.cat([runs.fields[:, :, k : k + 8] for k in (0, 8, 16)])  # 24 frames
    first = next(m for m in made.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm))
    seen = []
    handle = first.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    made(stretches)
    handle.remove()
    mean = seen[0].transpose(0, 1).flatten(1).mean(dim=1)
    torch.testing.assert_close(first.running_mean, mean, rtol=1e-4, atol=1e-5)


def test_a_training_that_fails_is_told_in_the_table(recipe, store, tmp_path):
    wrong = dict(SMALL["variants"], wrong={"model": {"objective": {"class_path": "pdessl.objectives.SIE"}}})
    recipe.write_text(yaml.safe_dump(SMALL | {"variants": wrong}))
    words = [f"base.data.path={store}", "study.seeds=1", "study.supervised=null"]
    results = study(recipe, tmp_path / "out", words, ["wrong"], announce=lambda line: None)
    assert "failed" in results["results"][-1] and "| wrong | failed | failed |" in table(results)


def test_names_of_variants_break_neither_table_nor_terminal_and_share_no_folder(recipe, store, tmp_path):
    broken = {"model": {"objective": {"class_path": "pdessl.objectives.SIE"}}}  # fails before anything is trained
    words = [f"base.data.path={store}", "study.seeds=1", "study.methods=[]", "study.classical=null"]
    words += ["study.supervised=null"]
    recipe.write_text(yaml.safe_dump(SMALL | {"variants": {"a|b\x1b[2J": broken}}))
    study(recipe, tmp_path / "out", words, announce=lambda line: None)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| a\\|b\\x1b[2J | failed |" in text and "\x1b" not in text
    for names, said in (
        (["a b", "a-b"], "'a-b' would share the folder a_b with 'a b'"),
        (["Floors"], "would share the folder floors with the study's own 'floors'"),
        ([3], "a variant is named 3; expected a text"),
        (["x" * 201], "expected a text of 1 to 200 bytes"),
    ):
        recipe.write_text(yaml.safe_dump(SMALL | {"variants": dict.fromkeys(names)}))
        with pytest.raises(SchemaError, match=said):
            study(recipe, tmp_path / "out", words)


def test_results_of_another_version_are_mixed_in_only_when_told(recipe, store, tmp_path, capsys):
    words = [f"base.data.path={store}", "study.seeds=1", "study.supervised=null", "study.labels=[8]"]
    words += ["study.methods=[mean]", "study.classical=null"]
    recipe.write_text(yaml.safe_dump(SMALL | {"variants": {"wrong": {"model": {"objective": None}}}}))
    study(recipe, tmp_path / "out", words, announce=lambda line: None)
    place = tmp_path / "out" / "floors" / "seed0" / "result.json"
    kept = json.loads(place.read_text())
    kept["versions"]["torch"], kept["result"]["seconds"] = "0.1", 12345.0
    place.write_text(json.dumps(kept))
    command = ["study", str(recipe), "--out", str(tmp_path / "out"), "--set", *words]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert "torch 0.1 (now" in said and "--any-version" in said and said.count("\n") == 1
    assert cli.main([*command, "--any-version"]) == 0
    assert " 12345 " in capsys.readouterr().out  # what the other version found, not computed again


def test_a_study_without_an_encoder_says_so(recipe, store, tmp_path):
    recipe.write_text(yaml.safe_dump(SMALL | {"base": {"data": {"batch_size": 16}}}))
    words = [f"base.data.path={store}", "study.seeds=1", "study.supervised=null"]
    results = study(recipe, tmp_path / "out", words, ["as it is"], announce=lambda line: None)
    floors, trained = results["results"]
    assert "base.model.encoder is None; floors need class_path" in floors["failed"]
    assert "required: model.encoder" in trained["failed"]


def test_mistakes_are_told(recipe, store, tmp_path, capsys):
    with pytest.raises(StoreError, match="no store at base.data.path"):
        study(recipe, tmp_path / "out")
    words = [f"base.data.path={store}"]
    with pytest.raises(SchemaError, match="no variant 'none'. Variants: as it is, other weights"):
        study(recipe, tmp_path / "out", words, ["none"])
    with pytest.raises(SchemaError, match="unknown key 'label'. Did you mean 'labels'"):
        study(recipe, tmp_path / "out", [*words, "study.label=3"])
    for change in (["base.data.path=gone", "--set", "study.seeds=1"], ["base.data.path=gone", "study.seeds=1"]):
        assert cli.main(["study", str(recipe), "--out", str(tmp_path / "out"), "--set", *change]) == 2
        assert "gone)" in capsys.readouterr().err
    recipe.write_text("study: {target: viscosity}\n")
    with pytest.raises(SchemaError, match="expected the keys study, base and variants"):
        study(recipe, tmp_path / "out")
    assert cli.main(["study", str(recipe), "--out", str(tmp_path / "out"), "--workers", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_runs_a_step_of_each_variant(name, request, tmp_path):
    own = {"studies/objectives_ks": "ks_store", "studies/smoke_velocity": "smoke_grouped_store"}
    store = request.getfixturevalue(own.get(name, "small_store"))
    words = [
        f"base.data.path={store}",
        "study.seeds=1",
        "study.draws=1",
        "study.labels=[8]",
        "study.supervised.steps=1",
        "study.supervised.validation_runs=4",
        "base.trainer.max_epochs=1",
        "base.trainer.limit_train_batches=1",
        f"base.data.batch_size={8 if name.endswith('velocity') else 32}",  # of four groups
    ]
    only: list[str] = []
    if name == "studies/objectives_ks":  # what its variants do is seen on Burgers: a few, on another equation
        variants = catalog.read("configs", name)["variants"]
        assert set(variants) <= set(catalog.read("configs", "studies/objectives_burgers")["variants"])
        only = [*variants][::6]
    results = study(name, tmp_path / "out", words, only=only, announce=lambda line: None)
    assert not [r for r in results["results"] if "failed" in r]
