"""Prediction in latent space: temporal and masked."""

import lightning
import pytest
import torch
from torch import nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.models import ConvEncoder, ConvNeXtEncoder, SpaceTimeTransformer, TokenPredictor, load
from pdessl.objectives import MaskedJEPA, TemporalJEPA
from pdessl.tasks import MaskedPrediction, Probes, SaveEncoder, TemporalPrediction

from .toy import ShiftAndSlow, WaveData, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*rows")


def transformer():
    torch.manual_seed(0)
    return SpaceTimeTransformer(1, (1, 4), width=16, depth=1, heads=2)


def temporal(**settings):
    encoder = transformer()
    predictor = TokenPredictor(16, width=16, depth=1, heads=2)
    return TemporalPrediction(encoder, predictor, TemporalJEPA(), frames=4, **settings)


def masked(regulariser=None, teacher=None, **settings):
    encoder = transformer()
    predictor = TokenPredictor(16, width=16, depth=1, heads=2)
    masks = {"blocks": 2, "scale": (0.2, 0.3), "time_extent": (0.5, 0.5)}
    return MaskedPrediction(
        encoder, predictor, MaskedJEPA(regulariser=regulariser), masks=masks, teacher=teacher, **settings
    )


MADE = {
    "temporal": temporal,
    "masked, teacher": lambda **s: masked(teacher={"start": 0.9}, **s),
    "masked, regularised": lambda **s: masked(regulariser="vc", **s),
}


@pytest.mark.parametrize("name", MADE)
def test_training_explains_more_of_the_target_and_probes_are_logged(name, tmp_path):
    task = MADE[name](learning_rate=3e-3)
    seen = []

    class Record(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics["train/unexplained"]))

    run = trainer(tmp_path, 8, callbacks=[Record(), Probes(views=1 if name == "temporal" else 0)])
    run.fit(task, datamodule=WaveData())
    assert seen[-1] < seen[0]
    assert {"train/prediction", "monitor/rank_me", "probe/viscosity_r2"} <= set(run.callback_metrics)


@pytest.mark.parametrize("name", MADE)
def test_a_resumed_run_ends_with_the_same_weights(name, tmp_path):
    whole = MADE[name]()
    trainer(tmp_path, 2).fit(whole, datamodule=WaveData())

    class Keep(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "first.ckpt")

    trainer(tmp_path, 2, callbacks=[Keep()]).fit(MADE[name](), datamodule=WaveData())
    resumed = MADE[name]()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1.0)
    trainer(tmp_path, 2).fit(resumed, datamodule=WaveData(), ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    for (key, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), key


def test_the_teacher_follows_once_per_optimiser_step_and_takes_no_gradient(tmp_path):
    task = masked(teacher={"start": 0.5, "end": 0.5})
    run = trainer(tmp_path, 1, limit_val_batches=0, accumulate_grad_batches=2)
    run.fit(task, datamodule=WaveData())
    assert run.global_step == 2 and int(task.teacher.step) == 2 and task.teacher.steps == 2
    assert all(p.grad is None for p in task.teacher.parameters())
    assert not any(p is q for p in task.teacher.parameters() for q in task.trained()[0].parameters())
    names = {id(p) for g in task.optimizers().param_groups for p in g["params"]}
    assert not names & {id(p) for p in task.teacher.parameters()}


def test_hidden_fields_do_not_reach_the_context():
    task = masked(teacher={"start": 0.9})
    seen = {}

    class Spy(nn.Module):
        def forward(self, prediction, target, context):
            seen.update(prediction=prediction.detach(), target=target, context=context.detach())
            return MaskedJEPA()(prediction, target)

    task.objective = Spy()
    task.log_terms = lambda *arguments: None
    task._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    batch = WaveData().training[:4]
    drawn = []
    inner = task._drawer((10, 4), batch)
    task._drawers[(10, 4), (False, True)] = lambda *a: drawn.append(inner(*a)) or drawn[-1]
    task.training_step(batch, 0)
    context, prediction = seen["context"], seen["prediction"]
    fields = batch.fields.clone()
    for row in range(4):
        for n in drawn[0].targets[row].flatten().tolist():
            t, j = divmod(n, 4)
            fields[row, :, t, 4 * j : 4 * j + 4] += 5
    task.training_step(batch.replace(fields=fields), 0)
    torch.testing.assert_close(seen["context"], context)
    torch.testing.assert_close(seen["prediction"], prediction)
    assert seen["prediction"].shape == seen["target"].shape and seen["target"].shape[:2] == (4, 2)


def test_masks_are_drawn_anew_for_every_step_and_alike_on_every_rank():
    batch = WaveData().training[:4]

    def masks(epoch, step, rank=0, seed=0):
        task = masked(teacher={"start": 0.9}, seed=seed)
        task._trainer = type("Stub", (), {"current_epoch": epoch, "global_rank": rank})()
        return task._masks((10, 4), batch, step).targets.flatten().tolist()

    drawn = [masks(0, 0), masks(0, 1), masks(1, 0), masks(0, 0, seed=1)]
    assert all(a != b for i, a in enumerate(drawn) for b in drawn[:i])
    assert masks(0, 1, rank=1) == drawn[1]


@pytest.mark.parametrize("encoder", ["convnext", "convolutional"])
def test_temporal_prediction_of_feature_maps_and_of_features(encoder, tmp_path):
    torch.manual_seed(0)
    if encoder == "convnext":
        network = ConvNeXtEncoder(widths=(8,), blocks=(1,), kernel=3)
        predictor = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        task = TemporalPrediction(network, predictor, TemporalJEPA(), frames=5)
    else:
        network = ConvEncoder(width=4, blocks=(1,))
        task = TemporalPrediction(network, nn.Linear(8, 8), TemporalJEPA(), frames=5, on_tokens=False)
    trainer(tmp_path, 1, callbacks=[SaveEncoder(tmp_path / "encoder")]).fit(task, datamodule=WaveData())
    fields = WaveData().training.fields[:3]
    assert torch.equal(load(tmp_path / "encoder")(fields), task.eval()(fields))


def test_both_branches_of_temporal_prediction_receive_gradient(tmp_path):
    task = temporal()
    task.log_terms = lambda *arguments: None
    task._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    task.training_step(WaveData().training[:8], 0).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.encoder.parameters())
    assert all(p.grad is not None for p in task.predictor.parameters())


def test_errors():
    with pytest.raises(SchemaError, match="neither a teacher nor an objective with a regulariser"):
        masked()
    with pytest.raises(
        SchemaError, match="neither a regulariser nor stop_gradient.*Give the objective regulariser: vc"
    ):
        TemporalPrediction(transformer(), nn.Identity(), TemporalJEPA(regulariser=None), frames=4)
    assert TemporalPrediction(
        transformer(), nn.Identity(), TemporalJEPA(regulariser=None, stop_gradient=True), frames=4
    )
    with pytest.raises(SchemaError, match="frames 1"):
        TemporalPrediction(transformer(), nn.Identity(), TemporalJEPA(), frames=1)
    task = TemporalPrediction(transformer(), nn.Identity(), TemporalJEPA(), frames=6)
    task._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    with pytest.raises(ShapeError, match="windows of 12 frames do not fit trajectories of 10"):
        task.training_step(WaveData().training[:4], 0)
    task.augmentation = ShiftAndSlow()
    with pytest.raises(ShapeError, match="views of 12 frames, got 10"):
        task.training_step(WaveData().training[:4], 0)
