"""The shipped study of surprise at tiny size through the real command line; what is kept, and what is refused."""

import json

import pytest

import pdessl
from pdessl.cli import main
from pdessl.data import simulate
from pdessl.errors import SchemaError, StoreError
from pdessl.evaluation.classical import weak_form
from pdessl.experiments.surprise_study import SurpriseStudy, _Job
from pdessl.experiments.violations import CONTROLS, violations

TINY = [
    "surprise.runs=10",
    "surprise.unlabelled=24",
    "surprise.detectors=[law,equation,physics_distance,random_distance,frame_difference]",
    "surprise.violations=[x 2,reflected]",
    "variants.kdv.training={forecaster of fields: {trainer.max_epochs: 1, model.predictor.init_args.undetermined: 0, "
    "model.latent_variable: null}}",
]


def test_the_study_runs_and_keeps_what_is_finished(tmp_path, capsys):
    words = ["study", "surprise", "--out", str(tmp_path), "--only", "kdv", "--set", *TINY]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| kdv | dispersion x 2 | the known equation | 100 |" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    rows = results["rows"]
    assert len(rows) == 6 * 3 and {row["violation"] for row in rows} == {"none", "dispersion x 2", "reflected"}
    by = {(row["detector"], row["violation"]): row for row in rows}
    assert by["law", "dispersion x 2"]["auroc"] == 100 and by["law", "dispersion x 2"]["table"] == "law"
    assert by["frame difference", "reflected"]["table"] == "left out"
    assert by["forecaster of fields", "reflected"]["table"] == "model"  # trained here, on the runs of the law
    assert all(0 <= row["alarms"] <= 100 for row in rows)
    kept = tmp_path / "kdv" / "result.json"
    content = json.loads(kept.read_text())
    content["rows"][0]["alarms"] = 77.0
    kept.write_text(json.dumps(content))
    again = pdessl.study("surprise", tmp_path, TINY, only=["kdv"], announce=lambda line: None)
    assert again["rows"][0]["alarms"] == 77.0  # read, not computed
    kept.write_text(json.dumps(content | {"versions": content["versions"] | {"torch": "0"}}))
    with pytest.raises(StoreError, match=r"computed with torch 0 .*--any-version"):
        pdessl.study("surprise", tmp_path, TINY, only=["kdv"], announce=lambda line: None)
    old = pdessl.study("surprise", tmp_path, TINY, only=["kdv"], announce=lambda line: None, any_version=True)
    assert old["rows"][0]["alarms"] == 77.0
    with pytest.raises(SchemaError, match="no detector 'lawn'. Did you mean 'law'"):
        pdessl.study("surprise", tmp_path, ["surprise.detectors=[lawn]"])
    with pytest.raises(SchemaError, match="none named 'ks'"):
        pdessl.study("surprise", tmp_path, only=["ks"])


def test_violations_begin_after_their_frame_and_controls_are_symmetries():
    """A reflected run of Korteweg-de Vries is a run of the same equation only where time is reflected too."""
    sound = simulate("kdv", "test", range(3)).without_parameters()
    made = {n: make() for n, make in violations("kdv", "dispersion", sound, 30, range(3), reversible=True).items()}
    for name, runs in made.items():
        if name not in CONTROLS:
            assert bool((runs.fields[:, :, :31] == sound.fields[:, :, :31]).all()), name
            assert not bool((runs.fields[:, :, 31:] == sound.fields[:, :, 31:]).all()), name
    given = simulate("kdv", "test", range(3)).parameters
    truth = given["dispersion"]

    def found(runs):
        known = runs.replace(parameters={n: v for n, v in given.items() if n != "dispersion"})
        return weak_form("kdv_coefficients", known, "dispersion") / truth

    assert float((found(made["reflected"]) - 1).abs().max()) < 0.2
    assert float((found(made["shifted"]) - 1).abs().max()) < 0.2
    wrong = violations("kdv", "dispersion", sound, 30, range(3))["reflected"]()
    assert float((found(wrong) + 1).abs().max()) < 0.2


def test_what_is_kept_belongs_to_the_models_as_they_are(tmp_path):
    (tmp_path / "law").mkdir()
    settings = SurpriseStudy("kdv", "dispersion", models={"mine": str(tmp_path / "law")})
    job = _Job("kdv", settings, str(tmp_path), False)
    seen = [job.hash]
    for text in ("{}", "[]", "[]"):
        (tmp_path / "law/law.json").write_text(text)
        seen.append(job.hash)
    assert len(set(seen)) == 3 and seen[2] == seen[3]
