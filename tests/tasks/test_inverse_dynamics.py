"""Inverse dynamics: with them a latent keeps the unstable mode that the actuator moves, without them it does not."""

import pytest
import torch

from pdessl.control import Linearisation, jacobians, lqr
from pdessl.errors import DataError
from pdessl.models import ActionPredictor, InverseDynamics, StateEncoder
from pdessl.objectives import TemporalJEPA
from pdessl.tasks import WorldModel
from pdessl.trajectory import Trajectories

GROWTH, PUSH, DECAY, NOISE = 1.06, 0.5, 0.93, 0.3
FRAMES = 6


def step(state, action, noise):
    """An unstable mode that an actuator moves and noise disturbs, beside three that decay by themselves."""
    return torch.cat([GROWTH * state[:, :1] + PUSH * action + noise, DECAY * state[:, 1:]], dim=1)


def recorded(count, generator):
    state = torch.randn(count, 4, generator=generator)
    seen, done = [state], []
    for _ in range(FRAMES - 1):
        done.append(-0.4 * state[:, :1] + 0.5 * torch.randn(count, 1, generator=generator))
        state = step(state, done[-1], NOISE * torch.randn(count, 1, generator=generator))
        seen.append(state)
    fields = torch.stack(seen, dim=1)[:, None]  # four nodes, a mode each
    time = torch.arange(FRAMES, dtype=torch.float64).expand(count, -1)
    nodes = torch.arange(4, dtype=torch.float64).expand(count, -1)
    lengths = torch.full((count, 1), 4.0, dtype=torch.float64)
    return Trajectories(fields, time, (nodes,), lengths, actions=torch.stack(done, dim=2).double())


def trained(inverse, steps=200):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    objective = TemporalJEPA(prediction=25.0, regulariser="vc", regularise=("target",))
    task = WorldModel(
        StateEncoder(4, 2, hidden=(8,)), ActionPredictor(2, 1, (8,)), objective,
        InverseDynamics(2, 1, hidden=(16,)) if inverse else None, horizon=3, windows=1, inverse_weight=300.0,
    )  # fmt: skip
    task.log_terms = lambda terms, rows: None
    task._trainer = type("Run", (), {"current_epoch": 0})()
    runs = recorded(1024, generator)
    adam = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], lr=2e-2)
    for number in range(steps):
        rows = torch.randint(len(runs), (96,), generator=generator)
        adam.zero_grad()
        task.training_step(runs[rows], number).backward()
        adam.step()
    return task


def held(task):
    """The share of starts that feedback of the latent brings to rest."""
    with torch.no_grad():
        rest = task.encoder(torch.zeros(1, 1, 1, 4))[0]
    transition, entry, _ = jacobians(task.predictor, rest, 1)
    linear = Linearisation(transition.double(), entry.double(), 1.0, 0.1, 0.0, 1.0, "latent", torch.eye(2).double())
    try:
        feedback = lqr(linear, distance=1e-2)
    except DataError:
        return 0.0
    state = torch.randn(20, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for _ in range(60):
            latent = (task.encoder(state[:, None, None]) - rest).double()
            state = step(state, feedback(latent).float(), 0.0)
    return float((state.norm(dim=1) < 0.1).double().mean())


@pytest.mark.parametrize("inverse", [True, False])
def test_feedback_of_the_latent_holds_an_unstable_mode_only_with_inverse_dynamics(inverse):
    share = held(trained(inverse))
    assert share > 0.9 if inverse else share < 0.5
