import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from pdessl import cli
from pdessl.errors import FormatError
from pdessl.evaluation.law_section import sentence
from pdessl.evaluation.plots import principal_components, training_figure, views_figure
from pdessl.evaluation.report import read_report, write_report
from pdessl.evaluation.tables import compare, findings, measured, regression_row


def sample(ours=(18.0, 19.0, 20.0), floor=(24.0, 25.0, 26.0)):
    rng = np.random.default_rng(0)
    true = np.exp(rng.uniform(np.log(0.01), np.log(0.1), 60))
    rows = [
        regression_row("mean", "predict the mean", "floor", 32, [80.0], [1.0]),
        regression_row("scratch", "supervised from scratch", "floor", 32, floor, [0.2, 0.21, 0.22]),
        regression_row("frozen", "frozen encoder + ridge", "pretrained", 32, ours, [0.1, 0.12, 0.13]),
        regression_row("frozen", "frozen encoder + ridge", "pretrained", 64, ours, [0.1, 0.12, 0.13]),
        regression_row("scratch", "supervised from scratch", "floor", 64, ours, [0.1, 0.12, 0.13]),
        regression_row("weak", "weak form <no labels>", "classical", None, [9.0], [0.05]),
    ]
    report = {
        "title": "Burgers & friends",
        "summary": ["A test <b>of</b> escaping."],
        "commands": ["pdessl quickstart --preset tiny"],
        "versions": {"torch": "2.13.0"},
        "machine": {"cores": 2},
        "seconds": {"simulate": 1.5, "pretrain": 2.0},
        "recipe": {"seed": 0},
        "views": {"row_titles": ["viscosity 0.02"], "column_titles": ["observed", "view"], "strengths": []},
        "training": {"curves": {"epoch": [1, 2, 3], "loss": [9, 8, 7.0], "std": [0.1, 0.5, 0.9], "rankme": [2, 8, 16]}},
        "regression": {"target": "viscosity", "test_size": 60, "rows": rows, "notes": []},
        "predictions": {"labels": 32, "methods": {"frozen": "frozen encoder + ridge"}},
        "embedding": {"encoders": {"pretrained": "pretrained"}},
        "timestepping": {
            "rows": [{"title": "persistence", "one_step": measured([0.1]), "rollout": measured([0.9])}],
            "frames": 8,
            "error_over_time": {"persistence": list(np.linspace(0.01, 1, 8))},
            "shown": {"plain": "unconditioned"},
        },
    }
    arrays = {
        "predictions/true": true,
        "predictions/frozen": true * np.exp(0.1 * rng.standard_normal(60)),
        "embedding/parameter": true,
        "embedding/pretrained": rng.standard_normal((60, 5)),
        "rollout/time": np.arange(8.0),
        "rollout/space": np.arange(16.0),
        "rollout/truth": rng.standard_normal((8, 16)),
        "rollout/plain": rng.standard_normal((8, 16)),
        "spectra/time": np.array([0.0, 3.0, 7.0]),
        "spectra/truth": rng.random((3, 9)),
        "spectra/plain": np.full((3, 9), np.inf),  # a rollout that blew up
    }
    for j in range(2):
        arrays |= {f"views/0/{j}/field": rng.standard_normal((6, 16)), f"views/0/{j}/time": np.arange(6.0)}
        arrays[f"views/0/{j}/space"] = np.arange(16.0)
    return report, arrays


class Page(HTMLParser):
    """Collects what a page would load, and checks that the tags close."""

    void = frozenset({"meta", "br", "link", "img", "use", "path"})

    def __init__(self):
        super().__init__()
        self.loads, self.open, self.words = [], [], []

    def handle_starttag(self, tag, attributes):
        self.loads += [
            v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith(("#", "data:"))
        ]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_self_contained_and_shows_the_numbers(tmp_path):
    report, arrays = sample()
    path = write_report(tmp_path / "out", report, arrays)
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.loads == []
    assert text.count("<svg") == 7
    words = "".join(page.words)
    for expected in (
        "19.0 ± 0.6",
        "25.0 ± 0.6",
        "weak form <no labels>",
        "A test <b>of</b> escaping.",
        "--preset tiny",
    ):
        assert expected in words
    assert "simulate" in words
    assert "3.5" in words  # the sum of the stages
    assert len(text) < 3_000_000


