"""The whole pipeline at toy size: what it writes, and that what it says is what it measured."""

import json
import math
import re

import pytest
import torch
from command_line import at_command_line

import pdessl
from pdessl import cli
from pdessl.errors import CatalogError, SchemaError
from pdessl.experiments.quickstart import read_settings

pytestmark = pytest.mark.slow
METHODS = {"law",
    "frozen", "trunk", "neighbours", "finetuned", "mean", "random", "physics", "scratch", "least_squares", "weak_form",
}  # fmt: skip


def test_every_stage_is_timed_and_everything_is_written(tiny_run):
    folder, printed = tiny_run
    for stage in (
        "simulate",
        "find the law",
        "pretrain without labels",
        "regress viscosity",
        "step in time",
        "report",
        "all stages",
    ):
        assert re.search(rf"^{stage}.* \d+\.\d s$", printed, flags=re.MULTILINE), stage
    for name in (
        "report.html", "report.json", "report.npz", "data/manifest.json", "law/equation.yaml", "pretraining/last.ckpt",
        "model/parameter_model.json",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    assert not [p for p in folder.rglob("*.tmp")]


def test_the_table_has_every_method_at_every_number_of_labels(tiny_run):
    report = json.loads((tiny_run[0] / "report.json").read_text())
    rows = report["regression"]["rows"]
    assert {r["method"] for r in rows} == METHODS
    for method in METHODS - {"least_squares", "weak_form"}:
        assert {r["labels"] for r in rows if r["method"] == method} == {8, 16}
        for row in rows:
            if row["method"] == method:
                assert len(row["relative_error"]["values"]) == 2
                assert all(math.isfinite(v) and v > 0 for v in row["relative_error"]["values"])
    assert {r["labels"] for r in rows if r["group"] == "classical"} == {None}
    steps = {r["method"]: r for r in report["timestepping"]["rows"]}
    assert set(steps) == {"persistence", "none", "representation", "parameter"}
    assert (
        len(report["timestepping"]["error_over_time"]["persistence: nothing changes"])
        == report["timestepping"]["frames"]
    )


def test_the_report_says_what_the_numbers_say(tiny_run):
    folder, printed = tiny_run
    report = json.loads((folder / "report.json").read_text())
    page = (folder / "report.html").read_text()
    rows = [r for r in report["regression"]["rows"] if r["labels"] in (8, None)]
    ours = min(r["relative_error"]["mean"] for r in rows if r["group"] == "pretrained")
    floor = min(r["relative_error"]["mean"] for r in rows if r["group"] == "floor")
    line = next(line for line in printed.splitlines() if line.startswith("8 labels"))
    for error in (ours, floor):
        assert (f"{error:.1f} %" if error >= 1 else f"{error:.2g} %") in line
    assert page.count("<svg") == 8
    assert "pdessl quickstart --preset tiny" in page
    assert report["versions"]["torch"] == torch.__version__


def test_predictions_stored_for_the_figure_reproduce_the_table(tiny_run):
    folder, _ = tiny_run
    from pdessl.evaluation.report import read_report

    report, arrays = read_report(folder)
    truth = arrays["predictions/true"]
    for method in ("frozen", "scratch", "weak_form"):
        error = 100 * (abs(arrays[f"predictions/{method}"] - truth) / truth).mean()
        row = next(r for r in report["regression"]["rows"] if r["method"] == method and r["labels"] in (8, None))
        assert row["relative_error"]["values"][0] == pytest.approx(error, rel=1e-6)


def test_the_law_comes_first_on_the_screen_and_on_the_page(tiny_run):
    folder, printed = tiny_run
    report = json.loads((folder / "report.json").read_text())
    section = report["law"]
    row = next(r for r in report["regression"]["rows"] if r["method"] == "law" and r["labels"] == 8)
    # What is printed before any network is trained is the first seed of the row.
    assert section["error"] == pytest.approx(row["relative_error"]["values"][0], rel=1e-9)
    assert f"viscosity from 8 labels: {section['error']:.2g} %" in printed
    assert printed.index("u_t = ") < printed.index("pretrain without labels")
    page = (folder / "report.html").read_text()
    assert page.index("u_t = z u_xx") < page.index("<h2>")
    sentence = f"is the viscosity to {row['relative_error']['mean']:.2g} %"
    assert page.index(sentence) < page.index("<svg") < page.index('class="lead"')
    law = pdessl.load(folder / "law")
    assert str(law).splitlines() == section["equation"]


def test_runs_without_a_law_leave_the_networks_alone(tmp_path, capsys):
    words = ["data.size={unlabelled: 64, labelled: 16, validation: 16, test: 8}", "regression.labels=[8]"]
    words += ["data.overrides={observation.points: 64, observation.frames: 5}", "regression.scratch=null"]
    words += ["regression.finetune=null", "timestepping.context=2", "views.window=null", "regression.views.window=null"]
    words += ["pretraining.overrides={trainer.max_epochs: 1, model.augmentation.init_args.window: null,"
              " model.objective.init_args.objectives.forecast.init_args.horizon: 2}"]  # fmt: skip
    assert cli.main(["quickstart", "--preset", "tiny", "--out", str(tmp_path / "q"), "--set", *words]) == 0
    printed = capsys.readouterr().out
    assert "no law: " in printed
    assert "law" not in json.loads((tmp_path / "q/report.json").read_text())


def test_the_encoder_loads_and_the_single_verbs_run_on_it(tiny_run, tmp_path):
    folder, _ = tiny_run
    encoder = pdessl.load(folder / "pretraining")
    assert encoder(torch.zeros(2, 1, 24, 32)).shape == (2, encoder.feature_dim)
    given = ["--encoder", folder / "pretraining", "--data", folder / "data", "--preset", "tiny"]
    words = ["--config", "quickstart", "--labels", "8", "--out", tmp_path / "r"]
    done = at_command_line(["regress", *given, *words], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {r["method"]: r for r in json.loads((tmp_path / "r/report.json").read_text())["regression"]["rows"]}
    before = json.loads((folder / "report.json").read_text())["regression"]["rows"]
    # The same seeds give the same numbers, in the quickstart and in the verb.
    same = next(r for r in before if r["method"] == "frozen" and r["labels"] == 8)
    assert rows["frozen"]["relative_error"]["values"] == pytest.approx(same["relative_error"]["values"], rel=1e-6)
    done = at_command_line(["timestep", *given, "--out", tmp_path / "t"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "<svg" in (tmp_path / "t/report.html").read_text()


def test_least_squares_on_clean_data_sees_a_fine_grid_whatever_the_recipe_says(tiny_run):
    report = json.loads((tiny_run[0] / "report.json").read_text())
    note = next(n for n in report["regression"]["notes"] if "on clean runs on a fine grid" in n)
    # Pointwise, in the tiny preset's 64 noisy points and 36 frames: more than 5 %.
    assert float(re.search(r"relative error ([0-9.e-]+) % pointwise", note).group(1)) < 0.5


def test_a_second_run_uses_the_store_that_is_there(tiny_run, tmp_path):
    folder, _ = tiny_run
    assert cli.main(["inspect", str(folder / "data")]) == 0
    manifest = json.loads((folder / "data/manifest.json").read_text())
    assert manifest["complete"]
    # Another recipe in the same folder is refused before anything is trained.
    done = at_command_line(
        ["quickstart", "--preset", "tiny", "--out", folder, "--set", "data.overrides={observation.noise: 0.5}"],
        tmp_path,
    )
    assert done.returncode == 2
    assert "was made by another recipe" in done.stderr


def test_settings_of_the_shipped_recipe():
    default, tiny = read_settings("quickstart"), read_settings("quickstart", "tiny")
    assert default.regression.labels[0] == 16
    assert default.regression.seeds >= 3
    assert default.data.size["unlabelled"] >= 2048
    assert default.data.size["test"] >= 512
    assert tiny.regression.target == default.regression.target
    with pytest.raises(CatalogError, match="no preset 'tinny'. Did you mean 'tiny'?"):
        read_settings("quickstart", "tinny")
    with pytest.raises(SchemaError, match="quickstart.yaml: regression: unknown key 'label'. Did you mean 'labels'?"):
        read_settings("quickstart", overrides=["regression.label=[3]"])


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["quickstart", "--preset", "tiny", "--out", str(tmp_path / "file")]) == 2
    assert "Choose another folder with --out" in capsys.readouterr().err
