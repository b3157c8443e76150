import lightning
import pytest
import torch
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsRegressor

from pdessl.errors import CheckpointError, DataError, SchemaError
from pdessl.models import ConvEncoder, Encoder, Head, Projector, TimeStepper, fit_ridge, load
from pdessl.objectives import (
    CrossForecast,
    ParameterEquivariance,
    VICReg,
    WeightedSum,
    alpha_req,
    rank_me,
    uniformity,
)
from pdessl.tasks import ParameterRegression, Pretraining, Probes, SaveEncoder

from .toy import FieldStatistics, ShiftAndSlow, WaveData, trainer, waves

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:VICReg. with 8 rows")


def task(objective=None, **settings):
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1, 1))
    projector = Projector(encoder.feature_dim, (16,), 16)
    return Pretraining(encoder, projector, objective or VICReg(), ShiftAndSlow(), **settings)


def with_shifts(weight=1.0, **settings):
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1, 1))
    projector = Projector(encoder.feature_dim, (16,), 16)
    shifts = ParameterEquivariance("viscosity", Head(encoder.feature_dim, standardise=True))
    objective = WeightedSum({"agreement": VICReg(), "shifts": shifts}, {"shifts": weight})
    return Pretraining(encoder, projector, objective, ShiftAndSlow(slow=True), **settings)


def forecasting_task(**settings):
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1, 1), features=3, hidden=8)
    return Pretraining(
        encoder,
        Projector(encoder.trunk_dim, (16,), 16),
        WeightedSum(
            {
                "agreement": VICReg(),
                "forecast": CrossForecast(TimeStepper(past=2, width=8, blocks=2, condition=3), horizon=3),
            },
            {"forecast": 10.0},
        ),
        ShiftAndSlow(),
        projected="trunk",
        **settings,
    )