def test_figures_are_vector_files_beside_the_page(tmp_path):
    report, arrays = sample()
    page = write_report(tmp_path, report, arrays).read_text()
    files = [tmp_path / "figures" / f"figure_{n}.svg" for n in range(1, 8)]
    assert sorted((tmp_path / "figures").iterdir()) == files
    for file in files:
        drawn = file.read_text(encoding="utf-8")
        assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
        assert drawn.split("\n", 1)[1].strip() in page
    fewer = {k: v for k, v in report.items() if k != "regression"} | {"title": "fewer"}
    left = write_report(tmp_path, fewer, arrays).read_text().count("<figure><svg")
    assert 0 < left < 7 and len(list((tmp_path / "figures").iterdir())) == left


def test_what_needs_no_label_is_compared_with_every_row():
    rows = [
        regression_row("frozen", "frozen", "pretrained", 20, [33.3], [1.0]),
        regression_row("balance", "energy balance, calibrated", "floor", 20, [0.24], [0.0]),
        regression_row("itself", "energy balance itself", "classical", None, [2.1], [0.0]),
    ]
    assert findings(rows)[-1].endswith("energy balance itself 2.1 %, more than 0.24 %, energy balance, calibrated.")


def test_no_error_is_none():
    rows = [
        regression_row("law", "the law", "pretrained", 20, [0.0264], [0.0]),
        regression_row("mean", "mean", "floor", 20, [83.76], [1.0]),
    ]
    assert findings(rows)[0].startswith("20 labels: the law 0.026 %, best floor (mean) 83.8 %")


def test_report_json_holds_every_value_behind_the_means(tmp_path):
    write_report(tmp_path, *sample())
    stored = json.loads((tmp_path / "report.json").read_text())
    row = next(r for r in stored["regression"]["rows"] if r["method"] == "frozen" and r["labels"] == 32)
    assert row["relative_error"]["values"] == [18.0, 19.0, 20.0]
    assert row["relative_error"]["mean"] == pytest.approx(19.0)
    assert row["relative_error"]["standard_error"] == pytest.approx(1 / math.sqrt(3))


