"""Networks of world models: roll-outs are repeated steps, read-outs are their formulas, all are saved and loaded."""

import math

import pytest
import torch

from pdessl.errors import SchemaError, ShapeError
from pdessl.models import (
    ActionPredictor,
    CausalActionPredictor,
    FieldState,
    GridActionPredictor,
    InverseDynamics,
    LatentVariable,
    StateEncoder,
    StateReadout,
    follow,
    load,
    roll_out,
    save_pretrained,
)

PREDICTORS = {
    "vector": (lambda: ActionPredictor(6, 2, (16,), bound=2.0), (6,)),
    "grid": (lambda: GridActionPredictor(6, 2, 8, width=8, bound=2.0), (8, 6)),
}


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_roll_out_is_repeated_steps_and_amplitudes_count_in_bounds(name):
    make, shape = PREDICTORS[name]
    torch.manual_seed(0)
    predictor = make().double()
    latent, actions = torch.randn(3, *shape).double(), torch.randn(3, 4, 2).double()
    found = roll_out(predictor, latent, actions)
    now = latent
    for step in range(4):
        now = predictor(now, actions[:, step])
        assert torch.equal(found[:, step], now)
    other = type(predictor)(**predictor.init_args | {"bound": 4.0}).double()
    other.load_state_dict(predictor.state_dict())
    assert torch.allclose(other(latent, 2 * actions[:, 0]), predictor(latent, actions[:, 0]))
    with pytest.raises(ShapeError, match="an amplitude per actuator"):
        predictor(latent, actions[:, 0, :1])
    with pytest.raises(ShapeError, match=type(predictor).__name__):
        predictor(latent[..., 1:], actions[:, 0])


