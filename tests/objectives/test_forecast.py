import pytest
import torch
from torch import nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.models import TimeStepper
from pdessl.objectives import CrossForecast


class Decay(nn.Module):
    """Exact forecaster of u(s + h) = exp(-c h) u(s), with c read from the condition."""

    past = 2

    def __init__(self, horizon):
        super().__init__()
        self.horizon = horizon
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, frames, condition):
        return self.gain * torch.exp(-condition[:, 0] * self.horizon)[:, None, None] * frames[:, :, -1]


def decaying(rates, frames=12, points=8):
    generator = torch.Generator().manual_seed(0)
    initial = torch.randn(len(rates), 1, 1, points, dtype=torch.float64, generator=generator)
    return initial * torch.exp(-rates[:, None, None, None] * torch.arange(frames, dtype=torch.float64)[:, None])


def reference(forecaster, horizon, features, fields, start, starts=1.0):
    """The formula, row by row."""
    losses = []
    for i in range(len(fields)):
        latest = fields.shape[2] - forecaster.past - horizon
        s = min(int(start[i] * starts * (latest + 1)), latest)
        prediction = forecaster(fields[i : i + 1, :, s : s + forecaster.past], features[i : i + 1])[0]
        target = fields[i, :, s + forecaster.past - 1 + horizon]
        spread = ((fields[i] - fields[i].mean()) ** 2).mean()
        losses.append(((prediction - target) ** 2).mean() / spread)
    return torch.stack(losses).mean()


def test_equals_the_formula_row_by_row():
    torch.manual_seed(0)
    forecaster = TimeStepper(width=8, blocks=2, past=2, condition=3).double().eval()
    for p in forecaster.parameters():
        nn.init.normal_(p, std=0.2)
    fields, features = torch.randn(5, 1, 12, 8, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    start = torch.tensor([0.0, 0.2, 0.5, 0.9, 0.999], dtype=torch.float64)
    terms = CrossForecast(forecaster, horizon=4).terms(features, fields, start)
    torch.testing.assert_close(terms.loss, reference(forecaster, 4, features, fields, start), rtol=1e-10, atol=0)


def test_early_starts_never_look_at_frames_beyond_their_share():
    fields = decaying(torch.tensor([0.05, 0.1, 0.2, 0.3], dtype=torch.float64), frames=14)
    features, start = torch.zeros(4, 1, dtype=torch.float64), torch.tensor([0.0, 0.3, 0.6, 0.999], dtype=torch.float64)
    terms = CrossForecast(Decay(3), horizon=3, starts=0.5).terms(features, fields, start)
    torch.testing.assert_close(terms.loss, reference(Decay(3), 3, features, fields, start, 0.5), rtol=1e-10, atol=0)
    # Ten starts are possible; of the first five the last forecasts frame 4 + 1 + 3, so that frame 9 is never reached.
    spoiled = fields.clone()
    spoiled[:, :, 9:] = 7.0
    scale = [f.flatten(1).var(dim=1, correction=0) for f in (fields, spoiled)]
    for i in range(4):
        row = [
            CrossForecast(Decay(3), 3, 0.5).terms(features[:1], f[i : i + 1], start[i : i + 1])
            for f in (fields, spoiled)
        ]
        torch.testing.assert_close(row[0].loss * scale[0][i], row[1].loss * scale[1][i], rtol=1e-10, atol=0)


def test_the_right_coefficient_gives_zero_and_any_other_more():
    rates = torch.tensor([0.05, 0.1, 0.2, 0.3], dtype=torch.float64)
    fields, start = decaying(rates), torch.full((4,), 0.4, dtype=torch.float64)
    objective = CrossForecast(Decay(3), horizon=3)
    right = objective.terms(rates[:, None], fields, start)
    wrong = objective.terms(rates.flip(0)[:, None], fields, start)
    assert right.loss < 1e-28
    assert wrong.loss > 1e-3
    assert right.persistence > 1e-3


def test_gradient_reaches_the_representation_and_the_forecaster():
    rates = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    features = (rates + 0.02)[:, None].requires_grad_()
    objective = CrossForecast(Decay(3), horizon=3)
    start = torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64)
    objective.terms(features, decaying(rates), start).loss.backward()
    assert (features.grad > 0).all()  # too fast a decay: the loss falls with the rate
    assert objective.forecaster.gain.grad.abs() > 0
    assert torch.autograd.gradcheck(
        lambda f: objective.terms(f, decaying(rates), start).loss, features.detach().clone().requires_grad_()
    )


def test_bad_input_is_refused():
    with pytest.raises(SchemaError, match="horizon 0"):
        CrossForecast(Decay(1), horizon=0)
    for share in (0.0, 1.1):
        with pytest.raises(SchemaError, match=f"starts {share}"):
            CrossForecast(Decay(1), horizon=1, starts=share)
    objective = CrossForecast(Decay(3), horizon=3)
    with pytest.raises(ShapeError, match="at least 5 frames"):
        objective.terms(torch.zeros(2, 1), torch.zeros(2, 1, 4, 8), torch.zeros(2))
    with pytest.raises(ShapeError, match="B rows each"):
        objective.terms(torch.zeros(3, 1), torch.zeros(2, 1, 8, 8), torch.zeros(2))
