"""Tables of results/ are what their rows on disk give, and rows are never written over."""

import importlib.util
import json
from pathlib import Path

import pytest

from pdessl.errors import PdesslError

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tables)


@pytest.mark.parametrize("page", sorted((ROOT / "results").glob("*.md")), ids=lambda page: page.name)
def test_every_table_is_what_its_rows_give(page):
    text = page.read_text()
    assert tables.written(text) == text, "python benchmarks/tables.py write"
    assert text.count("<!-- table:") == text.count("<!-- end of table -->")


def test_a_changed_row_changes_the_table(tmp_path, monkeypatch):
    run, kept = tmp_path / "run", tmp_path / "results/rows/mine.json"
    run.mkdir()
    error = {"mean": 1.5, "standard_error": 0.25, "values": [1.25, 1.75]}
    row = {"method": "frozen", "title": "frozen encoder", "group": "pretrained", "labels": 8, "relative_error": error}
    (run / "report.json").write_text(json.dumps({"regression": {"rows": [row]}, "rows": [1], "embedding": [1]}))
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    tables.main(["collect", str(run), str(kept)])
    assert set(json.loads(kept.read_text())) == {"regression", "rows"}  # rows: of ``design --compare``
    page = tmp_path / "results/page.md"
    page.write_text("before\n<!-- table: regression mine.json -->\n| 9 |\n<!-- end of table -->\nafter\n")
    tables.main(["write"])
    assert "| frozen encoder | 1.50 ± 0.25 |" in page.read_text()
    assert "| 9 |" not in page.read_text()
    with pytest.raises(PdesslError, match="never written over"):
        tables.main(["collect", str(run), str(kept)])
    with pytest.raises(PdesslError, match="expected one of regression"):
        tables.written("<!-- table: regression none.json -->\n<!-- end of table -->")