def test_a_killed_and_resumed_run_ends_with_the_same_weights(tmp_path):
    whole = with_shifts()
    trainer(tmp_path, 3).fit(whole, datamodule=WaveData())

    class Killed(Exception):
        pass

    class Kill(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == 1:
                raise Killed

        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

    torch.manual_seed(7)  # the global generator is not part of what is resumed
    killed = with_shifts()
    with pytest.raises(Killed):
        trainer(tmp_path, 3, callbacks=[Kill()]).fit(killed, datamodule=WaveData())
    torch.load(tmp_path / "last.ckpt", weights_only=True)  # holds nothing that needs unpickling
    resumed = with_shifts()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1.0)
    trainer(tmp_path, 3).fit(resumed, datamodule=WaveData(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    differs = any(not torch.equal(a, b) for a, b in zip(killed.parameters(), whole.parameters(), strict=True))
    assert differs, "the killed run had not diverged: the comparison above shows nothing"


def test_a_resumed_run_draws_the_same_forecasts(tmp_path):
    whole = forecasting_task()
    trainer(tmp_path, 2).fit(whole, datamodule=WaveData())

    class Keep(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "first.ckpt")

    trainer(tmp_path, 2, callbacks=[Keep()]).fit(forecasting_task(), datamodule=WaveData())
    resumed = forecasting_task()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1.0)
    trainer(tmp_path, 2).fit(resumed, datamodule=WaveData(), ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_the_forecast_trains_the_code_and_the_objective_the_trunk_only(tmp_path):
    task = forecasting_task()
    run = trainer(tmp_path, 3)
    run.fit(task, datamodule=WaveData())
    assert run.callback_metrics["train/forecast"] < run.callback_metrics["train/persistence"]
    batch = WaveData().training[:8]
    features, trunk, _ = task.encoder(batch)
    assert features.shape == (8, 3)
    assert torch.allclose(features, task(batch.fields), atol=1e-6)
    task.zero_grad()
    z = task.projector(trunk)
    task.objective.objectives["agreement"].terms(z, z.flip(0)).loss.backward()
    assert all(p.grad is None for p in task.encoder.module.head.parameters())
    with pytest.raises(SchemaError, match="projected 'code'"):
        Pretraining(ConvEncoder(width=4), torch.nn.Identity(), VICReg(), ShiftAndSlow(), projected="code")


def test_validation_logs_monitors_and_a_probe_that_gives_no_gradient(tmp_path):
    one, other = task(), task()
    run = trainer(tmp_path, 2, callbacks=[Probes(views=2)])
    run.fit(one, datamodule=WaveData())
    metrics = run.callback_metrics
    assert 1 <= metrics["monitor/rank_me"] <= 16
    assert metrics["probe/viscosity_r2"] > 0.5, "even a random encoder sees the decay of a standing wave"
    assert metrics["probe/viscosity_relative_error"] > 0
    assert {"train/loss", "train/invariance", "train/variance", "train/covariance"} <= set(metrics)
    data = WaveData()
    wrong = data.labelled.replace(parameters={"viscosity": data.labelled.parameters["viscosity"].flip(0)})
    data.labelled = wrong
    trainer(tmp_path, 2, callbacks=[Probes(views=2)]).fit(other, datamodule=data)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_logged_probes_and_monitors_are_those_of_the_features(tmp_path):
    learner, data = task(), WaveData()
    run = trainer(tmp_path, 1)
    run.fit(learner, datamodule=data)
    learner.eval()
    with torch.no_grad():
        labelled, held_out = (learner.encoder(t.fields) for t in (data.labelled, data.held_out))
        embeddings = learner.projector(held_out)
    known, truth = (t.parameters["viscosity"].log().numpy() for t in (data.labelled, data.held_out))
    near = KNeighborsRegressor(10, metric="cosine").fit(labelled.numpy(), known).predict(held_out.numpy())
    linear = fit_ridge(labelled, torch.from_numpy(known)).predict(held_out)[:, 0].numpy()
    expected = {
        "probe/viscosity_neighbours_r2": r2_score(truth, near),
        "probe/viscosity_r2": r2_score(truth, linear),
        "monitor/rank_me": rank_me(embeddings),
        "monitor/features_rank_me": rank_me(held_out),
        "monitor/alpha_req": alpha_req(embeddings),
        "monitor/features_uniformity": uniformity(held_out),
        "monitor/std_median": float(embeddings.std(dim=0).median()),
    }
    for name, value in expected.items():
        assert float(run.callback_metrics[name]) == pytest.approx(value, rel=1e-3, abs=1e-4), name
    assert {"monitor/lidar", "monitor/lidar_signal", "monitor/alignment"} <= set(run.callback_metrics)


def test_the_saved_encoder_is_given_raw_fields(tmp_path):
    trained = task()
    data = WaveData()
    trainer(tmp_path, 1, callbacks=[SaveEncoder(tmp_path / "auto")]).fit(trained, datamodule=data)
    trained.save_encoder(tmp_path / "run", {"dataset": "waves"})
    fields = waves(5).fields
    trained.eval()
    for folder in ("auto", "run"):
        encoder = load(tmp_path / folder)
        assert isinstance(encoder, Encoder)
        assert encoder.statistics["mean"][0] == pytest.approx(data.statistics["u"].mean, rel=1e-6)
        assert torch.equal(encoder(fields), trained(fields))
        assert encoder.trained_on["equation"] == waves(5).equation
        assert encoder.trained_on["steps"] == {
            "time": [float(waves(5).time_step[0])] * 2,
            "x": [float(waves(5).grid_spacing[0, 0])] * 2,
        }


def test_a_batch_of_one_is_refused_and_a_constant_field_is_no_infinity(tmp_path):
    with pytest.raises(DataError, match="Set data.batch_size to 2 or more"):
        trainer(tmp_path, 1).fit(task(), datamodule=WaveData(batch_size=1))

    class Constant(WaveData):
        @property
        def statistics(self):
            return {"u": FieldStatistics(float(self.training.fields.mean()), 1e-9)}

    data = Constant()
    data.training = data.training.replace(fields=torch.full_like(data.training.fields, 3.0))
    trained = task()
    trainer(tmp_path, 1, limit_val_batches=0).fit(trained, datamodule=data)
    assert trained.encoder.statistics["std"] == [1.0]
    assert all(bool(torch.isfinite(p).all()) for p in trained.parameters())


def test_known_shifts_train_the_head(tmp_path):
    learner = with_shifts(20.0, learning_rate=3e-3)
    run = trainer(tmp_path, 30, limit_val_batches=0)
    run.fit(learner, datamodule=WaveData())
    metrics = run.callback_metrics
    assert metrics["train/equivariance"] < 0.5 * metrics["train/equivariance_floor"]


def test_views_depend_on_seed_epoch_and_batch_only(tmp_path):
    class Recorder(ShiftAndSlow):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, batch, generator=None):
            view, elements = super().forward(batch, generator)
            self.seen.append(int(torch.randint(0, 2**31, (1,), generator=generator)))
            return view, elements

    def record(seed, noise):
        torch.manual_seed(noise)
        learner = task(seed=seed)
        learner.augmentation = Recorder()
        trainer(tmp_path, 2, limit_val_batches=0).fit(learner, datamodule=WaveData())
        return learner.augmentation.seen

    first = record(0, 0)
    assert len(set(first)) == len(first) == 16
    assert record(0, 1) == first
    assert record(1, 0) != first


def test_biases_and_norms_have_no_decay():
    learner = task()
    learner._trainer = type("Stub", (), {"estimated_stepping_batches": 100})()
    groups = learner.configure_optimizers()["optimizer"].param_groups
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(learner.parameters()))


