"""What ``--print_config`` prints is a recipe that gives the same run, for every verb that takes one."""

import json
import shlex

import pytest
import torch

import pdessl
from pdessl import catalog, cli
from pdessl.data import load_recipe
from pdessl.equations import load_equation
from pdessl.experiments.comparison import Regression
from pdessl.experiments.pretraining import pretrain, pretraining_recipe
from pdessl.experiments.quickstart import read_settings, single_steps
from pdessl.experiments.stepping import Stepping
from pdessl.schema import fill, override, parse_yaml

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
TINY = [
    "data.batch_size=16",
    "model.encoder.init_args.width=4",
    "model.projector.init_args={in_features: 32, hidden: [16], out_features: 8}",
    "trainer={max_epochs: 1, limit_val_batches: 0, accelerator: cpu, enable_progress_bar: false}",
]


@pytest.fixture
def printed(capsys, tmp_path):
    """The file that a verb prints, after ``--print_config`` is added to its words."""

    def call(*words):
        capsys.readouterr()  # what a verb said before
        assert cli.main([*map(str, words), "--print_config"]) == 0, capsys.readouterr().err
        path = tmp_path / f"{words[0]}.yaml"
        path.write_text(capsys.readouterr().out)
        return path

    return call


@pytest.fixture(scope="module")
def encoder(small_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("printed") / "encoder"
    pretrain("burgers_vicreg", [f"data.path={small_store}", *TINY], folder)
    return folder


def test_generate(printed, tmp_path):
    changes = ["observation.noise=1e-3", "observation.points=32", "parameters.viscosity.low=0.05", "seed=3"]
    size = "unlabelled=1,labelled=2,validation=1,test=1"
    path = printed("generate", "burgers_small", "--size", size, "--set", *changes)
    sizes = {"unlabelled": 1, "labelled": 2, "validation": 1, "test": 1}
    assert load_recipe(path).hash == load_recipe("burgers_small", sizes, changes).hash
    assert cli.main(["generate", str(path), "--out", str(tmp_path / "a")]) == 0
    assert cli.main(["generate", "burgers_small", "--out", str(tmp_path / "b"), "--size", size, "--set", *changes]) == 0
    one, other = (pdessl.open(tmp_path / n).load("labelled") for n in "ab")
    assert torch.equal(one.fields, other.fields)
    assert torch.equal(one.parameters["viscosity"], other.parameters["viscosity"])


def test_pretrain(printed, small_store, tmp_path):
    # Not the encoder of the module: it may have been trained with another number of threads, which rounds otherwise.
    pretrain("burgers_vicreg", [f"data.path={small_store}", *TINY], tmp_path / "direct")
    path = printed("pretrain", "--config", "burgers_vicreg", "--data", small_store, "--set", *TINY)
    assert cli.main(["pretrain", "--config", str(path), "--out", str(tmp_path / "run")]) == 0
    one, other = (pdessl.load(folder).state_dict() for folder in (tmp_path / "direct", tmp_path / "run"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    again = printed("pretrain", "--config", path)
    assert parse_yaml(again.read_text(), "again") == parse_yaml(path.read_text(), "path")


@pytest.mark.parametrize(
    ("verb", "section", "changes"),
    [
        ("regress", "regression", ["regression.labels=[8]", "regression.seeds=1", "regression.views.count=1"]),
        (
            "timestep",
            "timestepping",
            ["timestepping={context: 8, steps: 2, seeds: 1, width: 4, blocks: 1}", "workers=1"],
        ),
    ],
)
def test_a_comparison(verb, section, changes, printed, encoder, small_store, tmp_path):
    given = [verb, "--encoder", str(encoder), "--data", str(small_store)]
    words = [] if verb == "timestep" else ["--preset", "quick"]
    path = printed(*given, *words, "--set", *changes)
    assert cli.main([*given, "--config", str(path), "--out", str(tmp_path / "a")]) == 0
    assert cli.main([*given, *words, "--set", *changes, "--out", str(tmp_path / "b")]) == 0
    one, other = (json.loads((tmp_path / n / "report.json").read_text()) for n in "ab")
    assert one["recipe"] == other["recipe"] and one[section]["rows"] == other[section]["rows"]


@pytest.mark.parametrize(
    "words",
    [
        ("quickstart", "--preset", "tiny", "--set", "regression.finetune=null", "data.overrides.observation.noise=0"),
        ("study", "objectives_burgers", "--set", "study.seeds=1", "base.trainer.max_epochs=2"),
        ("pretrain", "--config", "ks_jepa", "--preset", "full", "--set", "best=monitor/lidar"),
    ],
    ids=lambda words: words[0],
)
def test_what_is_printed_from_a_printed_recipe_is_the_same(words, printed):
    path = printed(*words)
    verb = [words[0]] if words[0] == "study" else [words[0], "--config"]
    text = path.read_text()
    assert printed(*verb, path).read_text() == text and "presets" not in parse_yaml(text, "printed")
    if words[0] == "study":
        assert parse_yaml(text, "printed") == override(catalog.read("configs", words[1]), words[3:])


def test_the_single_steps_of_a_quickstart_have_its_preset_and_every_change(printed, tmp_path):
    words = ["regression.labels=[8]", "regression.scratch=null", "timestepping.steps=3", "data.size.test=12"]
    words += ["data.overrides.observation.noise=1e-3", "data.overrides.parameters.viscosity.unit='m^2/s or 1e-3'"]
    words += [
        "pretraining.overrides.model.learning_rate=5e-3",
        "pretraining.overrides={model.objective.init_args.objectives.agreement.init_args: {covariance: 2}}",
    ]
    settings = read_settings("quickstart", "tiny", words)
    folder = tmp_path / "a folder"
    title, *steps = single_steps(settings, folder, "quickstart", "tiny", words)
    assert title == "# the same in single steps"
    found = {}
    for step in steps:
        program, verb, *given = shlex.split(step)
        assert program == "pdessl"
        if verb == "discover":  # has no settings to print
            assert given == [str(folder / "data"), "--limit", "1024", "--out", str(folder / "law")]
            continue
        found[verb] = parse_yaml(printed(verb, *given).read_text(), verb)
    assert list(found) == ["generate", "pretrain", "regress", "timestep"]
    data, pretraining = settings.data, settings.pretraining
    assert found["generate"] == load_recipe(data.dataset, data.size, data.overrides).content
    assert found["generate"]["splits"]["test"]["size"] == 12 and found["generate"]["observation"]["noise"] == 1e-3
    same = override({"data.path": str(folder / "data")}, pretraining.overrides)
    assert found["pretrain"] == pretraining_recipe(pretraining.recipe, same, folder / "pretraining")
    assert found["pretrain"]["model"]["learning_rate"] == 5e-3 and found["pretrain"]["trainer"]["max_epochs"] == 2
    agreement = found["pretrain"]["model"]["objective"]["init_args"]["objectives"]["agreement"]
    assert agreement["init_args"]["covariance"] == 2.0
    assert fill(Regression, found["regress"]["regression"], "printed") == settings.regression
    assert fill(Stepping, found["timestep"]["timestepping"], "printed") == settings.timestepping
    assert found["regress"]["workers"] == found["timestep"]["workers"] == settings.workers == 1


def test_a_mapping_and_an_equation(printed, tmp_path, capsys):
    path = printed("inspect", "nowhere", "--mapping", "pdearena_smoke_conditioned", "--set", "staggering=centred")
    content = parse_yaml(path.read_text(), "printed")
    assert content == {**catalog.read("datasets", "pdearena_smoke_conditioned"), "staggering": "centred"}
    assert printed("convert", "nowhere", "--mapping", path).read_text() == path.read_text()
    path = printed("symmetries", "burgers", "--set", "ansatz.degree=1")
    assert load_equation(path).ansatz["degree"] == 1
    assert cli.main(["inspect", str(tmp_path), "--set", "staggering=centred"]) == 2
    assert "give --mapping NAME" in capsys.readouterr().err
    assert cli.main(["symmetries", "burgers", "--set", "ansatz.degre=1"]) == 2
    assert "ansatz: unknown key 'degre'. Did you mean 'degree'?" in capsys.readouterr().err
    assert cli.main(["inspect", str(tmp_path), "--mapping", "pdearena_smoke", "--set", "staggerin=centred"]) == 2
    assert "unknown key 'staggerin'. Did you mean 'staggering'?" in capsys.readouterr().err


def test_a_spelling_of_another_library_is_told_how(capsys):
    assert cli.main(["pretrain", "--config", "burgers_vicreg", "--trainer.max_epochs", "1"]) == 2
    assert "--set trainer.max_epochs=VALUE" in capsys.readouterr().err
    for words in (["pretrain", "--config", "ks_vicreg"], ["quickstart"], ["study", "objectives_ks", "--out", "x"]):
        assert cli.main([*words, "--set", "trainer.max_epochs"]) == 2
        assert "'trainer.max_epochs' is not like section.key=value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.objectiv=1", "model: unknown key 'objectiv'. Did you mean 'objective'?"),
        ("model.objectiv={}", "model: unknown key 'objectiv'"),
        ("modl.seed=1", "unknown key 'modl'. Did you mean 'model'?"),
        ("model.encoder.init_args.widht=3", "model.encoder.init_args: unknown key 'widht'. Did you mean 'width'?"),
        ("model.encoder.widht=3", "model.encoder: unknown key 'widht'. Keys: class_path, init_args"),
        (
            "model.encoder.class_path=pdessl.models.ConvEncodr",
            "no class 'pdessl.models.ConvEncodr'. Did you mean",
        ),
        ("model.encoder.class_path=ConvEncodr", "no class 'ConvEncodr'. Did you mean 'ConvEncoder'?"),
        ("trainer.callbacks=[{class_path: LearningRateMonitor, init_args: {logging: step}}]", "logging"),
        ("trainer.max_epoch=3", "trainer: unknown key 'max_epoch'. Did you mean 'max_epochs'?"),
        ("trainer.max_epochs='3'", "trainer.max_epochs: found the text '3', expected 3 without quotes"),
        ("model.encoder.init_args.blocks='[1, 2]'", "blocks: found the text '[1, 2]', expected [1, 2] without quotes"),
        ("compile=yes", "compile: found the text 'yes', expected true without quotes"),
        ("model.learning_rate=fast", "learning_rate"),
        ("data.batch_size=[4]", "batch_size"),
    ],
)
def test_mistakes_in_a_pretraining_recipe_name_the_key(word, said, capsys):
    assert cli.main(["pretrain", "--config", "burgers_vicreg", "--print_config", "--set", word]) == 2
    assert said in capsys.readouterr().err
