"""Which runs to label next: optima that are known, what is never chosen, and the verb."""

import csv
import itertools
import json
import math

import pytest
import torch

import pdessl
from pdessl import cli
from pdessl.data.labels import with_labels
from pdessl.errors import DataError, ShapeError
from pdessl.experiments.labelling import compare_labelling, label_next
from pdessl.inference.labelling import ACQUISITIONS, next_to_label


def rows(n=60, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("by", ACQUISITIONS)
def test_runs_are_chosen_once_and_never_those_that_are_labelled(by):
    known = torch.arange(10, 20)
    found = next_to_label(rows(), 50, by, known)
    assert sorted(found.tolist()) == [*range(10), *range(20, 60)]
    assert torch.equal(next_to_label(rows(), 7, by, known, seed=3), next_to_label(rows(), 7, by, known, seed=3))
    with pytest.raises(DataError, match="51 runs to label, of 50 that have no label"):
        next_to_label(rows(), 51, by, known)


def test_k_centres_cover_within_twice_the_smallest_radius():
    x = rows(12, 2)
    scaled = (x - x.mean(dim=0)) / x.std(dim=0)

    def radius(chosen):
        return float(torch.cdist(scaled, scaled[list(chosen)]).amin(dim=1).max())

    best = min(radius(c) for c in itertools.combinations(range(12), 3))
    found = next_to_label(x, 3, "k_centre").tolist()
    assert best <= radius(found) <= 2 * best
    nearest = torch.cdist(scaled, scaled[found]).amin(dim=1)
    assert next_to_label(x, 1, "k_centre", torch.tensor(found)).tolist() == [int(nearest.argmax())]


def test_d_optimal_takes_the_largest_step_of_the_determinant_and_on_a_line_both_ends():
    x = rows(30, 2)
    scaled = torch.cat([torch.ones(30, 1), (x - x.mean(dim=0)) / x.std(dim=0)], dim=1).double()
    known = torch.tensor([0, 1, 2, 3, 4])

    def determinant(chosen):
        part = scaled[chosen]
        return float(torch.logdet(1e-3 * torch.eye(3, dtype=torch.float64) + part.mT @ part))

    for _ in range(4):
        gains = {k: determinant([*known.tolist(), k]) for k in range(30) if k not in known.tolist()}
        chosen = next_to_label(x, 1, "d_optimal", known)
        assert int(chosen) == max(gains, key=gains.get)
        known = torch.cat([known, chosen])
    line = torch.linspace(-1, 1, 21, dtype=torch.float64)[:, None]
    assert set(next_to_label(line, 2, "d_optimal").tolist()) == {0, 20}


def test_sobol_fills_the_ranks_of_the_leading_component_evenly():
    x = torch.exp(3 * rows(64, 1))  # very uneven, but its ranks are not
    found = x.argsort(dim=0).argsort(dim=0)[next_to_label(x, 8, "sobol", seed=1)].flatten()
    assert sorted((found // 8).tolist()) == list(range(8))


def test_what_cannot_be_is_refused():
    with pytest.raises(ShapeError, match=r"expected \(n, D\)"):
        next_to_label(torch.zeros(3), 1)
    with pytest.raises(DataError, match="no way 'kcentre'. Did you mean 'k_centre'"):
        next_to_label(rows(), 1, "kcentre")
    with pytest.raises(DataError, match="not finite"):
        next_to_label(torch.full((3, 1), math.nan), 1)


class Extremes:
    """An encoder: largest and smallest value of a run."""

    def features(self, runs):
        return torch.stack([runs.fields.flatten(1).amax(dim=1), runs.fields.flatten(1).amin(dim=1)], dim=1).double()


def test_files_are_named_in_a_table_that_regress_reads(tmp_path):
    runs = pdessl.simulate("burgers_small", "unlabelled", range(6)).without_parameters().to_xarray()
    for k in range(3):
        runs.isel(trajectory=slice(2 * k, 2 * k + 2)).to_netcdf(tmp_path / f"r{k}.nc", engine="h5netcdf")
    found = label_next(Extremes(), tmp_path, 4, "k_centre", out=tmp_path / "labels.csv")
    assert found.of == 6 and "4 of 6 runs" in str(found)
    place = tmp_path / "labels.csv"
    with place.open(newline="") as handle:
        table = list(csv.DictReader(handle))
    with place.open("w", newline="") as handle:
        csv.writer(handle).writerows([["run", "value"], *([row["run"], k] for k, row in enumerate(table))])
    read = pdessl.open(tmp_path, mapping=with_labels(tmp_path, None, place, "viscosity"))
    labels = {}
    for split in read.splits:
        values = read.parameter_values(split).get("viscosity", [])
        labels |= {run: v for run, v in zip(read.origins(split), values, strict=False) if math.isfinite(v)}
    assert labels == {run: float(k) for k, run in enumerate(found.runs)}


@pytest.mark.parametrize("by", ["random", "k_centre"])
def test_a_table_with_labels_is_added_to(by, small_store, tmp_path):
    place = tmp_path / "labels.csv"
    first = label_next(Extremes(), small_store, 4, by, out=place)
    again = label_next(Extremes(), small_store, 4, by, out=place)  # nothing was filled in: the same are waited for
    assert again.runs == first.runs and again.of == 32
    names = [f"{split}:{row}" for split, row in first.runs]
    kept = [["run", "value", "standard_error"], *([name, f"0.{k}", "0.01"] for k, name in enumerate(names[:3], 1))]
    with place.open("w", newline="", encoding="utf-8-sig") as handle:  # as spreadsheets write it
        csv.writer(handle).writerows([*kept, [names[3], "", ""]])
    second = label_next(Extremes(), small_store, 5, by, out=place)
    assert not {*first.runs[:3]} & {*second.runs} and second.of == 29 and len(set(second.runs)) == 5
    with place.open(newline="") as handle:
        table = list(csv.reader(handle))
    assert table == [*kept, *([f"{split}:{row}", "", ""] for split, row in second.runs)]
    for text in ("name,value\na,1\n", "run,value\na,1,2\n"):
        place.write_text(text)
        with pytest.raises(DataError, match="expected run and value.* Choose another name"):
            label_next(Extremes(), small_store, 4, by, out=place)
        assert place.read_text() == text


def test_without_unlabelled_runs_the_others_are_chosen_from_and_each_once(tmp_path):
    store = tmp_path / "store"
    pdessl.generate("burgers_small", store, size={"unlabelled": 0, "labelled": 6, "validation": 2, "test": 2})
    found = label_next(Extremes(), store, 6)
    assert {split for split, _ in found.runs} == {"labelled"} and found.of == 6
    with pytest.raises(DataError, match="no runs to choose from in unlabelled. Runs by split: .*labelled 6"):
        label_next(Extremes(), store, 2, split="unlabelled")
    runs = pdessl.simulate("burgers_small", "unlabelled", range(5)).without_parameters().to_xarray()
    files = tmp_path / "files"
    files.mkdir()
    for k, frames in enumerate((None, None, 20)):  # runs of another length are a part of the split
        runs.isel(trajectory=slice(k, k + 1), time=slice(frames)).to_netcdf(files / f"r{k}.nc", engine="h5netcdf")
    found = label_next(Extremes(), files, 3)
    assert found.of == 3 and len(set(found.runs)) == 3
    place = tmp_path / "labels.csv"
    place.write_text("run,value\nr1.nc:0,0.1\n")  # the short name that regress knows too
    assert sorted(name[-4:] for name, _ in label_next(Extremes(), files, 2, out=place).runs) == ["0.nc", "2.nc"]


def test_ways_are_compared_on_the_same_halves(small_store, tmp_path):
    told = []
    found = compare_labelling(
        Extremes(),
        small_store,
        "viscosity",
        [4, 8],
        ("random", "k_centre"),
        seeds=2,
        out=tmp_path,
        announce=told.append,
    )
    assert len(told) == 4 and json.loads((tmp_path / "report.json").read_text())["rows"] == found
    # Of the half of a seed all are chosen: what is left is the same readout, whatever the way.
    assert found[1]["relative_error"]["values"] == pytest.approx(found[3]["relative_error"]["values"])
    assert found[0]["relative_error"]["values"] != found[2]["relative_error"]["values"]
    with pytest.raises(DataError, match="have no 'buoyancy'"):
        compare_labelling(Extremes(), small_store, "buoyancy", [4])
    with pytest.raises(DataError, match="counts of 3 or more"):
        compare_labelling(Extremes(), small_store, "viscosity", [2])


def test_the_command_chooses_and_compares(small_store, tmp_path, capsys):
    model = tmp_path / "model"
    labelled = pdessl.open(small_store).load("labelled")
    pdessl.fit_parameter_model(pdessl.inference.PhysicsEncoder.balance(labelled), labelled).save(model)
    words = ["design", "--encoder", str(model), "--data", str(small_store)]
    assert cli.main([*words, "--label-next", "3", "--by", "d_optimal", "--out", str(tmp_path / "next.csv")]) == 0
    assert "3 of" in capsys.readouterr().out and (tmp_path / "next.csv").read_text().startswith(
        "run,value\nunlabelled:"
    )
    assert (
        cli.main([*words, "--label-next", "4,6", "--compare", "random", "--target", "viscosity", "--seeds", "1"]) == 0
    )
    assert "random, 6 labels:" in capsys.readouterr().out
    assert cli.main(["design", "--label-next", "3"]) == 2
    assert "needs --encoder and --data" in capsys.readouterr().err
    assert cli.main(["design"]) == 2
    assert "give a STUDY, or --label-next N" in capsys.readouterr().err
