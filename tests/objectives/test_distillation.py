import copy
import math

import pytest
import torch
from torch import nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives import BYOL, ExponentialMovingAverage, SimSiam, momentum, per_dimension_std

from .cases import fixed
from .embeddings import draw, pinned


def cosines(p, t):
    """Mean over rows of the cosine, by loops."""
    total = 0.0
    for a, b in zip(p.tolist(), t.tolist(), strict=True):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        total += dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))
    return total / len(p)


def test_byol_and_simsiam_equal_the_loops_and_the_pin():
    z, w, t, u = (draw(9, 5, seed=s) for s in range(4))
    q = fixed(nn.Linear(5, 5))
    with torch.no_grad():
        expected = 4 - 2 * cosines(q(z), u) - 2 * cosines(q(w), t)
        assert float(BYOL(q).terms(z, w, t, u).loss) == pytest.approx(expected, rel=1e-12)
        expected = -cosines(q(z), w) / 2 - cosines(q(w), z) / 2
        assert float(SimSiam(q).terms(z, w).loss) == pytest.approx(expected, rel=1e-12)
    z, w = pinned()
    assert -float(SimSiam(nn.Identity()).terms(z, w).loss) == pytest.approx(0.983290791549624, rel=1e-12)


def test_limits_and_the_relation_of_the_two():
    z, w = draw(9, 5, seed=1), draw(9, 5, seed=2)
    q = fixed(nn.Linear(5, 5)).requires_grad_(False)
    assert float(BYOL(q).terms(z, w, z, w).loss) == pytest.approx(4 + 4 * float(SimSiam(q).terms(z, w).loss), rel=1e-12)
    same = torch.full((4, 5), 0.3)
    identity = nn.Identity()
    assert float(BYOL(identity).terms(same, same, same, same).loss) == pytest.approx(0, abs=1e-6)
    assert float(SimSiam(identity).terms(same, same).loss) == pytest.approx(-1, rel=1e-6)
    assert float(BYOL(identity).terms(z, z, -z, -z).loss) == pytest.approx(8, rel=1e-12)


def test_targets_receive_no_gradient():
    z, w, t, u = (draw(9, 5, seed=s).requires_grad_() for s in range(4))
    BYOL(fixed(nn.Linear(5, 5))).terms(z, w, t, u).loss.backward()
    assert t.grad is None
    assert u.grad is None
    assert z.grad.abs().max() > 0
    q = fixed(nn.Linear(5, 5))
    a, b = (draw(9, 5, seed=s).requires_grad_() for s in (5, 6))
    cosine = nn.functional.cosine_similarity
    by_hand = -(cosine(q(a), b.detach()).mean() + cosine(q(b), a.detach()).mean()) / 2
    for found, expected in zip(
        torch.autograd.grad(SimSiam(q).terms(a, b).loss, (a, b, q.weight)),
        torch.autograd.grad(by_hand, (a, b, q.weight)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    # With a predictor that answers a constant, SimSiam's only path into z is closed.
    z = draw(9, 5, seed=0).requires_grad_()
    constant = nn.Linear(5, 5).double()
    nn.init.zeros_(constant.weight)
    SimSiam(constant).terms(z, w.detach()).loss.backward()
    assert z.grad.abs().max() == 0
    SimSiam(constant, stop_gradient=False).terms(z, w.detach()).loss.backward()
    assert z.grad.abs().max() > 0


def test_simsiam_collapses_without_the_stop_gradient_and_not_with_it():
    """The published ablation: spread of the unit embeddings, times sqrt(D)."""
    spread = {}
    for stop in (True, False):
        torch.manual_seed(0)
        x = torch.randn(128, 16)

        def layers(a, b, c):
            return nn.Sequential(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU(), nn.Linear(b, c))

        encoder = layers(16, 32, 16)
        objective = SimSiam(layers(16, 8, 16), stop_gradient=stop)
        optimiser = torch.optim.SGD([*encoder.parameters(), *objective.parameters()], lr=0.3, momentum=0.9)
        for _ in range(150):
            z, w = (encoder(x + 0.3 * torch.randn_like(x)) for _ in range(2))
            optimiser.zero_grad()
            objective.terms(z, w).loss.backward()
            optimiser.step()
        unit = nn.functional.normalize(encoder(x).detach(), dim=1)
        spread[stop] = float(per_dimension_std(unit).mean()) * 4
    assert spread[True] > 0.7  # 0.9 here
    assert spread[False] < 0.2  # 0.07 here; a batch norm at the end of the encoder would hide it in the rank


def test_a_predictor_of_the_wrong_width_is_refused():
    z = draw(6, 4)
    with pytest.raises(ShapeError, match=r"returned \(6, 1\) for a target \(6, 4\)"):
        SimSiam(nn.Linear(4, 1).double()).terms(z, z)


# ------------------------------------------------------------------------------- teacher


def student():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_the_average_of_a_constant_student_is_geometric():
    teacher = ExponentialMovingAverage(student(), start=0.9, schedule="constant")
    other = student()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    before = [p.clone() for p in teacher.module.parameters()]
    for _ in range(5):
        teacher.update(other)
    for mine, first, target in zip(teacher.module.parameters(), before, other.parameters(), strict=True):
        torch.testing.assert_close(mine, target + 0.9**5 * (first - target), rtol=1e-6, atol=1e-6)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_floating_buffers_are_averaged_and_counters_copied():
    teacher, other = ExponentialMovingAverage(student(), start=0.5, schedule="constant"), student()
    other(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)))
    first = teacher.module[1].running_mean.clone()
    teacher.update(other)
    assert int(teacher.module[1].num_batches_tracked) == 1
    torch.testing.assert_close(teacher.module[1].running_mean, (first + other[1].running_mean) / 2)