def test_a_causal_predictor_sees_nothing_that_comes_later_and_all_that_came_before():
    torch.manual_seed(0)
    predictor = CausalActionPredictor(6, 2, 16, bound=2.0).double()
    latents, actions = torch.randn(3, 7, 6).double(), torch.randn(3, 7, 2).double()
    found = follow(predictor, latents, actions)
    for entry in (latents, actions):
        entry[:, 4] += 1.0
        changed = follow(predictor, latents, actions)
        torch.testing.assert_close(changed[:, :4], found[:, :4], rtol=1e-12, atol=1e-14)
        assert bool((changed[:, 4:] != found[:, 4:]).any(dim=(0, 2)).all())
        found = changed
    # A roll-out is what follows its own predictions, and begins as a sequence does.
    rolled = roll_out(predictor, latents[:, 0], actions)
    told = torch.cat([latents[:, :1], rolled[:, :-1]], dim=1)
    torch.testing.assert_close(follow(predictor, told, actions), rolled, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(predictor(latents[:, 0], actions[:, 0]), rolled[:, 0])
    plain = ActionPredictor(6, 2, (16,)).double()
    torch.testing.assert_close(follow(plain, latents, actions)[:, 3], plain(latents[:, 3], actions[:, 3]))
    other = CausalActionPredictor(**predictor.init_args | {"bound": 4.0}).double()
    other.load_state_dict(predictor.state_dict())
    torch.testing.assert_close(follow(other, latents, 2 * actions), found)
    with pytest.raises(ShapeError, match="an amplitude per actuator"):
        roll_out(predictor, latents[:, 0], actions[..., :1])


def test_a_grid_predictor_moves_with_latents_and_profiles():
    torch.manual_seed(0)
    predictor = GridActionPredictor(3, 1, 16, width=8).double()
    moved = GridActionPredictor(3, 1, 16, width=8).double()
    moved.load_state_dict(predictor.state_dict())
    with torch.no_grad():
        moved.profiles.copy_(predictor.profiles.roll(5, dims=2))
    latent, actions = torch.randn(2, 16, 3).double(), torch.randn(2, 1).double()
    assert torch.allclose(moved(latent.roll(5, dims=1), actions), predictor(latent, actions).roll(5, dims=1))
    assert not torch.allclose(predictor(latent, actions), predictor(latent, -actions))


def test_an_encoder_of_states_reads_the_last_frames_and_says_what_it_expects():
    torch.manual_seed(0)
    encoder = StateEncoder(points=8, features=5, frames=2, hidden=(7,))
    fields = torch.randn(3, 1, 6, 8)
    assert torch.equal(encoder(fields), encoder(fields[:, :, 4:])) and encoder(fields).shape == (3, 5)
    for wrong in (fields[:, :, :1], fields[..., 1:], fields.repeat(1, 2, 1, 1)):
        with pytest.raises(ShapeError, match="at least 2, 8 nodes"):
            encoder(wrong)


def test_inverse_dynamics_take_both_latents_in_order():
    torch.manual_seed(0)
    inverse = InverseDynamics(12, 2, steps=3)
    first, last = torch.randn(4, 3, 4), torch.randn(4, 3, 4)
    assert inverse(first, last).shape == (4, 3, 2)
    assert not torch.allclose(inverse(first, last), inverse(last, first))


def test_read_outs_are_their_formulas_and_everything_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    readout = StateReadout(4, (1, 6), ("energy", "dissipation"))
    for buffer in readout.buffers():
        buffer.copy_(torch.randn(buffer.shape))
    latent = torch.randn(2, 3, 4)
    for i in range(2):
        for k in range(3):
            z = latent[i, k]
            field = torch.stack([readout.field_weight[n] @ z + readout.field_bias[n] for n in range(6)])
            assert torch.allclose(readout(latent)[i, k, 0], field, atol=1e-6)
            for p in range(2):
                slow = z @ readout.forms[p] @ z + readout.slopes[p] @ z + readout.offsets[p]
                assert torch.allclose(readout.observe(latent)[i, k, p], slow, atol=1e-5)
    made = [readout, StateEncoder(8), InverseDynamics(4, 2), *(make() for make, _ in PREDICTORS.values())]
    for number, module in enumerate(made):
        save_pretrained(tmp_path / str(number), module)
        again = load(tmp_path / str(number))
        assert type(again) is type(module)
        for (key, a), b in zip(module.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(a, b), key


UNDETERMINED = {
    "vector": (lambda n: ActionPredictor(6, 2, (16,), bound=2.0, undetermined=n), (6,)),
    "grid": (lambda n: GridActionPredictor(6, 2, 8, width=8, bound=2.0, undetermined=n), (8, 6)),
    "causal": (lambda n: CausalActionPredictor(6, 2, 16, bound=2.0, undetermined=n), (6,)),
}


@pytest.mark.parametrize("name", UNDETERMINED)
def test_a_latent_variable_that_is_off_leaves_the_deterministic_predictor(name, tmp_path):
    """Weights of ξ aside, both are one network; and ξ counts as it is, where amplitudes count in bounds."""
    make, shape = UNDETERMINED[name]
    torch.manual_seed(0)
    predictor, plain = make(3).double(), make(0).double()
    weights = predictor.state_dict()
    rows = slice(2) if name == "grid" else torch.tensor([*range(8)])  # 6 latents and 2 amplitudes, then 3 numbers ξ
    for key, value in plain.state_dict().items():
        if weights[key].shape != value.shape:
            weights[key] = weights[key][rows] if name == "grid" else weights[key][:, rows]
    plain.load_state_dict(weights)
    latent, actions = torch.randn(3, *shape).double(), torch.randn(3, 4, 2).double()
    off = torch.cat([actions, torch.zeros(3, 4, 3).double()], dim=2)
    torch.testing.assert_close(roll_out(predictor, latent, actions), roll_out(plain, latent, actions))
    torch.testing.assert_close(roll_out(predictor, latent, off), roll_out(plain, latent, actions))
    on = off + torch.tensor([0.0, 0.0, 1.0, -1.0, 2.0]).double()
    assert not torch.allclose(roll_out(predictor, latent, on), roll_out(plain, latent, actions), atol=1e-3)
    save_pretrained(tmp_path, predictor)
    torch.testing.assert_close(
        roll_out(load(tmp_path), latent.float(), on.float()), roll_out(predictor.float(), latent.float(), on.float())
    )
    with pytest.raises(ShapeError, match=r"an amplitude per actuator, or \(B, 5\)"):
        roll_out(predictor.double(), latent, on[..., :4])


def test_runs_without_actuators_need_no_amplitudes():
    predictor = GridActionPredictor(1, 0, 8, width=4)
    assert roll_out(predictor, torch.randn(2, 8, 1), torch.zeros(2, 3, 0)).shape == (2, 3, 8, 1)
    with pytest.raises(ShapeError, match=r"\(B, 0\)"):
        predictor(torch.randn(2, 8, 1), torch.zeros(2, 1))


def test_the_price_of_a_latent_variable_is_the_divergence_from_the_prior():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn(50, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    prior = torch.distributions.Normal(0.0, 1.0)
    rows = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (log_variance / 2).exp()), prior)
    torch.testing.assert_close(LatentVariable(4, 3).price(mean, log_variance), rows.sum(dim=1).mean())
    noisy = LatentVariable(4, 3, regularised="noise", noise=0.2).double()
    told, spread = noisy(torch.randn(50, 4).double(), torch.randn(50, 2, 2).double())
    assert bool((spread.exp() - 0.04).abs().max() < 1e-12)
    covariance = torch.cov(told.T) + 0.04 * torch.eye(3).double()
    moments = torch.distributions.MultivariateNormal(told.mean(dim=0), covariance)
    standard = torch.distributions.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    torch.testing.assert_close(noisy.price(told, spread), torch.distributions.kl_divergence(moments, standard))
    with pytest.raises(ShapeError, match="expected 5 or more"):
        noisy.price(told[:4], spread[:4])
    # It is drawn as it was inferred: with the same moments.
    noisy.set_moments(told, spread)
    drawn = noisy.sample(200_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn.mean(dim=0), told.mean(dim=0), rtol=0, atol=0.01)
    torch.testing.assert_close(torch.cov(drawn.T), covariance, rtol=0.03, atol=0.01)
    with pytest.raises(ShapeError, match="as many rows of 4 numbers"):
        noisy(torch.randn(50, 3).double(), torch.randn(50, 4).double())
    with pytest.raises(SchemaError, match="noise between 0 and 1"):
        LatentVariable(4, 3, regularised="noise", noise=1.0)


def test_directions_above_half_the_price_are_described_down_to_it_and_no_others():
    """Water-filling, in the linear Gaussian case: errors v = 1, .3, .001 in three directions, a nat costs β = .04."""
    torch.manual_seed(0)
    rows = torch.randn(64, 6).double()
    rows, _ = torch.linalg.qr(rows - rows.mean(dim=0))
    rows = math.sqrt(64) * rows  # their moments are those of independent standard normal numbers
    variance, beta = torch.tensor([1.0, 0.3, 0.001]).double(), 0.04
    missed, noise = rows[:, :3] * variance.sqrt(), rows[:, 3:]
    posterior = LatentVariable(3, 3, hidden=()).double()
    weights = torch.nn.Linear(3, 3, bias=False).double()
    parameters = [*posterior.parameters(), *weights.parameters()]
    optimiser = torch.optim.LBFGS(parameters, max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def left_and_nats():
        found = posterior(torch.zeros_like(missed), missed)
        left = missed - weights(posterior.drawn(*found, noise))
        return left.square().mean(dim=0), posterior.price(*found)

    def loss():
        optimiser.zero_grad()
        left, nats = left_and_nats()
        (left.sum() + beta * nats).backward()
        return left.sum() + beta * nats

    optimiser.step(loss)
    left, nats = left_and_nats()
    assert left.tolist() == pytest.approx([beta / 2, beta / 2, 0.001], rel=0.01)
    assert nats.item() == pytest.approx(0.5 * math.log(1 / (beta / 2)) + 0.5 * math.log(0.3 / (beta / 2)), rel=0.02)


def test_a_state_that_is_the_field_itself(tmp_path):
    state = FieldState(5, in_channels=2, frames=2)
    x = torch.randn(3, 2, 4, 5)
    tokens = state.tokens(x)
    assert tokens.shape == (3, 5, 4) and torch.equal(state(x), tokens.flatten(1)) and state.feature_dim == 20
    assert torch.equal(tokens[1, 2], x[1, :, 2:, 2].flatten()) and state.token_grid((2, 5)) == (1, 5)
    save_pretrained(tmp_path, state)
    assert torch.equal(load(tmp_path)(x), state(x))
    with pytest.raises(ShapeError, match="at least 2, 5"):
        state(x[..., :4])
