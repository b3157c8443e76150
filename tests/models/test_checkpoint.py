import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from pdessl.errors import CheckpointError, PdesslError, StoreError
from pdessl.models import ConvEncoder, Encoder, Head, Projector, TimeStepper, load, pretrained, save_pretrained


class NoArguments(nn.Module):
    def __init__(self, argument):
        super().__init__()


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (ConvEncoder(width=4, blocks=(1, 2), features=5, norm="group"), (2, 1, 9, 12)),
        (Encoder(ConvEncoder(in_channels=2, width=4, blocks=(1,)), [0.1, 2.0], [0.3, 7.0]), (2, 2, 8, 8)),
        (Projector(6, (8,), 3), (4, 6)),
        (Head(6, 2, (4,), standardise=True), (4, 6)),
        (TimeStepper(past=2, width=8, blocks=2), (2, 1, 2, 16)),
        (nn.Flatten(), (2, 3, 4)),
    ],
)
def test_what_is_saved_is_what_is_loaded(tmp_path, module, shape):
    state = torch.get_rng_state()
    save_pretrained(tmp_path / "model", module, {"provenance": {"seed": 3}})
    assert torch.equal(torch.get_rng_state(), state), "saving must not draw random numbers"
    loaded = load(tmp_path / "model")
    assert type(loaded) is type(module)
    assert not loaded.training
    x = torch.randn(shape)
    assert torch.equal(loaded(x), module.eval()(x))
    assert sorted(os.listdir(tmp_path / "model")) == ["model.safetensors", "recipe.json"]
    recipe = json.loads((tmp_path / "model" / "recipe.json").read_text())
    assert recipe["provenance"] == {"seed": 3}


def test_found_in_a_run_folder_and_by_the_name_recipes_use(tmp_path):
    encoder = ConvEncoder(width=4, blocks=(1,)).eval()
    save_pretrained(tmp_path / "run" / "encoder", encoder)
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(pretrained(str(tmp_path / "run"))(x), encoder(x))


@pytest.fixture
def saved(tmp_path):
    save_pretrained(tmp_path / "m", Encoder(ConvEncoder(width=4, blocks=(1,))))
    return tmp_path / "m"


def change(folder, **keys):
    path = folder / "recipe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_damage_is_named_with_its_repair(saved):
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="model.safetensors is truncated or was changed.*Copy the folder again"):
        load(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match="has no model.safetensors.*Copy the whole folder"):
        load(saved)
    (saved / "recipe.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read.*expected JSON"):
        load(saved)
    (saved / "recipe.json").unlink()
    with pytest.raises(CheckpointError, match="has no recipe.json.*Check the path"):
        load(saved)
    with pytest.raises(CheckpointError, match="has no recipe.json"):
        load(saved / "nowhere")


def test_another_architecture_is_named_with_the_first_difference(saved):
    change(saved, init_args={**ConvEncoder().init_args, "width": 8, "blocks": [1]})
    message = r"another architecture.*first 'stem.0.*found \(4, 1, 5, 5\), expected \(8, 1"
    with pytest.raises(CheckpointError, match=message):
        load(saved)
    change(saved, init_args={"size": 3})
    with pytest.raises(CheckpointError, match="does not accept the arguments"):
        load(saved)


def test_other_recipes_are_refused(saved):
    change(saved, format=2)
    with pytest.raises(CheckpointError, match="format 2; this version reads 1. Upgrade"):
        load(saved)
    change(saved, format=1, init_args=[])
    with pytest.raises(CheckpointError, match="key 'init_args' is missing or of the wrong type"):
        load(saved)


@pytest.mark.parametrize(
    "path", ["os.system", "subprocess.Popen", "pdessl.catalog.read", "builtins.eval", "pdessl.errors.DataError"]
)
def test_only_modules_are_built(saved, path):
    change(saved, class_path=path, init_args={})
    with pytest.raises(CheckpointError, match=r"torch.nn.Module"):
        load(saved)