def test_errors(tmp_path):
    with pytest.raises(SchemaError, match="learning_rate 0"):
        task(learning_rate=0)
    trained = task()
    run = trainer(tmp_path, 1)
    run.fit(trained, datamodule=WaveData())
    run.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"written by Pretraining.*pdessl.models.pretrained"):
        trainer(tmp_path, 1).fit(
            ParameterRegression(ConvEncoder(width=4, blocks=(1, 1))),
            datamodule=WaveData(labels=True),
            ckpt_path=tmp_path / "last.ckpt",
        )


class Cut(torch.nn.Module):
    """Views cut out of the periodic axis, of a batch with a second field."""

    def forward(self, batch, generator=None):
        return batch.window(slice(None), slice(2, 12)), None


class TwoFields(WaveData):
    def __init__(self):
        super().__init__()
        for name in ("training", "labelled", "held_out"):
            runs = getattr(self, name)
            fields = torch.cat([runs.fields, 2 * runs.fields], dim=1)
            setattr(self, name, runs.replace(fields=fields, field_names=("u", "v")))

    @property
    def statistics(self):
        return super().statistics | {"v": FieldStatistics(2.0, 4.0)}


def test_what_networks_leave_open_is_taken_from_the_first_batch(tmp_path):
    """In Python as from the command line: how many fields there are, and which axes of the views are periodic."""
    data = TwoFields()
    torch.manual_seed(0)
    network, stepper = ConvEncoder(width=4, blocks=(1,)), TimeStepper(past=2, width=8, blocks=1, condition=8)
    objective = WeightedSum({"agreement": VICReg(), "forecast": CrossForecast(stepper, horizon=2)})
    learner = Pretraining(network, Projector(8, (8,), 8), objective, Cut())
    trainer(tmp_path, 1).fit(learner, datamodule=data)
    assert learner.encoder.module is network  # the object that was given is the one that is trained
    for found in (network, stepper):
        assert found.in_channels == 2 and found.init_args["periodic"] == [False]
    assert learner.encoder.in_channels == 2
    # What was said stays, and networks that fit keep their weights.
    torch.manual_seed(0)
    given = ConvEncoder(in_channels=1, width=4, blocks=(1,), periodic=(True,))
    before = given.stem[0].weight.clone() if hasattr(given.stem[0], "weight") else None
    kept = Pretraining(given, Projector(8, (8,), 8), VICReg(), Cut(), learning_rate=1e-12)
    trainer(tmp_path, 1).fit(kept, datamodule=WaveData())
    assert given.init_args["periodic"] == [True]
    assert before is None or torch.allclose(before, given.stem[0].weight)


def test_loaders_will_do_without_a_data_module(tmp_path):
    data = WaveData()
    learner = task()
    run = trainer(tmp_path, 1)
    run.fit(learner, data.train_dataloader(), data.val_dataloader())
    assert torch.isfinite(run.callback_metrics["train/loss"])
    assert learner.encoder.statistics == {"mean": [0.0], "std": [1.0]}
