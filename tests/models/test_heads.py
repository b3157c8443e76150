"""Heads, parts of an encoder that are trained, scales of a target."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from pdessl.errors import CheckpointError, DataError, SchemaError, ShapeError
from pdessl.models import (
    AttentiveHead,
    ConvEncoder,
    ConvNeXtEncoder,
    Encoder,
    LowRank,
    Projector,
    SpaceTimeTransformer,
    SplitProjector,
    bounded,
    fit_ridge,
    from_scale,
    merge_adapters,
    to_scale,
    train_only,
)
from pdessl.models.ridge import fit_ridge_on_views, left_out_residuals


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ----------------------------------------------------------------------- two projectors in one


def test_neither_part_of_the_embedding_sees_the_other_part_of_the_features():
    torch.manual_seed(0)
    projector = SplitProjector(10, (20, 10), 5, share=0.4).eval()
    assert [(p.in_features, p.out_features) for p in projector.parts] == [(4, 2), (6, 3)]
    assert [p.init_args["hidden"] for p in projector.parts] == [[8, 4], [12, 6]]
    assert projector.first == 2
    x = draw(7, 10)
    z = projector(x)
    other_second = projector(torch.cat([x[:, :4], draw(7, 6, seed=1)], dim=1))
    assert torch.equal(other_second[:, :2], z[:, :2]) and not torch.allclose(other_second[:, 2:], z[:, 2:])
    other_first = projector(torch.cat([draw(7, 4, seed=1), x[:, 4:]], dim=1))
    assert torch.equal(other_first[:, 2:], z[:, 2:]) and not torch.allclose(other_first[:, :2], z[:, :2])
    # each part is a projector of its own
    alone = Projector(4, (8, 4), 2).eval()
    alone.load_state_dict(projector.parts[0].state_dict())
    assert torch.equal(alone(x[:, :4]), z[:, :2])
    with pytest.raises(ShapeError, match=r"SplitProjector got features \(7, 4\); expected \(B, 10\)"):
        projector(x[:, :4])
    with pytest.raises(SchemaError, match=r"widths \[10, 1, 5\] and share 0.5; expected at least one column"):
        SplitProjector(10, (1,), 5)


# ------------------------------------------------------------------------- attentive pooling


def head(outputs=2):
    torch.manual_seed(0)
    made = AttentiveHead(8, outputs, heads=2)
    with torch.no_grad():
        made.query.normal_()
    return made


def test_the_order_of_the_tokens_does_not_matter_but_the_tokens_do():
    made, tokens = head(), draw(3, 10, 8)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(made(tokens), made(tokens[:, order]))
    changed = tokens.clone()
    changed[:, 4, 0] += 1  # not all channels: the norm takes a common shift away
    assert (made(tokens) - made(changed)).abs().max() > 1e-4


def test_attention_is_that_of_the_formula():
    made, tokens = head().requires_grad_(False), draw(1, 5, 8)
    weights, values = made.attention(tokens)
    hat = made.token_norm(tokens[0])
    keys, wanted = (hat @ made.keys_values.weight.T + made.keys_values.bias).split(8, dim=1)
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        scores = [float((made.query[part] * keys[n, part]).sum()) / math.sqrt(4) for n in range(5)]
        total = sum(map(math.exp, scores))
        expected = torch.tensor([math.exp(s) / total for s in scores])
        torch.testing.assert_close(weights[0, h], expected)
        torch.testing.assert_close(values[0, h], wanted[:, part])


def test_one_token_has_all_the_weight_and_masked_tokens_none():
    made, tokens = head(), draw(2, 6, 8)
    assert torch.equal(made.attention(tokens[:, :1])[0], torch.ones(2, 2, 1))
    mask = torch.tensor([True, True, False, True, False, False]).expand(2, -1)
    torch.testing.assert_close(made(tokens, mask), made(tokens[:, [0, 1, 3]]))


def test_a_head_refuses_tokens_it_does_not_fit():
    with pytest.raises(ShapeError, match=r"tokens \(2, 8\); expected \(B, N, 8\).*token_dim"):
        head()(draw(2, 8))
    with pytest.raises(ValueError, match="3 heads for tokens of width 8"):
        AttentiveHead(8, heads=3)


# --------------------------------------------------------------------------- parts and adapters


def transformer():
    torch.manual_seed(0)
    return SpaceTimeTransformer(patch=(4, 4), width=16, depth=2, heads=2, features=3)


def test_adapters_start_as_the_identity_and_merge_into_plain_layers():
    plain, adapted = transformer(), Encoder(train_only(transformer(), "adapters", rank=2))
    x = draw(2, 1, 8, 16)
    assert torch.equal(plain(x), adapted(x))
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trained and all(n.endswith((".up", ".down")) for n in trained)
    with torch.no_grad():
        for module in adapted.modules():
            if isinstance(module, LowRank):
                module.up.normal_()
    changed = adapted(x)
    assert (changed - plain(x)).abs().max() > 1e-3
    merge_adapters(adapted)
    torch.testing.assert_close(adapted(x), changed, rtol=1e-4, atol=1e-5)
    assert set(adapted.module.state_dict()) == set(plain.state_dict())


def test_the_addition_has_the_rank_it_says():
    layer = LowRank(nn.Linear(10, 12), rank=3, alpha=6.0)
    with torch.no_grad():
        layer.up.normal_()
    before = layer.layer.weight.clone()
    assert torch.linalg.matrix_rank(layer.merged().weight - before) == 3


@pytest.mark.parametrize(
    "make", [lambda: ConvEncoder(width=4, features=3), lambda: ConvNeXtEncoder(1, (4, 8), (1, 1), 3), transformer]
)
def test_parts_that_are_trained_are_those_that_were_asked_for(make):
    encoder = Encoder(make())
    every = sum(p.numel() for p in encoder.parameters())
    counts = {}
    for part in ("all", "last", "norms", "none"):
        train_only(encoder, part)
        counts[part] = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert counts["all"] == every
    assert counts["none"] == 0
    assert 0 < counts["norms"] < counts["last"] < every
    train_only(encoder, "last")
    assert all(p.requires_grad for p in encoder.module.head.parameters())


def test_parts_that_are_not_there_are_refused():
    with pytest.raises(SchemaError, match="no part 'norm' of an encoder. Did you mean 'norms'"):
        train_only(transformer(), "norm")
    with pytest.raises(CheckpointError, match="ConvEncoder has no linear layer to train"):
        train_only(ConvEncoder(width=4), "adapters")
    with pytest.raises(CheckpointError, match="Linear has no stage to train: 'last' does not fit it"):
        train_only(nn.Linear(2, 2), "last")


# ----------------------------------------------------------------------------------- scales


def test_scales_are_inverse_and_refuse_what_they_cannot_hold():
    values = torch.tensor([0.1, 2.0, 30.0], dtype=torch.float64)
    for scale in ("log", "linear"):
        torch.testing.assert_close(from_scale(to_scale(values, scale), scale), values)
    torch.testing.assert_close(to_scale(-values, "linear"), -values)
    with pytest.raises(DataError, match="'amplitude' must be positive and finite.*smallest value is -30"):
        to_scale(-values, "log", "amplitude")
    with pytest.raises(DataError, match="not finite"):
        to_scale(values / 0, "linear")
    with pytest.raises(SchemaError, match="no scale 'lin'. Did you mean 'linear'"):
        to_scale(values, "lin")


def test_predictions_are_bounded_by_the_labels_range_and_half_of_it():
    known = torch.tensor([[1.0, 0.0], [3.0, 10.0]])
    wild = torch.tensor([[-9.0, 3.0], [9.0, 99.0], [2.0, -99.0]])
    assert bounded(wild, known).tolist() == [[0.0, 3.0], [4.0, 15.0], [2.0, -5.0]]
    assert bounded(wild[:, 0], known[:, 0], room=0.0).tolist() == [1.0, 3.0, 2.0]


# ------------------------------------------------------------------------------ several targets


def test_ridge_of_several_targets_is_ridge_of_each_at_that_penalty():
    x, y = draw(25, 6, seed=1).double(), draw(25, 3, seed=2).double()
    found = fit_ridge(x, y, (0.3,))
    z = (x - x.mean(0)) / x.std(0, correction=0)
    for k in range(3):
        other = Ridge(alpha=0.3 * 25).fit(z.numpy(), y[:, k].numpy())
        torch.testing.assert_close(found.predict(x)[:, k], torch.from_numpy(other.predict(z.numpy())))


def test_left_out_residuals_are_those_whose_mean_square_chose_the_penalty():
    x, y = draw(25, 6, seed=1).double(), draw(25, 3, seed=2).double()
    found = fit_ridge(x, y)
    residuals = left_out_residuals(found, x, y)
    assert residuals.shape == (25, 3)
    assert float(residuals.square().mean()) == pytest.approx(found.leave_one_out, rel=1e-9)


@pytest.mark.parametrize("penalty", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("width", [4, 60])  # fewer and more features than rows
def test_a_ridge_on_views_leaves_whole_runs_out(width, penalty, weighted):
    """Against fits without the run: its views all go, and their averaged prediction is compared."""
    x, y = draw(9, 3, width).double(), draw(9, seed=1).double()
    own = 0.2 + draw(9, seed=2).double().square() if weighted else None
    readout, left = fit_ridge_on_views(x, y, (penalty,), own)
    rows, labels = x.flatten(0, 1), y.repeat_interleave(3)
    shares = torch.ones(27).double() if own is None else (own / own.mean()).repeat_interleave(3)
    whole = fit_ridge(rows, labels, (penalty,), shares)
    torch.testing.assert_close(readout.predict(rows), whole.predict(rows))
    torch.testing.assert_close(readout.predict(x.mean(dim=1)), whole.predict(rows).reshape(9, 3, 1).mean(dim=1))
    # The penalty of a fit of fewer rows that weighs the same, on columns standardised as those of all rows.
    scaled = (rows - readout.centre) / readout.scale
    for g in range(9):
        kept = torch.arange(27) // 3 != g
        ones = torch.ones(24, 1, dtype=torch.float64)
        design = torch.cat([scaled[kept], ones], dim=1)
        ridge = penalty * 27 * torch.eye(width + 1, dtype=torch.float64)
        ridge[-1, -1] = 0.0
        weighed = shares[kept][:, None] * design
        weights = torch.linalg.solve(weighed.T @ design + ridge, weighed.T @ labels[kept])
        predicted = torch.cat([scaled[~kept], ones[:3]], dim=1) @ weights
        assert left[g] == pytest.approx(float(y[g] - predicted.mean()), rel=1e-5, abs=1e-8)
    assert readout.leave_one_out == pytest.approx(float((shares[::3] * left.square()).mean()))


def test_a_ridge_on_one_view_is_a_ridge():
    x, y = draw(12, 5), draw(12, seed=2)
    readout, left = fit_ridge_on_views(x[:, None], y)
    plain = fit_ridge(x, y)
    assert readout.penalty == plain.penalty
    torch.testing.assert_close(readout.predict(x), plain.predict(x))
    torch.testing.assert_close(left, left_out_residuals(plain, x, y)[:, 0])
    with pytest.raises(ShapeError, match=r"expected \(n, V, D\)"):
        fit_ridge_on_views(x, y)
    with pytest.raises(DataError, match="not finite"):
        fit_ridge_on_views(x[:, None] * float("nan"), y)


def test_every_view_tells_a_ridge_what_does_not_matter():
    """Views of a run differ in numbers that have nothing to do with its label: averages hide that, all rows show it."""
    runs, views, width = 12, 16, 20
    signal, nuisance = draw(200, seed=3).double(), draw(200, views, 8, seed=4).double()
    mixed = draw(9, width, seed=5).double()
    x = torch.cat([signal[:, None, None].expand(-1, views, 1), 3 * nuisance], dim=2) @ mixed
    y = signal
    new = x[runs:].mean(dim=1)

    def error(readout):
        return float((readout.predict(new)[:, 0] - y[runs:]).square().mean())

    every, _ = fit_ridge_on_views(x[:runs] + 0.1 * draw(runs, views, width, seed=6), y[:runs])
    averaged = fit_ridge(x[:runs].mean(dim=1) + 0.1 / views**0.5 * draw(runs, width, seed=6), y[:runs])
    assert error(every) < 0.5 * error(averaged)
