"""The learning rate of every step, and what accumulated micro-batches amount to."""

import math

import lightning
import pytest
import torch

from pdessl.models import ConvEncoder
from pdessl.objectives import VICReg
from pdessl.tasks import Pretraining
from pdessl.tasks.optimisation import cosine_with_warmup, optimiser_and_schedule, parameter_groups

from .toy import WaveData, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:VICReg.*rows")


def test_a_line_up_and_a_cosine_down():
    factors = [cosine_with_warmup(step, 100, 0.1) for step in range(101)]
    assert factors[:11] == pytest.approx([*((k + 1) / 11 for k in range(10)), 1.0])  # never zero
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in zip(factors[10:], factors[11:], strict=False))
    expected = [(1 + math.cos(math.pi * (step - 10) / 90)) / 2 for step in range(10, 101)]
    assert factors[10:] == pytest.approx(expected)
    assert [cosine_with_warmup(step, 100, 10) for step in range(101)] == factors  # as a number of steps
    assert [cosine_with_warmup(step, math.inf, 4) for step in (0, 3, 4, 10**6)] == [0.2, 0.8, 1.0, 1.0]
    assert cosine_with_warmup(0, 100, 0.0) == 1.0


class Same(torch.nn.Module):
    """The same view each time but for its sign: what a step does depends on the batch only."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, batch, generator=None):
        self.calls += 1
        return batch.replace(fields=batch.fields if self.calls % 2 else -batch.fields), None


def learner():
    torch.manual_seed(0)
    encoder = ConvEncoder(width=4, blocks=(1,), norm="group")
    return Pretraining(encoder, torch.nn.Linear(8, 4), VICReg(), Same(), learning_rate=1e-2, warmup=0.5)


def gradient(task):
    return torch.cat([p.grad.flatten() for p in task.parameters()])


def fit(folder, epochs=1, **settings):
    """Rates of the optimiser steps; the micro-batches; the gradient that the last step was made with."""
    rates, batches = [], []

    class Watch(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batches.append(batch)

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.gradient = gradient(pl_module)

    watch = Watch()
    run = trainer(folder, epochs, callbacks=[watch], limit_val_batches=0, **settings)
    run.fit(learner(), datamodule=WaveData(count=32, batch_size=8))
    return rates, batches, watch.gradient


def test_the_rate_moves_once_per_optimiser_step(tmp_path):
    assert fit(tmp_path, epochs=2)[0] == pytest.approx([1e-2 * cosine_with_warmup(k, 8, 0.5) for k in range(8)])
    accumulated = fit(tmp_path, epochs=2, accumulate_grad_batches=2)[0]
    assert accumulated == pytest.approx([1e-2 * cosine_with_warmup(k, 4, 0.5) for k in range(4)])


def test_an_accumulated_gradient_is_the_mean_over_micro_batches_and_is_clipped_as_one(tmp_path):
    _, batches, found = fit(tmp_path, accumulate_grad_batches=4)
    by_hand = learner()
    statistics = WaveData(count=32).statistics["u"]
    by_hand.encoder.set_statistics([statistics.mean], [statistics.std])
    for batch in batches:  # each with its own statistics: four times eight rows are not a batch of 32
        views = (by_hand.projector(by_hand.encoder(sign * batch.fields)) for sign in (1, -1))
        (VICReg().terms(*views).loss / 4).backward()
    assert len(batches) == 4
    torch.testing.assert_close(found, gradient(by_hand), rtol=1e-4, atol=1e-6)
    _, _, clipped = fit(tmp_path, accumulate_grad_batches=4, gradient_clip_val=1e-2)
    torch.testing.assert_close(clipped, found * (1e-2 / found.norm()), rtol=1e-3, atol=1e-7)


def test_weights_move_as_adamw_moves_them():
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2).double()
    same = torch.nn.Linear(3, 2).double()
    same.load_state_dict(network.state_dict())
    made = optimiser_and_schedule(parameter_groups([network], 0.1), 0.05, math.inf, 0.0)
    plain = torch.optim.AdamW(parameter_groups([same], 0.1), lr=0.05, foreach=False, fused=False)
    for seed in range(4):
        x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for module, optimiser in ((network, made["optimizer"]), (same, plain)):
            optimiser.zero_grad()
            module(x).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(network.state_dict(), same.state_dict())


def test_complex_weights_are_moved_too():
    weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    optimiser = optimiser_and_schedule([{"params": [weight]}], 0.1, math.inf, 0.0)["optimizer"]
    weight.abs().square().sum().backward()
    optimiser.step()
    assert bool((weight.abs() < 1).all())