def test_a_foreign_package_is_not_imported_unless_allowed(saved, tmp_path, monkeypatch):
    (tmp_path / "foreign_package.py").write_text(
        "import pathlib, torch\npathlib.Path(__file__).with_name('ran').touch()\nclass Net(torch.nn.Identity): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    change(saved, class_path="foreign_package.Net", init_args={})
    with pytest.raises(CheckpointError, match=r"allow=\('foreign_package',\)"):
        load(saved)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CheckpointError, match="another architecture"):
        load(saved, allow=("foreign_package",))
    assert (tmp_path / "ran").exists()


def test_loading_imports_neither_pickle_reader_nor_lightning(saved):
    code = (
        "import sys, torch\n"
        "def refuse(*a, **k): raise SystemExit('unpickled')\n"
        "torch.load = refuse\n"
        "from pdessl.models import load\n"
        "load(sys.argv[1])\n"
        "sys.exit('lightning' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(saved)], check=False).returncode == 0


def test_what_cannot_be_loaded_back_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot save a NoArguments: its arguments \(argument\) are not known"):
        save_pretrained(tmp_path / "m", NoArguments(1))
    head = Head(4)
    head.init_args = {"in_features": 5}
    with pytest.raises(CheckpointError, match="another architecture"):
        save_pretrained(tmp_path / "m", head)
    with pytest.raises(CheckpointError, match="plain data"):
        save_pretrained(tmp_path / "m", Head(4), {"provenance": {"when": object()}})
    with pytest.raises(CheckpointError, match="recipe keys"):
        save_pretrained(tmp_path / "m", Head(4), {"provenence": {}})
    assert not (tmp_path / "m").exists()


def test_an_unwritable_folder_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write .*model.safetensors: Not a directory.*choose a folder"):
        save_pretrained(tmp_path / "file" / "m", Head(4))
    with pytest.raises(PdesslError, match="is a file; expected a folder"):
        load(tmp_path / "file")


def falsified(folder, **changes):
    content = json.loads((folder / "recipe.json").read_text()) | changes
    (folder / "recipe.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("class_path", "arguments"),
    [
        ("torch.nn.Linear", {"in_features": 60_000, "out_features": 60_000}),
        ("torch.nn.LSTM", {"input_size": 4, "hidden_size": 4, "num_layers": 10**9}),
        ("torch.nn.Transformer", {"num_encoder_layers": 10**9}),
        ("pdessl.models.ConvEncoder", {"width": 10**6, "blocks": [1] * 4}),
        ("pdessl.models.TransformerEncoder", {"depth": 10**8}),
    ],
)
def test_sizes_are_compared_with_the_weights_before_anything_is_made(tmp_path, class_path, arguments):
    folder = falsified(save_pretrained(tmp_path / "m", Head(4)), class_path=class_path, init_args=arguments)
    made, before = [], torch.nn.Module.register_parameter

    def watch(self, name, value):
        made.append(0 if value is None or value.is_meta else value.numel())
        return before(self, name, value)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CheckpointError):
        patch.setattr(torch.nn.Module, "register_parameter", watch)
        load(folder)
    assert sum(made) == 0


@pytest.mark.parametrize(
    "class_path",
    [
        "pdessl.cli.main", "pdessl.cli.__main__.main", "pdessl.__main__.main", "json.tool.main", "this.s",
        "torch.fx.GraphModule", "torch.jit.ScriptModule", "lightning.LightningModule", "pip.__main__.main", "os.system",
        "pdessl.experiments.pretraining.pretrain", "..x", "", "Linear", "torch.nn.modules.__main__.X",
    ],
)  # fmt: skip
def test_no_module_that_does_things_is_imported_for_a_recipe(tmp_path, class_path):
    folder = falsified(save_pretrained(tmp_path / "m", Head(4)), class_path=class_path)
    for allow in ((), ("pip", "pdessl", "torch")):
        before = set(sys.modules)
        with pytest.raises(CheckpointError):
            load(folder, allow=allow)
        assert not {m for m in set(sys.modules) - before if m.startswith(("pdessl", "this", "pip.__main__"))}


def test_deep_nesting_is_an_error_of_one_line(tmp_path):
    folder = save_pretrained(tmp_path / "m", Head(4))
    (folder / "recipe.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)