def test_the_same_report_is_the_same_page(tmp_path):
    write_report(tmp_path / "a", *sample())
    assert cli.main(["report", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a/report.html").read_text() == (tmp_path / "b/report.html").read_text()
    assert not [p for p in (tmp_path / "a").iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        ((18.0, 19.0, 20.0), "lower, by more than two standard errors"),
        ((22.0, 24.0, 26.0), "not told apart"),
        ((38.0, 39.0, 40.0), "higher, by more than two standard errors"),
    ],
)
def test_findings_say_what_the_numbers_say(ours, words):
    lines = findings(sample(ours=ours)[0]["regression"]["rows"])
    assert words in lines[0]
    assert "32 labels" in lines[0]
    assert "not told apart" in lines[1]  # equal at 64 labels


def test_findings_do_not_hide_a_classical_estimate_that_wins():
    rows = [r for r in sample(ours=(18.0, 19.0, 20.0))[0]["regression"]["rows"] if r["group"] != "classical"]
    assert "knows the equation" not in " ".join(findings(rows))
    for error, words in ((2.0, "2 %, less than any other row"), (60.0, "60 %, more than")):
        known = regression_row("weak_form", "weak form", "classical", None, [error], [0.1])
        assert words in findings([*rows, known])[-1]


def test_a_law_does_not_hide_that_the_representation_loses_to_hand_made_features():
    rows = [
        regression_row("law", "law", "pretrained", 16, [0.9, 0.9], [0.1, 0.1]),
        regression_row("frozen", "frozen", "pretrained", 16, [7.5, 7.4], [0.1, 0.1]),
        regression_row("physics", "hand-made", "floor", 16, [2.6, 2.5], [0.1, 0.1]),
    ]
    lines = findings(rows)
    assert lines[0].startswith("16 labels: law 0.9 %") and "loses to hand-made physics features" in lines[1]
    assert "16 labels (2.6 against 7.5 %)" in lines[1] or "16 labels (2.5 against 7.5 %)" in lines[1]
    assert len(findings([rows[0], rows[2]])) == 1  # a law alone is no representation that was trained


def test_comparison_counts_standard_errors_of_the_difference():
    score, _ = compare(measured([1.0, 2.0, 3.0]), measured([4.0, 5.0, 6.0]))
    assert score == pytest.approx(3 / math.sqrt(2 / 3))


def test_one_value_has_no_standard_error():
    assert measured([2.0]) == {"mean": 2.0, "standard_error": None, "values": [2.0]}


def test_sections_that_are_absent_are_left_out(tmp_path):
    path = write_report(tmp_path, {"title": "bare"}, {})
    assert "<svg" not in path.read_text()


def test_a_folder_without_a_report_is_refused(tmp_path, capsys):
    (tmp_path / "shard.h5").touch()
    with pytest.raises(FormatError, match=r"no report.json \(shard.h5\)"):
        read_report(tmp_path)
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "finished run" in capsys.readouterr().err


def test_a_damaged_report_is_refused_and_a_missing_array_named(tmp_path):
    report, arrays = sample()
    write_report(tmp_path, report, arrays)
    (tmp_path / "report.npz").write_bytes((tmp_path / "report.npz").read_bytes()[:100])
    with pytest.raises(FormatError, match="cannot be read"):
        read_report(tmp_path)
    del arrays["rollout/truth"]
    with pytest.raises(FormatError, match="lacks 'rollout/truth'"):
        write_report(tmp_path / "other", report, arrays)
    assert not (tmp_path / "other").exists()


def test_principal_components_find_the_direction_of_variance():
    rng = np.random.default_rng(1)
    direction = np.array([3.0, 4.0, 0.0]) / 5
    features = rng.standard_normal((500, 1)) * 10 * direction + 0.01 * rng.standard_normal((500, 3)) + 7.0
    components, share = principal_components(features)
    assert share[0] > 0.999
    assert abs(np.corrcoef(components[:, 0], features @ direction)[0, 1]) > 0.9999
    assert components.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_figures_take_curves_with_gaps_and_views_of_other_sizes():
    figure = training_figure({"epoch": [1, 2], "loss": [-1.0, 2.0], "probe/relative_error": [math.nan, 30.0]}, width=8)
    assert [a.get_title() for a in figure.axes if a.get_visible()][0].startswith("objective")
    figure = views_figure(
        [[np.ones((4, 8)), np.zeros((3, 5))]],
        [[np.arange(4), np.arange(3)]],
        [[np.arange(8), np.arange(5)]],
        ["a"],
        ["b", "c"],
    )
    assert re.search("b", figure.axes[0].get_title())


def test_the_first_sentence_says_the_law_and_what_others_have_with_the_same_labels():
    rows = [
        regression_row("law", "law", "pretrained", 16, [0.9], [0.1]),
        regression_row("scratch", "supervised", "floor", 16, [13.0], [0.2]),
        regression_row("scratch", "supervised", "floor", 64, [5.0], [0.2]),
    ]
    section = {"equation": ["    u_t = z u_xx"], "target": "viscosity", "labels": 16, "runs": 1024, "error": 0.9}
    said = sentence({**section, "shown": "z"}, rows)
    assert "1,024 unlabelled runs" in said and ": u_t = z u_xx. With 16 labels z" in said
    assert said.endswith("is the viscosity to 0.9 % (a network trained on the same labels 13 %).")
    two = sentence({**section, "equation": ["u_t = z u_xx", "v_t = z v_xx"], "shown": "predicted"}, [])
    assert "the law that they obey" in two and "=" not in two and two.endswith("to 0.9 %.")
