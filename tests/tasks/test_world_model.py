"""The task of a world model: its loss from a slow formula, what it refuses, resume, and equality of two processes."""

import os
import socket

import lightning
import pytest
import torch
from objectives.embeddings import on_processes

from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.models import (
    ActionPredictor,
    CausalActionPredictor,
    Encoder,
    FieldState,
    GridActionPredictor,
    InverseDynamics,
    LatentVariable,
    SpaceTimeTransformer,
    StateEncoder,
)
from pdessl.objectives import TemporalJEPA
from pdessl.tasks import WorldModel

from .toy import FRAMES, POINTS, Held, WaveData, trainer, waves

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*rows")


def acted(count, seed):
    """Waves that a known amplitude lifts, at all nodes alike."""
    runs = waves(count, seed)
    actions = torch.randn(count, 2, FRAMES - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    lifted = torch.cat([torch.zeros(count, 1), actions[:, 0].cumsum(dim=1).float()], dim=1)
    return runs.replace(fields=runs.fields + lifted[:, None, :, None], actions=actions)


class ActedData(WaveData):
    def __init__(self):
        super().__init__()
        self.training, self.labelled, self.held_out = acted(32, 1), acted(16, 2), acted(16, 3)


def world(regulariser="vc", **settings):
    torch.manual_seed(0)
    parts = {"inverse": InverseDynamics(6, 2), "ends": InverseDynamics(6, 2, steps=3)}
    objective = TemporalJEPA(regulariser=regulariser, regularise=("target",))
    given = parts | {"horizon": 3, "windows": 2, "similarity": 0.5, "learning_rate": 3e-3} | settings
    return WorldModel(StateEncoder(POINTS, 6, hidden=(16,)), ActionPredictor(6, 2, (16,)), objective, **given)


def tokens(**settings):
    torch.manual_seed(0)
    encoder = SpaceTimeTransformer(1, (1, 4), width=8, depth=1, heads=2)
    objective = TemporalJEPA(regularise=("target",))
    predictor = GridActionPredictor(8, 2, POINTS // 4, width=8)
    given = {"horizon": 2, "windows": 1, "on_tokens": True, "inverse": InverseDynamics(8 * POINTS // 4, 2)} | settings
    return WorldModel(encoder, predictor, objective, **given)


def sequence(**settings):
    task = world(teacher_forced=True, **settings)
    task.predictor = CausalActionPredictor(6, 2, 16)
    return task


MADE = {
    "vector": world,
    "tokens": tokens,
    "teacher": lambda **s: world(None, teacher={"start": 0.9}, **s),
    "sequence": sequence,
}


def test_the_loss_is_its_formula():
    task, seen = world(bound=2.0, inverse_weight=0.7).double(), {}
    task.log_terms = lambda terms, rows: seen.update(terms.named | {"total": terms.total})
    task._trainer = type("Run", (), {"current_epoch": 0})()
    runs = acted(4, 5)
    runs = runs.window(slice(0, 4)).replace(fields=runs.fields[:, :, :4].double())  # one window fits: nothing is drawn
    total = task.training_step(runs, 0)
    latents = [task.encoder(runs.fields[:, :, t : t + 1]) for t in range(4)]
    now, prediction, inverse, similar = latents[0], 0.0, 0.0, 0.0
    for step in range(3):
        now = task.predictor(now, runs.actions[:, :, step])
        prediction += (now - latents[step + 1]).square().mean() / 3
        found = task.inverse(latents[step], latents[step + 1])[:, 0]
        inverse += (found - runs.actions[:, :, step] / 2).square().mean() / 3
        similar += (latents[step + 1] - latents[step]).square().mean() / 3
    ends = (task.ends(latents[0], latents[3]) - runs.actions.mT / 2).square().mean()
    for name, value in {"prediction": prediction, "inverse": inverse, "ends": ends, "similarity": similar}.items():
        assert torch.allclose(seen[name], value), name
    whole = 2 * prediction + seen["regularity"] + 0.7 * (inverse + ends) + 0.5 * similar
    assert torch.allclose(total, whole) and torch.equal(total, seen["total"])


def test_teacher_forcing_predicts_each_latent_from_the_true_ones_before_it():
    task, seen = sequence(windows=1).double(), []
    task.log_terms = lambda terms, rows: None
    task._trainer = type("Run", (), {"current_epoch": 0})()
    objective = task.objective

    def record(prediction, target, context):
        seen.append((prediction, target))
        return objective(prediction, target, context)

    task.objective = torch.nn.Module()
    task.objective.forward = record
    runs = acted(4, 5)
    runs = runs.window(slice(0, 4)).replace(fields=runs.fields[:, :, :4].double())
    task.training_step(runs, 0)
    latents = torch.stack([task.encoder(runs.fields[:, :, t : t + 1]) for t in range(4)], dim=1)
    prediction, target = seen[0]
    actions = runs.actions.mT
    expected = [task.predictor.roll_out(latents[:, 0], actions), task.predictor.follow(latents[:, :3], actions)]
    torch.testing.assert_close(prediction, torch.cat(expected, dim=1))
    torch.testing.assert_close(target, torch.cat([latents[:, 1:]] * 2, dim=1))


def test_windows_lie_in_the_runs_with_their_own_amplitudes():
    task, runs = world(windows=5), acted(3, 7)
    cut = task.cut(runs, torch.Generator().manual_seed(0))
    assert cut.fields.shape == (15, 1, 4, POINTS) and cut.actions.shape == (15, 2, 3)
    starts = set()
    for row in range(15):
        whole = row // 5
        first = int((runs.time[whole] - cut.time[row, 0]).abs().argmin())
        assert torch.equal(cut.fields[row], runs.fields[whole, :, first : first + 4])
        assert torch.equal(cut.actions[row], runs.actions[whole, :, first : first + 3])
        starts.add(first)
    assert len(starts) > 3


@pytest.mark.parametrize("name", MADE)
def test_training_explains_more_and_nothing_is_left_untrained(name, tmp_path):
    task, seen = MADE[name](), []
    before = {key: p.detach().clone() for key, p in task.named_parameters()}

    class Record(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics["train/loss"]))

    run = trainer(tmp_path, 6, callbacks=[Record()])
    run.fit(task, datamodule=ActedData())
    assert seen[-1] < seen[0]
    assert {"train/prediction", "train/inverse", "monitor/rank_me"} <= set(run.callback_metrics)
    moved = {k for k, p in task.named_parameters() if not torch.equal(p, before[k].to(p))}
    assert {k for k, p in task.named_parameters() if p.requires_grad} - moved <= {"encoder.module.head.weight"}


@pytest.mark.parametrize("name", MADE)
def test_a_resumed_run_ends_with_the_same_weights(name, tmp_path):
    whole = MADE[name]()
    trainer(tmp_path, 2).fit(whole, datamodule=ActedData())

    class Keep(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "first.ckpt")

    trainer(tmp_path, 2, callbacks=[Keep()]).fit(MADE[name](), datamodule=ActedData())
    resumed = MADE[name]()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1.0)
    trainer(tmp_path, 2).fit(resumed, datamodule=ActedData(), ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    for (key, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), key


class Share(lightning.LightningDataModule):
    """The rows of each step, divided unequally among the processes of the run."""

    def _loader(self, parts):
        rows = (slice(0, 5), slice(5, 8))[self.trainer.global_rank] if self.trainer.world_size > 1 else slice(None)
        return torch.utils.data.DataLoader(Held([p[rows] for p in parts]), batch_size=None, shuffle=False)

    def train_dataloader(self):
        runs = acted(16, 1)
        return self._loader([runs[:8], runs[8:]])

    def val_dataloader(self):
        return [self._loader([acted(8, 2)]), self._loader([acted(8, 3)])]


def fit(folder, **settings):
    task = world().double()
    trainer(folder, 1, use_distributed_sampler=False, **settings).fit(task, datamodule=Share())
    return [p.detach().flatten().tolist() for p in task.parameters()]


def both_ranks(rank, port, folder):
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return fit(folder, devices=2, strategy="ddp")  # gloo on CPUs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what Lightning says about loaders and samplers
def test_two_processes_end_with_the_weights_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alone = fit(tmp_path)
    assert alone != [p.detach().double().flatten().tolist() for p in world().double().parameters()]
    for found in on_processes(both_ranks, port, str(tmp_path)):
        for mine, expected in zip(found, alone, strict=True):
            assert mine == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_what_cannot_be_trained_is_refused_with_advice():
    with pytest.raises(SchemaError, match="regulariser: vc"):
        world(None)
    with pytest.raises(SchemaError, match="horizon 0"):
        world(horizon=0)
    generator = torch.Generator()
    with pytest.raises(DataError, match="pdessl generate ENVIRONMENT"):
        world().cut(waves(2), generator)
    with pytest.raises(ShapeError, match="lower horizon"):
        world(horizon=20).cut(acted(2, 1), generator)
    assert isinstance(world().encoder, Encoder)


def unseen(size=2, **settings):
    """The world model on runs whose amplitudes nobody recorded."""
    torch.manual_seed(0)
    latent = LatentVariable(6, size, hidden=(16,)) if size else None
    objective = TemporalJEPA(regularise=("target",))
    given = {"horizon": 3, "windows": 2, "learning_rate": 3e-3, "latent_variable": latent} | settings
    predictor = ActionPredictor(6, 0, (16,), undetermined=size)
    return WorldModel(StateEncoder(POINTS, 6, hidden=(16,)), predictor, objective, **given)


def losses(task, runs):
    seen = {}
    task.log_terms = lambda terms, rows: seen.update(terms.named | {"total": terms.total.detach()})
    task._trainer = type("Run", (), {"current_epoch": 0})()
    seen["total"] = task.training_step(runs, 0)
    return seen


def test_the_loss_with_a_latent_variable_is_its_formula():
    task, runs = unseen(price=0.3, windows=1).double(), acted(4, 5)
    runs = runs.window(slice(0, 4)).replace(fields=runs.fields[:, :, :4].double(), actions=None)
    noise = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    task.latent_variable.drawn = lambda mean, spread, _: mean + (spread / 2).exp() * noise
    seen = losses(task, runs)
    latents = [task.encoder(runs.fields[:, :, t : t + 1]) for t in range(4)]
    now, prediction, nats = latents[0], 0.0, 0.0
    for step in range(3):
        missed = latents[step + 1] - task.predictor(latents[step], torch.zeros(4, 2).double())
        mean, spread = task.latent_variable(latents[step], missed)
        now = task.predictor(now, mean + (spread / 2).exp() * noise[:, step])
        prediction += (now - latents[step + 1]).square().mean() / 3
        nats += task.latent_variable.price(mean, spread) / 3
    torch.testing.assert_close(seen["prediction"], prediction)
    torch.testing.assert_close(seen["nats"], nats)
    torch.testing.assert_close(seen["total"], 2 * prediction + seen["regularity"] + 0.3 * nats)


def test_a_latent_variable_that_is_off_is_the_deterministic_task():
    """ξ = 0 in training: the same loss and the same gradients as a task without one, of the same weights."""
    runs = acted(8, 5).replace(actions=None)
    task, plain = unseen(price=0.0).double(), unseen(0).double()
    task.latent_variable.drawn = lambda mean, spread, noise: torch.zeros_like(mean)
    weights = task.state_dict()
    plain.load_state_dict(
        {n: weights[n][:, :6] if weights[n].shape != v.shape else weights[n] for n, v in plain.state_dict().items()}
    )
    runs = runs.window(slice(0, 4)).replace(fields=runs.fields[:, :, :4].double())  # one window fits: nothing is drawn
    found, expected = losses(task, runs), losses(plain, runs)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    found["total"].backward()
    expected["total"].backward()
    torch.testing.assert_close(task.encoder.module.linear.weight.grad, plain.encoder.module.linear.weight.grad)


def test_a_latent_variable_finds_what_nobody_recorded_and_nothing_that_is_foreseen():
    """Waves that decay as they do, lifted by an amplitude nobody sees: ξ is it; without it ξ stays at the prior."""
    for lifted in (True, False):
        runs = acted(64, 1) if lifted else waves(64, 1)
        runs = runs.replace(actions=None)
        torch.manual_seed(0)
        encoder = Encoder(FieldState(POINTS), *([0.0], [3.0]))
        predictor = ActionPredictor(POINTS, 0, (16,), undetermined=2)
        objective = TemporalJEPA(prediction=1.0, regulariser=None)
        latent = LatentVariable(POINTS, 2, hidden=(16,))
        task = WorldModel(encoder, predictor, objective, horizon=1, windows=8, latent_variable=latent, price=0.01)
        task.log_terms = lambda terms, rows: None
        task._trainer = type("Run", (), {"current_epoch": 0})()
        optimiser = torch.optim.Adam(task.parameters(), lr=1e-2)
        for step in range(120):
            optimiser.zero_grad()
            task.training_step(runs, step).backward()
            optimiser.step()
        with torch.no_grad():
            z = encoder(runs.fields.movedim(2, 1).flatten(0, 1)[:, :, None]).unflatten(0, (64, FRAMES))
            mean, spread = task.inferred(z[:, :-1], z[:, 1:], z.new_zeros(64, FRAMES - 1, 0))
            nats = float(latent.price(mean.flatten(0, 1), spread.flatten(0, 1)))
        if not lifted:
            assert nats < 0.3
            continue
        amplitude = acted(64, 1).actions[:, 0].flatten()
        fit = torch.linalg.lstsq(mean.flatten(0, 1).double(), amplitude[:, None])
        left = (mean.flatten(0, 1).double() @ fit.solution)[:, 0] - amplitude
        assert nats > 0.8 and float(left.square().mean() / amplitude.square().mean()) < 0.15


def test_latent_variable_and_predictor_must_agree_and_an_encoder_that_learns_needs_a_guard():
    with pytest.raises(SchemaError, match="give both latent_variable and predictor.undetermined, or neither"):
        unseen(2, latent_variable=LatentVariable(6, 3))
    with pytest.raises(SchemaError, match="or neither"):
        unseen(2, latent_variable=None)
    with pytest.raises(SchemaError, match="price -1"):
        unseen(2, price=-1.0)
    free = TemporalJEPA(regulariser=None)
    with pytest.raises(SchemaError, match="constant encoder"):
        WorldModel(StateEncoder(POINTS, 6), ActionPredictor(6, 0), free)
    WorldModel(FieldState(POINTS), ActionPredictor(POINTS, 0), free)  # nothing of it can collapse
