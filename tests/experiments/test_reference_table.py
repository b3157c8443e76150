"""The reference paper's table: an unpooled reading keeps phases, rows are resumed, every task runs at tiny size."""

import json

import pytest
import torch

from pdessl import cli
from pdessl.errors import SchemaError
from pdessl.experiments.recipes import read_recipe
from pdessl.experiments.reference_jobs import TableTask, Unpooled
from pdessl.experiments.reference_study import reference_table
from pdessl.experiments.study import study
from pdessl.models import ConvEncoder, Encoder
from pdessl.schema import dump_yaml, fill

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and workers
KDV, KS, BURGERS, SMOKE = "kdv", "ks", "burgers", "smoke"
SIZE = {"unlabelled": 8, "labelled": 8, "validation": 4, "test": 6}
NETWORK = {"init_args": {"width": 4, "blocks": [1]}}
BASE = {
    "model": {"encoder": NETWORK, "projector": {"init_args": {"in_features": 8, "hidden": [8], "out_features": 8}}},
    "data": {"batch_size": 4},
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
}
BRIEF = {"size": SIZE, "base": BASE, "supervised": {"learning_rates": [1e-3], "steps": 2, "check_every": 1}}
SHORT = {"points": 32, "frames": 16, "end": 2.0}
TINY = {
    "table": {"seeds": 1},
    "tasks": {
        KDV: BRIEF | {
            "changes": {"observation": SHORT},
            "variants": {"pretrained, views that do not": {"model": {"encoder": NETWORK}}},
        },
        KS: None,
        BURGERS: BRIEF | {
            "supervised": None,
            "changes": {"observation": SHORT, "parameters": {"viscosity": {"low": 0.1, "high": 0.2}}},
            "base": BASE | {"model": BASE["model"] | {"augmentation": {"init_args": {"window": [12, 32]}}}},
        },
        SMOKE: BRIEF | {
            "changes": {
                "parameters": {"buoyancy": {"per": {"unlabelled": 4}}},
                "observation": {"points": 16, "frames": 16, "end": 36.0},
                "solver": {"points": 32},
            },
            "views": {"window": [16, 16, 16], "count": 1},
            "supervised": None,
            "size": SIZE | {"unlabelled": 16},
            "base": BASE | {"model": BASE["model"] | {"augmentation": {"init_args": {"window": [16, 16, 16]}}}},
            "variants": {"pretrained, grouped": {"trainer": {"max_epochs": 1}}},
        },
    },
}  # fmt: skip


def test_a_translation_turns_unpooled_modes_and_leaves_their_size():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(ConvEncoder(width=4, blocks=(1, 1), periodic=[True]), [0.0], [1.0]).eval()
        fields = torch.randn(2, 1, 8, 64)
    read = Unpooled(encoder, 2)
    rows = 8 // 4
    first, moved = (
        read(f).double().reshape(2, rows, -1, 5)
        for f in (fields, fields.roll(16, dims=3))  # a quarter of the axis
    )
    torch.testing.assert_close(moved[..., 0], first[..., 0], rtol=0, atol=1e-5)
    # cos(k (x - s)) = cos ks cos kx + sin ks sin kx: a quarter turns k = 1 by a right angle, k = 2 by two.
    torch.testing.assert_close(moved[..., 1], -first[..., 2], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[..., 2], first[..., 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[..., 3:], -first[..., 3:], rtol=0, atol=1e-5)
    assert float((moved - first).abs().max()) > 1e-3


def test_modes_of_two_axes_are_those_of_each():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(
            ConvEncoder(in_channels=2, width=4, blocks=(1,), stacked_frames=3, periodic=[True, True]),
            [0.0] * 2,
            [1.0] * 2,
        ).eval()
        fields = torch.randn(2, 2, 3, 16, 16)
    found = Unpooled(encoder, 1)(fields)
    grid = encoder.token_grid(fields.shape[2:])
    tokens = encoder.tokens(fields).reshape(2, *grid, -1)
    torch.testing.assert_close(found.reshape(2, -1, 3, 3)[:, :, 0, 0], tokens.mean(dim=(1, 2)))
    x = 2 * torch.pi * torch.arange(grid[0]) / grid[0]
    expected = torch.einsum("bxyc,x->bc", tokens, torch.cos(x)) / (grid[0] * grid[1])
    torch.testing.assert_close(found.reshape(2, -1, 3, 3)[:, :, 1, 0], expected)


@pytest.mark.slow
def test_the_shipped_table_at_tiny_size_through_the_command_line(tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(read_recipe("table1", "cpu", TINY)))
    out = tmp_path / "out"
    assert cli.main(["study", str(path), "--out", str(out)]) == 0, capsys.readouterr().err
    results = json.loads((out / "results.json").read_text())
    assert not [r["refused"] for r in results["results"] if "refused" in r]
    methods = {t: [r["method"] for r in results["results"] if r["task"] == t] for t in (KDV, BURGERS, SMOKE)}
    read = ["random encoder", "pretrained, views that translate", "pretrained, views that do not"]
    assert set(methods[KDV]) == {"predict the mean", "supervised", *read, *(f"{r}, unpooled" for r in read)}
    assert "least squares, weak form" in methods[BURGERS] and "pretrained, grouped" in methods[SMOKE]
    rows = {(r["task"], r["method"]): r for r in results["results"]}
    assert rows[BURGERS, "least squares, weak form"]["error"] < 10 < rows[BURGERS, "predict the mean"]["error"]
    assert rows[KDV, "random encoder, unpooled"]["besides"] >= 0 and "besides" not in rows[KDV, "supervised"]
    assert "| supervised |" in results["table"] and "0.102 ± 0.007" in results["table"]
    # A row that was lost is computed again, to the same numbers; the others are kept.
    lost = next((out / "rows").glob("burgers*random*"))
    before = json.loads(lost.read_text())["rows"]
    lost.unlink()
    said = []
    again = study(path, out, announce=said.append)
    assert len(said) == 1 and "burgers, random encoder, seed 0" in said[0]
    now = json.loads(lost.read_text())["rows"]
    assert [r["error"] for r in now] == pytest.approx([r["error"] for r in before], rel=1e-6)
    assert [r["method"] for r in again["results"]] == [r["method"] for r in results["results"]]


@pytest.mark.parametrize("preset", [None, "cpu", "full"])
def test_every_preset_is_read_and_full_says_what_it_takes(preset, tmp_path):
    content = read_recipe("table1", preset)
    tasks = {n: fill(TableTask, v, n) for n, v in content["tasks"].items()}
    assert len(tasks) == 4 and all(t.published for t in tasks.values())
    large = tasks[SMOKE].recipe().content["observation"]["points"] == 128
    assert large == (preset == "full") == ("GB" in content["table"].get("estimate", ""))
    with pytest.raises(SchemaError, match="no task 'heat'. Tasks: kdv, ks"):
        study("table1", tmp_path, only=["heat"], preset=preset)


def test_a_table_has_what_was_published_beside_ours():
    def row(seed, error):
        return {"task": "t", "metric": "nmse", "method": "m", "seed": seed, "error": error, "seconds": 1.0}

    refused = {k: v for k, v in row(0, 0.0).items() if k != "error"} | {"method": "q", "refused": "why"}
    text = reference_table([row(0, 0.1), row(1, 0.2), refused], {"t": {"m": {"mean": 0.05, "note": "larger"}}})
    assert "| m | 0.15 ± 0.05 | 0.05 | 1 |" in text and "* q: why" in text and "* m: larger" in text
