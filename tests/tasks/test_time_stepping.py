import pytest
import torch

from pdessl.errors import SchemaError, ShapeError
from pdessl.models import ConvEncoder, DilatedNetwork, Surrogate, UNet
from pdessl.tasks import TimeStepping

from .toy import WaveData, trainer, waves

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:Found .* in eval mode at the start of training"
)


def task(encoder=False, **settings):
    torch.manual_seed(0)
    network = ConvEncoder(width=4, blocks=(1, 1)) if encoder else None
    stepper = DilatedNetwork(past=2, width=8, blocks=3, condition=network.feature_dim if encoder else 0)
    return TimeStepping(stepper, network, context=4, learning_rate=5e-3, **settings)


@pytest.mark.parametrize("encoder", [False, True])
def test_beats_persistence_on_decaying_waves(tmp_path, encoder):
    learner = task(encoder, unroll=2)
    run = trainer(tmp_path, 25)
    run.fit(learner, datamodule=WaveData())
    metrics = run.callback_metrics
    assert metrics["validation/rollout_nmse"] < 0.5 * metrics["validation/persistence_nmse"]
    assert metrics["validation/one_step_nmse"] < metrics["validation/rollout_nmse"]


def test_an_untrained_stepper_is_persistence_in_the_units_of_the_fields():
    fields = waves(3).fields
    learner = task().eval()
    learner.surrogate.set_statistics(1.0 + 2.0 * fields)
    rollout = learner.rollout(fields, 5)
    torch.testing.assert_close(rollout, learner.persistence(fields, 5))
    torch.testing.assert_close(rollout[:, :, 2], fields[:, :, 3])


def test_predictions_read_the_context_only():
    learner = task(encoder=True).eval()
    with torch.no_grad():
        for parameter in learner.surrogate.parameters():
            parameter.add_(0.05)
    fields = waves(3).fields
    later, earlier = fields.clone(), fields.clone()
    later[:, :, 4:] = 9.0
    earlier[:, :, 0] = 9.0
    assert torch.equal(learner.rollout(fields, 3), learner.rollout(later, 3))
    # Frame 0 reaches the prediction through the condition alone: the stepper is given frames 2 and 3.
    assert not torch.equal(learner.rollout(fields, 3), learner.rollout(earlier, 3))


def test_the_encoder_stays_frozen(tmp_path):
    learner = task(encoder=True)
    before = [value.clone() for value in learner.encoder.state_dict().values()]
    trainer(tmp_path, 1).fit(learner, datamodule=WaveData())
    learner.train()
    assert not learner.encoder.training
    assert all(torch.equal(a, b) for a, b in zip(before, learner.encoder.state_dict().values(), strict=True))


def test_errors():
    with pytest.raises(SchemaError, match="condition 0; expected 24, the encoder's feature_dim"):
        TimeStepping(DilatedNetwork(past=2), ConvEncoder(width=4, blocks=(1, 1)))
    with pytest.raises(SchemaError, match=r"context 1.*expected context >= 2"):
        TimeStepping(DilatedNetwork(past=2), context=1)
    with pytest.raises(ShapeError, match="3 frames; expected at least 4"):
        task().rollout(waves(2).fields[:, :, :3], 1)


def test_a_rollout_equals_repeated_steps_and_bundles_are_as_long():
    torch.manual_seed(0)
    learner = TimeStepping(UNet(past=2, bundle=3, width=4), context=4).eval()
    with torch.no_grad():
        learner.surrogate.network.lower.convolution.weight.add_(0.05)
    fields = waves(3).fields
    found = learner.rollout(fields, 6)
    first = learner.surrogate(fields[:, :, 2:4])
    torch.testing.assert_close(found[:, :, :3], first)
    torch.testing.assert_close(found[:, :, 3:], learner.surrogate(first[:, :, 1:]))
    assert learner.one_step(fields).shape == fields[:, :, 4:].shape


@pytest.mark.parametrize("settings", [
    {"unroll": 3, "pushforward": True}, {"unroll": 3, "curriculum": 0.5, "noise": 0.05}, {"train_encoder": True},
])  # fmt: skip
def test_ways_of_training_lower_the_error(tmp_path, settings):
    learner = task(encoder="train_encoder" in settings, **settings)
    seen = []
    run = trainer(tmp_path, 20)
    learner.steps_now = lambda ask=learner.steps_now: seen.append(ask()) or seen[-1]
    run.fit(learner, datamodule=WaveData())
    metrics = run.callback_metrics
    assert metrics["validation/rollout_nmse"] < 0.7 * metrics["validation/persistence_nmse"]
    assert seen == sorted(seen)
    assert seen[0] == (1 if "curriculum" in settings else settings.get("unroll", 1))
    assert seen[-1] == settings.get("unroll", 1)


def test_gradients_of_the_pushforward_come_from_the_last_step_only():
    class Times(torch.nn.Module):
        in_channels, past, bundle, condition = 1, 1, 1, 0

        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(1.1))

        def forward(self, frames, condition):
            return self.factor * frames

    fields = 1.1 ** torch.arange(4).float().view(1, 1, 4, 1).expand(2, 1, 4, 8) * torch.linspace(0.5, 1, 8)
    found = {}
    for push in (False, True):
        learner = TimeStepping(Surrogate(Times(), predicts="frame"), context=1, unroll=3, pushforward=push)
        learner._trainer = type("Stub", (), {"estimated_stepping_batches": 1, "global_step": 0, "current_epoch": 0})()
        learner.log = lambda *a, **k: None
        with torch.no_grad():
            learner.surrogate.network.factor.fill_(1.2)
        batch = waves(2).replace(fields=fields, time=waves(2).time[:, :4], space=(waves(2).space[0][:, :8],))
        learner._trainer.global_rank = 0
        loss = learner.training_step(batch, 0)
        (found[push],) = torch.autograd.grad(loss, learner.surrogate.network.factor)
    # Of one step from 1.44 a to 1.331 a: d/df (1.44 f - 1.331)² a² at 1.2.
    a = fields[0, 0, 0].square().mean()
    torch.testing.assert_close(found[True], 2 * 1.44 * (1.728 - 1.331) * a)
    assert found[False] > found[True] / 3


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path):
    settings = {"unroll": 3, "curriculum": 0.6, "noise": 0.1}

    def run(epochs, folder, checkpoint=None):
        learner = task(**settings)
        fitted = trainer(folder, epochs)
        # The schedule's length is that of the whole training in both parts.
        learner.configure_optimizers = lambda: torch.optim.AdamW(learner.surrogate.parameters(), 1e-3)
        learner.steps_now = lambda: 1 + min(2, learner.trainer.global_step // 4)
        fitted.fit(learner, datamodule=WaveData(), ckpt_path=checkpoint)
        fitted.save_checkpoint(folder / "here.ckpt")
        return learner

    whole = run(4, tmp_path / "whole")
    run(2, tmp_path / "part")
    again = run(4, tmp_path / "rest", tmp_path / "part" / "here.ckpt")
    for name, value in whole.surrogate.state_dict().items():
        assert torch.equal(value, again.surrogate.state_dict()[name]), name
