import math

import pytest
import torch
from torch import nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives import MaskedJEPA, SIGReg, TemporalJEPA, VarianceCovariance, VICReg, make_regulariser
from pdessl.objectives.latents import unexplained

from .embeddings import draw


def latents(rows=8, tokens=5, width=3, seed=0):
    return tuple(draw(rows, tokens * width, seed=seed + s, scale=0.8).unflatten(1, (tokens, width)) for s in (0, 1))


def test_temporal_jepa_equals_the_published_formula():
    """2 mean (p - t)² + 40 [½h(p) + ½h(t)] + 2 [c(p) + c(t)], by loops; variance with n as published."""
    p, t = latents()
    total = 2 * float(((p - t) ** 2).mean())
    for x in (p, t):
        rows = x.reshape(-1, 3).tolist()
        n = len(rows)
        means = [sum(r[d] for r in rows) / n for d in range(3)]
        for d in range(3):
            variance = sum((r[d] - means[d]) ** 2 for r in rows) / n
            total += 40 * 0.5 * max(0, 1 - math.sqrt(variance + 1e-4)) / 3
            for e in range(3):
                if e != d:
                    c = sum((r[d] - means[d]) * (r[e] - means[e]) for r in rows) / (n - 1)
                    total += 2 * c**2 / 3
    objective = TemporalJEPA(regulariser=VarianceCovariance(40, 2, unbiased_variance=False))
    assert float(objective(p, t).loss) == pytest.approx(total, rel=1e-10)


def test_one_chunk_is_vicreg_on_the_flattened_rows():
    p, t = latents()
    flat = VICReg(2, 40, 2).terms(p.flatten(0, 1), t.flatten(0, 1))
    terms = TemporalJEPA()(p, t)
    assert float(terms.loss) == pytest.approx(float(flat.loss), rel=1e-12)
    assert float(terms.variance) == pytest.approx(float(flat.variance) / 2, rel=1e-12)
    pooled = TemporalJEPA(rows="pooled", prediction=0, regulariser=VarianceCovariance(40, 2))(p, t)
    assert float(pooled.loss) == pytest.approx(
        float(VICReg(0, 40, 2).terms(p.mean(dim=1), t.mean(dim=1)).loss), rel=1e-12
    )
    by_position = TemporalJEPA(rows="position", prediction=0, regulariser=VarianceCovariance(40, 2))(p, t)
    separate = [float(VICReg(0, 40, 2).terms(p[:, i], t[:, i]).loss) for i in range(5)]
    assert float(by_position.loss) == pytest.approx(sum(separate) / 5, rel=1e-12)


def test_chunks_regularise_disjoint_sets_of_tokens():
    p, t = latents(tokens=6)
    found = TemporalJEPA(chunks=3, prediction=0, regulariser=VarianceCovariance(40, 2), seed=5)(p, t)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(5 * 1_000_003 + 1))
    losses = [
        float(VICReg(0, 40, 2).terms(p[:, part].flatten(0, 1), t[:, part].flatten(0, 1)).loss)
        for part in order.split(2)
    ]
    assert float(found.loss) == pytest.approx(sum(losses) / 3, rel=1e-12)


def test_temporal_jepa_at_collapse_and_on_identical_windows():
    constant = torch.full((4, 5, 3), 0.5, dtype=torch.float64)
    collapsed = TemporalJEPA()(constant, constant)
    assert float(collapsed.loss) == pytest.approx(39.6, rel=1e-12)
    p, _ = latents()
    same = TemporalJEPA()(p, p)
    assert float(same.prediction) == 0
    assert float(same.unexplained) == 0
    assert float(same.loss) == pytest.approx(float(same.regularity))


def test_both_branches_receive_gradient_unless_it_is_stopped():
    for stop in (False, True):
        p, t = (x.requires_grad_() for x in latents())
        TemporalJEPA(regulariser=None, stop_gradient=stop)(p, t).loss.backward()
        assert p.grad.abs().max() > 0
        assert (t.grad is None) == stop


def test_unexplained_is_one_for_the_mean_of_the_target():
    _, t = latents()
    mean = t.flatten(0, 1).mean(dim=0).expand_as(t)
    assert float(unexplained(mean, t)) == pytest.approx(1, rel=1e-12)
    assert float(unexplained(t, t)) == 0


