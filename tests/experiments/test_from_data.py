"""What a recipe leaves open comes from the data and the views; what it says stays, and is checked against them."""

import copy

import pytest
import yaml

import pdessl
from pdessl import cli
from pdessl.errors import SchemaError
from pdessl.experiments.pretraining import pretrain

RECIPE = {
    "model": {
        "encoder": {"class_path": "pdessl.models.ConvEncoder", "init_args": {"width": 4, "blocks": [1]}},
        "projector": {
            "class_path": "pdessl.models.Projector",
            "init_args": {"in_features": 8, "hidden": [8], "out_features": 8},
        },
        "objective": {"class_path": "pdessl.objectives.VICReg"},
        "augmentation": {
            "class_path": "pdessl.augmentation.LieAugmentation",
            "init_args": {"algebra": "burgers", "strengths": {"space_translation": 0.5}, "window": [16, 64]},
        },
    },
    "data": {"batch_size": 16},
    "trainer": {
        "max_epochs": 1,
        "limit_train_batches": 1,
        "limit_val_batches": 0,
        "accelerator": "cpu",
        "enable_progress_bar": False,
    },
}  # fmt: skip
QUIET = [
    "ignore:.*does not have many workers",
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:.*log_every_n_steps",
    "ignore:.*rows and width.*",
]
pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


@pytest.fixture
def recipe(tmp_path):
    def write(**changes):
        content = copy.deepcopy(RECIPE)
        content["model"] |= changes
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "recipe.yaml"

    return write


@pytest.mark.parametrize(("points", "periodic"), [(64, [True]), (32, [False])])
def test_padding_follows_the_views_not_only_the_data(recipe, small_store, tmp_path, points, periodic):
    """A view of the whole circle is periodic, one that is cut out of it is not."""
    window = f"model.augmentation.init_args.window=[16, {points}]"
    assert cli.main(["pretrain", "--config", str(recipe()), "--data", str(small_store), "--set", window,
                     "--out", str(tmp_path / "run")]) == 0  # fmt: skip
    encoder = pdessl.load(tmp_path / "run").module
    assert encoder.init_args["periodic"] == periodic and encoder.in_channels == 1


def test_two_dimensions_three_fields_and_walls(recipe, smoke_store, tmp_path):
    augmentation = {
        "class_path": "pdessl.augmentation.LieAugmentation",
        "init_args": {"algebra": "boussinesq", "strengths": {}, "reflections": True, "window": [8, 32, 16]},
    }
    path = recipe(augmentation=augmentation)
    run = pretrain(path, [f"data.path={smoke_store}"], tmp_path / "run")
    encoder = run.task.encoder.module
    assert encoder.in_channels == 3 and encoder.init_args["periodic"] == [False, False]
    # fewer fields, and frames as channels
    words = [f"data.path={smoke_store}", "data.fields=[u, v]", "model.encoder.init_args.stacked_frames=8"]
    words += ["model.augmentation.init_args.reflections=false"]
    assert pretrain(path, words, tmp_path / "two").task.encoder.module.in_channels == 2


def test_every_network_of_a_recipe_is_completed_and_the_run_remembers(recipe, small_store, tmp_path):
    forecaster = {
        "class_path": "pdessl.models.TimeStepper",
        "init_args": {"past": 2, "width": 4, "blocks": 1, "condition": 8},
    }
    forecast = {"class_path": "pdessl.objectives.CrossForecast", "init_args": {"forecaster": forecaster, "horizon": 2}}
    parts = {"agreement": RECIPE["model"]["objective"], "forecast": forecast}
    whole = {"class_path": "pdessl.objectives.WeightedSum", "init_args": {"objectives": parts}}
    words = [f"data.path={small_store}", "model.augmentation.init_args.window=[16, 32]"]
    run = pretrain(recipe(objective=whole), words, tmp_path / "run")
    assert run.task.objective.objectives["forecast"].forecaster.init_args["periodic"] == [False]
    content = yaml.safe_load((tmp_path / "run/encoder/recipe.json").read_text())
    settings = content["provenance"]["recipe"]["model"]["encoder"]["init_args"]
    assert settings["periodic"] == [False] and settings["in_channels"] == 1


def test_a_predictor_of_tokens_gets_time_first(small_store, tmp_path):
    words = [f"data.path={small_store}", "trainer.limit_train_batches=1", "trainer.limit_val_batches=0"]
    words += ["trainer.max_epochs=1", "trainer.accelerator=cpu", "data.batch_size=8"]
    words += ["trainer.enable_progress_bar=false"]
    run = pretrain("burgers_jepa", words, tmp_path / "run")
    assert run.task.predictor.init_args["periodic"] == [False, True]


def test_what_a_recipe_says_is_checked_against_the_data(recipe, small_store, tmp_path, capsys):
    start = ["pretrain", "--config", str(recipe()), "--data", str(small_store), "--out", str(tmp_path / "run"), "--set"]
    assert cli.main([*start, "model.encoder.init_args.in_channels=3"]) == 2
    said = capsys.readouterr().err
    assert "model.encoder.init_args.in_channels is 3, the data have 1 fields (u)" in said
    assert cli.main([*start, "model.encoder.init_args.periodic=[true, false]"]) == 2
    assert "it has 1 entries; the space axes are x. Leave it out" in capsys.readouterr().err
    with pytest.raises(SchemaError, match=r"model\.encoder\.init_args\.in_channels is 2"):
        pretrain(recipe(), [f"data.path={small_store}", "model.encoder.init_args.in_channels=2"], tmp_path / "x")


def test_a_recipe_is_obeyed_where_it_differs_from_the_views_and_says_so(recipe, small_store, tmp_path):
    words = [f"data.path={small_store}", "model.encoder.init_args.periodic=[false]"]
    with pytest.warns(UserWarning, match=r"periodic is \[False\], but the axes of the views are periodic"):
        run = pretrain(recipe(), words, tmp_path / "run")
    assert run.task.encoder.module.init_args["periodic"] == [False]


def test_a_stream_is_looked_at_too(recipe, tmp_path):
    words = ["data.stream=burgers_small", "data.batches=1", "data.statistics_from=4", "data.batch_size=4"]
    words += ["model.augmentation.init_args.window=[16, 16]", "data.size={labelled: 4, validation: 4}"]
    run = pretrain(recipe(), words, tmp_path / "run")
    assert run.task.encoder.module.init_args["periodic"] == [False]
