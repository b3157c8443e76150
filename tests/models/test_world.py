"""Networks of world models: roll-outs are repeated steps, read-outs are their formulas, all are saved and loaded."""

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.models import (
    ActionPredictor,
    CausalActionPredictor,
    GridActionPredictor,
    InverseDynamics,
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
