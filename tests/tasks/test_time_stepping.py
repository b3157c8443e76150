import pytest
import torch

from pdessl.errors import SchemaError, ShapeError
from pdessl.models import ConvEncoder, TimeStepper
from pdessl.tasks import TimeStepping

from .toy import WaveData, trainer, waves

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:Found .* in eval mode at the start of training"
)


def task(encoder=False, **settings):
    torch.manual_seed(0)
    network = ConvEncoder(width=4, blocks=(1, 1)) if encoder else None
    stepper = TimeStepper(past=2, width=8, blocks=3, condition=network.feature_dim if encoder else 0)
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
    learner = task(normalisation={"mean": [1.0], "std": [2.0]}).eval()
    fields = waves(3).fields
    rollout = learner.rollout(fields, 5)
    torch.testing.assert_close(rollout, learner.persistence(fields, 5))
    torch.testing.assert_close(rollout[:, :, 2], fields[:, :, 3])


def test_predictions_read_the_context_only():
    learner = task(encoder=True).eval()
    with torch.no_grad():
        for parameter in learner.stepper.parameters():
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
        TimeStepping(TimeStepper(past=2), ConvEncoder(width=4, blocks=(1, 1)))
    with pytest.raises(SchemaError, match=r"context 1.*expected context >= 2"):
        TimeStepping(TimeStepper(past=2), context=1)
    with pytest.raises(ShapeError, match="3 frames; expected at least 4"):
        task().rollout(waves(2).fields[:, :, :3], 1)