def test_the_anti_collapse_term_is_exchangeable():
    p, t = latents()
    by_name = TemporalJEPA(regulariser="sigreg")(p, t)
    by_object = TemporalJEPA(regulariser=SIGReg(2 * 0.05 / 0.95 * 2.0))(p, t)
    assert float(by_name.loss) == float(by_object.loss)
    assert by_name._fields == ("loss", "prediction", "unexplained", "regularity", "gaussianity")
    assert TemporalJEPA()(p, t)._fields[-2:] == ("variance", "covariance")
    own = TemporalJEPA(regulariser=lambda z: z.square().mean())(p, t)
    assert float(own.loss) == pytest.approx(2 * float(own.prediction) + float((p**2).mean() + (t**2).mean()))
    named = make_regulariser("an objective", "vc", 5.0)
    assert (named.variance, named.covariance) == (5.0, 0.2)  # in VICReg's proportions 25 : 25 : 1
    alone = TemporalJEPA(regulariser=None)(p, t)
    assert alone._fields == ("loss", "prediction", "unexplained")
    with pytest.raises(SchemaError, match="regulariser 'sigrek'. Did you mean 'sigreg'. Known: vc, sigreg"):
        TemporalJEPA(regulariser="sigrek")
    with pytest.raises(SchemaError, match="got a float as regulariser"):
        TemporalJEPA(regulariser=0.1)


def test_the_noise_floor_is_warned_of_under_the_name_of_the_objective():
    p, t = latents(rows=16, tokens=2, width=256)
    with pytest.warns(UserWarning, match=r"TemporalJEPA: with 32 rows and width 256 .* near std 0.67, not 1"):
        TemporalJEPA()(p, t)


def test_masked_jepa_equals_the_loops():
    p, t = latents(seed=4)
    normalised = torch.empty_like(t)
    for b in range(len(t)):
        for i in range(t.shape[1]):
            row = t[b, i]
            normalised[b, i] = (row - row.mean()) / math.sqrt(float(((row - row.mean()) ** 2).mean()) + 1e-5)
    difference = (3 * p - normalised).abs().flatten().tolist()
    count = len(difference)
    expected = {
        "smooth_absolute": sum(d**2 / 2 if d < 1 else d - 0.5 for d in difference) / count,
        "absolute": sum(difference) / count,
        "square": sum(d**2 for d in difference) / count,
    }
    for distance, value in expected.items():
        assert float(MaskedJEPA(distance)(3 * p, t).loss) == pytest.approx(value, rel=1e-10)
    raw = MaskedJEPA("square", normalise_target=False)(p, t)
    assert float(raw.loss) == pytest.approx(float(((p - t) ** 2).mean()), rel=1e-12)


def test_masked_jepa_takes_blocks_and_gives_the_target_no_gradient():
    p, t = latents()
    blocks = MaskedJEPA()(p[:, None].expand(-1, 2, -1, -1), t[:, None].expand(-1, 2, -1, -1))
    assert float(blocks.loss) == pytest.approx(float(MaskedJEPA()(p, t).loss), rel=1e-12)
    t.requires_grad_()
    p.requires_grad_()
    MaskedJEPA()(p, t).loss.backward()
    assert t.grad is None
    fixed_target = nn.functional.layer_norm(t.detach(), (3,))
    expected = torch.autograd.grad(nn.functional.smooth_l1_loss(p, fixed_target), p)[0]
    torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-14)
    # Without a teacher the anti-collapse term does reach the encoder that made the target.
    MaskedJEPA(regulariser="sigreg")(p, t).loss.backward()
    assert t.grad.abs().max() > 0


def test_errors():
    p, t = latents()
    with pytest.raises(SchemaError, match="regularises context, which was not passed"):
        TemporalJEPA(regularise=["context"])(p, t)
    with pytest.raises(ShapeError, match=r"predictions \(8, 3\); expected \(B, N, D\)"):
        MaskedJEPA()(p[:, 0], t[:, 0])
    with pytest.raises(SchemaError, match="rows 'all'; expected names of prediction, target, context"):
        TemporalJEPA(rows="all")
    with pytest.raises(SchemaError, match="distance 'cube'"):
        MaskedJEPA("cube")


def test_a_linear_latent_dynamics_is_learned_without_collapse():
    """Rotating states, all linear: the prediction becomes exact while the latents keep their spread."""
    torch.manual_seed(0)
    states = torch.randn(256, 4)
    turn = torch.linalg.qr(torch.randn(4, 4))[0]
    encoder, predictor, objective = nn.Linear(4, 4), nn.Linear(4, 4), TemporalJEPA(regulariser="vc")
    optimiser = torch.optim.Adam([*encoder.parameters(), *predictor.parameters()], lr=0.02)
    for _ in range(300):
        latent, following = encoder(states), encoder(states @ turn.T)
        terms = objective(predictor(latent), following)
        optimiser.zero_grad()
        terms.loss.backward()
        optimiser.step()
    assert float(terms.unexplained) < 0.01
    assert float(terms.variance.detach()) < 0.02  # half of 1 - std
