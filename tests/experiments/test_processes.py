"""Worker processes see the data that their parent sees."""

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.windows import Crop
from pdessl.errors import DataError
from pdessl.experiments.processes import Shared, Workers, each


def fields_of(shared, split):
    runs = getattr(shared.data, split)
    return runs.fields.numpy(), np.array(runs.field_names)


class Mean(nn.Module):
    """An encoder that is saved without arguments."""

    init_args: dict = {}

    def forward(self, fields):
        return fields.flatten(2).mean(dim=2)


@pytest.mark.slow
def test_workers_have_crop_splits_mapping_fields_and_seed(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "runs").mkdir()
    for i in range(12):
        xr.Dataset(
            {n: (("t", "x"), rng.standard_normal((12, 32))) for n in ("velocity", "density")},
            coords={"t": 0.5 * np.arange(12), "x": 2.0 * np.arange(32)},
            attrs={"nu": 0.1 * (i + 1)},
        ).to_netcdf(tmp_path / "runs" / f"run_{i:02d}.nc", engine="h5netcdf")
    mapping = {
        "equation": "burgers",
        "fields": {"u": "velocity", "rho": "density"},
        "time": {"dataset": "t"},
        "space": {"x": {"length": 64.0}},
        "boundary": {"x": "periodic"},
        "parameters": {"nu": {"attribute": "nu"}},
    }
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    data = PDEDataModule(
        tmp_path / "runs",
        mapping=str(tmp_path / "mapping.yaml"),
        splits={"test": 0.5, "validation": 0.25},
        fields=["rho"],
        crop=Crop(frames=6, points=16),
        seed=3,
    )
    data.setup()
    shared = Shared(Mean().eval(), data, None)
    alone = list(each(fields_of, ["test", "validation"], shared))
    whole = PDEDataModule(tmp_path / "runs", mapping=str(tmp_path / "mapping.yaml"), splits={"test": 0.5})
    whole.setup()
    with Workers(2) as workers:  # the same processes serve calls on other data
        spread = list(each(fields_of, ["test", "validation"], shared, workers))
        other = list(each(fields_of, ["test", "test"], Shared(Mean().eval(), whole, None), workers))
    assert [sorted(names.tolist()) for _, names in other] == [["rho", "u"]] * 2
    assert alone[0][0].shape == (6, 1, 6, 16) and alone[0][1].tolist() == ["rho"]
    for (a, names), (b, others) in zip(alone, spread, strict=True):
        assert torch.equal(torch.from_numpy(a), torch.from_numpy(b)) and names.tolist() == others.tolist()


def test_data_that_a_worker_could_not_make_again_are_refused(tmp_path):
    from pdessl.data import generate

    class Other(PDEDataModule):
        pass

    store = generate(
        "burgers_small", tmp_path / "data", size={"unlabelled": 4, "labelled": 4, "validation": 4, "test": 4}
    )
    with pytest.raises(DataError, match="not as Other: use workers=1"):
        list(each(fields_of, ["test", "validation"], Shared(Mean(), Other(store.path), None), workers=2))
    data = PDEDataModule(store.path)
    data.crop = Crop(frames=4)
    with pytest.raises(DataError, match=r"'crop' of the data module was changed.*PDEDataModule\(crop=...\)"):
        list(each(fields_of, ["test", "validation"], Shared(Mean(), data, None), workers=2))
    mended = PDEDataModule(store.path, crop=Crop(frames=4))
    mended.setup()
    assert list(each(fields_of, ["test", "validation"], Shared(Mean(), mended, None), workers=2))[0][0].shape[2] == 4
