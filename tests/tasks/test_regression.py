import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

from pdessl.errors import DataError, SchemaError
from pdessl.models import ConvEncoder, Encoder, view_seed
from pdessl.tasks import ParameterRegression
from pdessl.tasks.batches import log_parameter

from .toy import ShiftAndSlow, WaveData, trainer, waves

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:Found .* in eval mode at the start of training",
    "ignore:Be aware that when using `ckpt_path`",
)


def task(**settings):
    torch.manual_seed(0)
    return ParameterRegression(ConvEncoder(width=4, blocks=(1, 1)), learning_rate=1e-2, **settings)


def test_learns_the_parameter_and_returns_it_in_its_own_unit(tmp_path):
    learner = task(augmentation=ShiftAndSlow(), views=2)
    run = trainer(tmp_path, 15)
    run.fit(learner, datamodule=WaveData(labels=True))
    learner.eval()
    test = waves(16, seed=9)
    ratio = learner.estimate(test).log() - test.parameters["viscosity"].log()
    assert ratio.abs().mean() < 0.3 * test.parameters["viscosity"].log().std()
    assert float(run.callback_metrics["validation/relative_error"]) < 40


def test_a_frozen_encoder_does_not_move_not_even_its_statistics(tmp_path):
    learner = task(trained="none")
    before = {name: value.clone() for name, value in learner.encoder.module.state_dict().items()}
    trainer(tmp_path, 2).fit(learner, datamodule=WaveData(labels=True))
    learner.train()
    assert not learner.encoder.training
    assert learner.head.training
    for name, value in learner.encoder.module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_weights_with_the_lowest_validation_error_come_back(tmp_path):
    learner = task()
    errors = []

    class Spoil(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                with torch.no_grad():
                    pl_module.head.layers[-1].bias.add_(50.0)

        def on_train_epoch_end(self, trainer, pl_module):
            errors.append(float(trainer.callback_metrics["validation/error"]))

    trainer(tmp_path, 3, callbacks=[Spoil()]).fit(learner, datamodule=WaveData(labels=True))
    best = min(errors)
    assert errors[2] > 5 * best
    held = waves(16, 3)
    learner.eval()
    error = (learner(held.fields) - held.parameters["viscosity"].log()).square().mean().sqrt()
    assert float(error.detach()) == pytest.approx(best, rel=1e-4)


def test_moved_labels_are_learned_as_moved_and_moved_back_in_prediction(tmp_path):
    class Known(torch.nn.Module):
        feature_dim = 1

        def forward(self, fields):
            power = (fields.double() - 1).square().mean(dim=(1, 3))
            return (-torch.log(power[:, -1] / power[:, 0]) / 4).log().float()[:, None]

    learner = ParameterRegression(
        Encoder(Known(), [0.0], [1.0]),
        trained="none",
        augmentation=ShiftAndSlow(slow=True),
        views=3,
        learning_rate=0.05,
    )
    trainer(tmp_path, 60).fit(learner, datamodule=WaveData(labels=True))
    learner.eval()
    test = waves(16, seed=9)
    # The feature is the exact log-viscosity of a view: ignoring the shift would leave an error near 0.25.
    assert (learner.estimate(test).log() - test.parameters["viscosity"].log()).abs().mean() < 0.05


def test_resume_keeps_the_standardisation_and_the_best_weights(tmp_path):
    whole = task()
    trainer(tmp_path, 3).fit(whole, datamodule=WaveData(labels=True))
    part = task()
    keep = ModelCheckpoint(tmp_path, filename="first", save_top_k=-1, every_n_epochs=1, enable_version_counter=False)

    class Killed(Exception):
        pass

    class Kill(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise Killed

    with pytest.raises(Killed):
        trainer(tmp_path, 3, callbacks=[keep, Kill()], enable_checkpointing=True).fit(
            part, datamodule=WaveData(labels=True)
        )
    resumed = task()
    trainer(tmp_path, 3).fit(
        resumed, datamodule=WaveData(labels=True), ckpt_path=tmp_path / "first.ckpt", weights_only=True
    )
    assert resumed.best["epoch"] == whole.best["epoch"]
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_errors(tmp_path):
    with pytest.raises(SchemaError, match="views 0"):
        task(views=0)
    with pytest.raises(DataError, match="no parameter 'viscosty'; it has viscosity. Did you mean 'viscosity'"):
        trainer(tmp_path, 1).fit(task(target="viscosty"), datamodule=WaveData(labels=True))
    negative = waves(4)
    with pytest.raises(DataError, match="positive and finite"):
        log_parameter(negative.replace(parameters={"viscosity": -negative.parameters["viscosity"]}), "viscosity")


def test_normalisation_comes_from_the_data_module_unless_the_encoder_brings_its_own(tmp_path):
    data = WaveData(labels=True)
    learner = task()
    trainer(tmp_path, 1).fit(learner, datamodule=data)
    assert float(learner.encoder.normalisation.mean) == pytest.approx(data.statistics["u"].mean, rel=1e-6)
    own = ParameterRegression(Encoder(ConvEncoder(width=4, blocks=(1,)), [5.0], [2.0]))
    trainer(tmp_path, 1).fit(own, datamodule=data)
    assert own.encoder.statistics == {"mean": [5.0], "std": [2.0]}


def with_amplitude(runs):
    """Runs with a second label that may be negative, of which the field's mean is a function."""
    shift = torch.linspace(-1, 1, len(runs), dtype=torch.float64)
    fields = runs.fields + shift.reshape(-1, 1, 1, 1).float()
    return runs.replace(fields=fields, parameters={**runs.parameters, "amplitude": shift})


def test_several_targets_each_on_its_scale(tmp_path):
    learner = task(target=["viscosity", "amplitude"], scale=["log", "linear"])
    train, held = with_amplitude(waves(64)), with_amplitude(waves(16, seed=9))
    train, validation = (
        DataLoader([runs[slice(i, None, 4)] for i in range(4)], batch_size=None) for runs in (train, held)
    )
    trainer(tmp_path, 25).fit(learner, train, validation)
    learner.eval()
    found = learner.estimate(held)
    assert found.shape == (16, 2)
    wanted = torch.stack([held.parameters["viscosity"].log(), held.parameters["amplitude"]], dim=1)
    error = torch.stack([found[:, 0].log(), found[:, 1]], dim=1) - wanted
    assert (error.std(dim=0) < 0.5 * wanted.std(dim=0)).all()
    assert learner(held.fields).shape == (16, 2)


@pytest.mark.parametrize("part", ["last", "norms"])
def test_what_is_not_trained_does_not_move(part, tmp_path):
    learner = task(trained=part)
    before = {n: v.clone() for n, v in learner.encoder.state_dict().items()}
    trained = {n for n, p in learner.encoder.named_parameters() if p.requires_grad}
    trainer(tmp_path, 2).fit(learner, datamodule=WaveData(labels=True))
    after = learner.encoder.state_dict()
    moved = {n for n, v in after.items() if not torch.equal(v, before[n])}
    weights = {n for n, _ in learner.encoder.named_parameters()}
    assert moved & weights <= trained
    assert moved & trained
    if part == "last":
        assert not any(n.startswith("module.stem") for n in moved)


def test_attentive_pooling_learns(tmp_path):
    learner = task(readout="tokens")
    run = trainer(tmp_path, 15)
    run.fit(learner, datamodule=WaveData(labels=True))
    assert float(run.callback_metrics["validation/relative_error"]) < 40
    with pytest.raises(SchemaError, match="needs an encoder with tokens and no hidden widths"):
        task(readout="tokens", hidden=[4])


def test_targets_and_scales_are_checked():
    with pytest.raises(SchemaError, match=r"expected one or more targets, and one scale for all or one for each"):
        task(target=["viscosity"], scale=["log", "linear"])


def test_a_moved_label_is_moved_back_on_the_linear_scale_too():
    learner = task(scale="linear", augmentation=ShiftAndSlow(slow=True), views=2)
    with torch.no_grad():
        learner.target_std.fill_(1.0)
        learner.target_mean.fill_(2.0)
        learner.head.layers[-1].weight.zero_()
        learner.head.layers[-1].bias.zero_()
    learner.eval()
    runs = waves(4)
    # The network says 2 for every view; the view's parameter is the run's times exp(shift).
    estimates = learner.estimate(runs, seed=3)
    assert not torch.allclose(estimates, torch.full((4,), 2.0, dtype=torch.float64))
    generator = torch.Generator().manual_seed(view_seed(learner.seed, 3))
    shifts = [learner.augmentation(runs.without_parameters(), generator)[1].log_parameter_shift for _ in range(2)]
    wanted = sum(2.0 * torch.exp(-s["viscosity"].double()) for s in shifts) / 2
    torch.testing.assert_close(estimates, wanted)


def test_predictions_read_constants_and_no_label():
    class Reading(torch.nn.Module):
        seen: list[set[str]] = []

        def forward(self, batch, generator=None):
            self.seen.append(set(batch.parameters))
            return batch, None

    runs = waves(4)
    runs = runs.replace(parameters=runs.parameters | {"steepening": torch.ones(4)})
    # Whoever calls the target a constant does not get to read it.
    learner = task(augmentation=Reading(), constants=["steepening", "viscosity"])
    learner.target_std.fill_(1.0)
    learner.eval().estimate(runs)
    assert Reading.seen == [{"steepening"}]
