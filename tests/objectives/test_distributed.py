"""Two processes against one: sums, gathers, and the loss and gradient of every objective, in one pair of processes."""

import math

import pytest
import torch
from torch import nn

from pdessl.errors import DataError
from pdessl.objectives import ExponentialMovingAverage, VICReg
from pdessl.objectives.distributed import gather_rows, row_count, row_share, sum_over_processes

from .cases import CASES, ROWS, WIDTH, build, call, extras
from .embeddings import draw, on_processes

UNEQUAL = (13, 7)
SPLITS = [(10, 10), UNEQUAL]
TRAINED = ["byol sigreg", "temporal jepa chunks", "lejepa", "vicregl"]
INPUTS = 8  # wider than the embedding: otherwise its covariance is singular, and cannot be whitened


class Model(nn.Module):
    """One linear layer before an objective: what DistributedDataParallel wraps in a training."""

    def __init__(self, name):
        super().__init__()
        self.name, self.objective = name, build(name)
        self.layer = nn.Linear(INPUTS, WIDTH, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(draw(WIDTH, INPUTS, seed=20, scale=0.5))
            self.layer.bias.copy_(draw(1, WIDTH, seed=23)[0])

    def forward(self, x, x_prime, e):
        return call(self.name, self.objective, self.layer(x), self.layer(x_prime), e)


def batch(rows=slice(None)):
    x, x_prime = draw(ROWS, INPUTS, seed=21), draw(ROWS, INPUTS, seed=22)
    return x[rows], x_prime[rows], {name: value[rows] for name, value in extras().items()}


def terms_and_gradients(model, data):
    terms = model(*data)
    terms.loss.backward()
    gradients = {name.removeprefix("module."): p.grad.flatten().tolist() for name, p in model.named_parameters()}
    return {name: float(value.detach()) for name, value in terms._asdict().items()}, gradients


def train(name, data, wrap):
    """Three steps with a moving average of the layer as teacher (where there is one); weights of both afterwards."""
    model = Model(name)
    teacher = ExponentialMovingAverage(model.layer, 0.5, 1.0, 3)
    wrapped = wrap(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    x, x_prime, e = data
    for _ in range(3):
        e = {**e, "target": teacher(x), "target_prime": teacher(x_prime)}
        optimiser.zero_grad()
        wrapped(x, x_prime, e).loss.backward()
        optimiser.step()
        teacher.update(model.layer)
    weights = [*model.parameters(), *teacher.parameters()]
    return [w.detach().flatten().tolist() for w in weights], int(teacher.step)


def _gather_and_sum(rank):
    rows = (torch.arange(2.0 + rank) + 10 * rank)[:, None].requires_grad_()
    gathered = gather_rows(rows)
    weights = torch.arange(1.0, 1 + gathered.shape[0])[:, None]
    # A nonlinear loss of all rows and of their sum, computed by both processes.
    ((weights * gathered**2).sum() + sum_over_processes(rows.sum()) ** 2).backward()
    return gathered.flatten().tolist(), row_count(rows), row_share(rows)[0], rows.grad.flatten().tolist()


def _one_bad_row(rank):
    z = torch.zeros(4, 3)
    if rank == 1:
        z[2, 0] = math.nan
    try:
        VICReg().terms(z, z)
    except DataError as error:
        return str(error)


def _everything(rank):
    from torch.nn.parallel import DistributedDataParallel

    found = {"sums": _gather_and_sum(rank), "bad row": _one_bad_row(rank)}
    for name in CASES:
        for sizes in SPLITS:
            start = sum(sizes[:rank])
            # Kept in a variable: a discarded wrapper takes its gradient hooks along.
            model = DistributedDataParallel(Model(name))
            found[name, sizes] = terms_and_gradients(model, batch(slice(start, start + sizes[rank])))
    start = sum(UNEQUAL[:rank])
    for name in TRAINED:
        found["trained", name] = train(name, batch(slice(start, start + UNEQUAL[rank])), DistributedDataParallel)
    return found


@pytest.fixture(scope="module")
def processes():
    return on_processes(_everything)


def test_gather_and_sum_are_exact_for_unequal_batches(processes):
    results = [found["sums"] for found in processes]
    rows = torch.tensor([0.0, 1.0, 10.0, 11.0, 12.0], requires_grad=True)
    ((torch.arange(1.0, 6.0) * rows**2).sum() + rows.sum() ** 2).backward()
    for gathered, count, _, _ in results:
        assert gathered == rows.tolist()
        assert count == 5
    assert [result[2] for result in results] == [0, 2]
    # Averaged over the two processes (DDP) this is the full-batch gradient, so each holds twice its own rows' share.
    assert results[0][3] + results[1][3] == (2 * rows.grad).tolist()


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_terms_and_gradients_of_one(processes, name, sizes):
    terms, gradients = terms_and_gradients(Model(name), batch())
    assert max(abs(g) for g in gradients["layer.weight"]) > 1e-4
    for found_terms, found_gradients in (found[name, sizes] for found in processes):
        assert found_terms == pytest.approx(terms, rel=1e-10, abs=1e-12)
        assert found_gradients.keys() == gradients.keys()
        for parameter, gradient in gradients.items():
            scale = max(abs(g) for g in gradient)
            assert found_gradients[parameter] == pytest.approx(gradient, rel=1e-9, abs=1e-10 * max(scale, 1)), parameter


@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_have_the_weights_of_one_after_three_steps(processes, name):
    """With random numbers drawn anew each step, and a teacher: all of them must stay equal."""
    weights, steps = train(name, batch(), lambda model: model)
    for found, found_steps in (result["trained", name] for result in processes):
        assert found_steps == steps == 3
        for mine, expected in zip(found, weights, strict=True):
            assert mine == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_a_bad_row_on_one_process_raises_on_all(processes):
    first, second = (found["bad row"] for found in processes)
    assert "on another process" in first
    assert "row 2" in second


def test_one_process_passes_tensors_through():
    rows = torch.ones(3, 2)
    assert gather_rows(rows) is rows
    assert sum_over_processes(rows) is rows
    assert row_count(rows) == 3
    assert row_share(rows)[0] == 0