def test_schedules():
    assert momentum(0, 10, 0.996, 1.0) == pytest.approx(0.996)
    assert momentum(5, 10, 0.996, 1.0) == pytest.approx(0.998)
    assert momentum(3, 10, 0.996, 1.0) == pytest.approx(1 - 0.004 * (math.cos(math.pi * 0.3) + 1) / 2)
    assert momentum(10, 10, 0.996, 1.0) == momentum(99, 10, 0.996, 1.0) == 1.0
    assert momentum(5, 10, 0.9, 1.0, "linear") == pytest.approx(0.95)
    assert momentum(5, 10, 0.9, 1.0, "constant") == 0.9
    teacher = ExponentialMovingAverage(student(), 0.9, 1.0, 4, "linear")
    assert [teacher.update(student()) for _ in range(6)] == pytest.approx([0.9, 0.925, 0.95, 0.975, 1.0, 1.0])


def test_a_resumed_teacher_continues_as_if_nothing_had_happened():
    generator = torch.Generator().manual_seed(2)
    students = [student() for _ in range(6)]
    for s in students:
        with torch.no_grad():
            for p in s.parameters():
                p.add_(torch.randn(p.shape, generator=generator))
    whole = ExponentialMovingAverage(student(), 0.5, 1.0, 6)
    for s in students[:3]:
        whole.update(s)
    saved = copy.deepcopy(whole.state_dict())
    resumed = ExponentialMovingAverage(student(), 0.5, 1.0, 6)
    resumed.load_state_dict(saved)
    for s in students[3:]:
        assert whole.update(s) == resumed.update(s)
    for mine, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_the_teacher_gives_no_gradient_and_starts_as_its_student():
    original = student().eval()
    teacher = ExponentialMovingAverage(original, steps=3).eval()
    x = torch.randn(5, 3, requires_grad=True)
    out = teacher(x)
    assert not out.requires_grad
    assert torch.equal(out, original(x).detach())
    teacher.update(original)
    assert torch.equal(teacher(x), out)  # bitwise: nothing moves where student and teacher are equal
    with torch.no_grad():
        original[0].weight.zero_()
    assert torch.equal(teacher(x), out)  # a copy


def test_teacher_errors():
    with pytest.raises(SchemaError, match="steps 0; expected the number of optimiser steps"):
        ExponentialMovingAverage(student()).update(student())
    with pytest.raises(SchemaError, match="start 1.5"):
        ExponentialMovingAverage(student(), start=1.5)
    with pytest.raises(ShapeError, match="expected the module it was made from"):
        ExponentialMovingAverage(student(), steps=1).update(nn.Linear(3, 4))
