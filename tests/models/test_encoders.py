"""Encoders with tokens: any grid, equivariance to shifts on periodic axes, hidden tokens stay unseen."""

import math
import os
import subprocess
import sys

import pytest
import torch

from pdessl.errors import SchemaError, ShapeError
from pdessl.models import (
    ConvEncoder,
    ConvNeXtEncoder,
    Encoder,
    SpaceTimeTransformer,
    TokenPredictor,
    load,
    save_pretrained,
    token_positions,
)
from pdessl.models.coordinates import append_coordinates, coordinate_channels
from pdessl.models.transformer import _turn


def field(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(name, channels=1, periodic=(True,)):
    torch.manual_seed(0)
    d = len(periodic)
    if name == "convolutional":
        return ConvEncoder(channels, width=4, blocks=(1, 1), periodic=periodic).eval()
    if name == "convnext":
        return ConvNeXtEncoder(channels, widths=(4, 8), blocks=(1, 1), periodic=periodic, kernel=3).eval()
    return SpaceTimeTransformer(channels, (2, *(4,) * d), width=16, depth=2, heads=2, periodic=periodic).eval()


NAMES = ("convolutional", "convnext", "transformer")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "periodic"),
    [((2, 1, 8, 16), (True,)), ((2, 3, 7, 13), (False,)), ((2, 2, 5, 9, 8), (True, False))],
)
def test_features_and_tokens_on_any_grid(name, shape, periodic):
    encoder = build(name, shape[1], periodic)
    x = field(*shape)
    assert encoder(x).shape == (2, encoder.feature_dim)
    tokens = encoder.tokens(x)
    assert tokens.shape == (2, math.prod(encoder.token_grid(shape[2:])), encoder.token_dim)
    assert torch.isfinite(tokens).all()


def test_coordinates_have_no_seam_on_a_circle_and_end_at_the_walls_of_a_box():
    x = torch.zeros(2, 1, 4, 6, 8)
    found = append_coordinates(x, (False, True, False))
    assert found.shape == (2, 5, 4, 6, 8) and coordinate_channels((False, True, False)) == 4
    assert found[0, 1, :, 0, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    angle = torch.atan2(found[1, 3, 0, :, 0], found[1, 2, 0, :, 0])
    turns = (angle.roll(-1) - angle).remainder(2 * math.pi)
    torch.testing.assert_close(turns, torch.full((6,), math.pi / 3))  # the last step closes the circle
    assert torch.equal(found[:, 4], found[:1, 4, :1, :1].expand(2, 4, 6, 8))
    # A coarser grid: the mean of the nodes that each of its nodes covers.
    fine = append_coordinates(torch.zeros(1, 1, 12), (False,))[0, 1]
    torch.testing.assert_close(append_coordinates(torch.zeros(1, 1, 4), (False,))[0, 1], fine.view(4, 3).mean(dim=1))


@pytest.mark.parametrize("make", [ConvEncoder, ConvNeXtEncoder])
def test_an_encoder_with_coordinates_tells_places_apart(make, tmp_path):
    torch.manual_seed(0)
    encoder = make(2, periodic=(True,), coordinates=True).eval()
    x = field(2, 2, 8, 32)
    assert not torch.allclose(encoder(x), encoder(torch.roll(x, 8, dims=3)), rtol=1e-3)
    plain = make(2, periodic=(True,)).eval()
    torch.testing.assert_close(plain(x), plain(torch.roll(x, 8, dims=3)), rtol=1e-3, atol=1e-4)
    save_pretrained(tmp_path / "encoder", encoder)
    assert torch.equal(load(tmp_path / "encoder")(x), encoder(x))


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_gives_features_trunk_and_tokens(name):
    network, x = build(name), field(2, 1, 8, 16)
    features, trunk, tokens = network.represent(x)
    assert torch.equal(features, network(x))
    assert torch.equal(trunk, network.trunk(x))
    assert torch.equal(tokens, network.tokens(x))
    encoder = Encoder(network, [0.5], [2.0])
    batch = type("Batch", (), {"fields": x})()
    for found, expected in zip(encoder(batch), network.represent((x - 0.5) / 2), strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.equal(encoder(batch).features, encoder(x))
    assert encoder.token_grid((8, 16)) == network.token_grid((8, 16))


def test_an_encoder_takes_any_network_and_says_what_it_lacks():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    encoder, x = Encoder(network), field(2, 1, 3, 4)
    assert Encoder.of(encoder) is encoder and Encoder.of(network).module is network
    batch = type("Batch", (), {"fields": x})()
    features, trunk, tokens = encoder(batch)
    assert torch.equal(features, network(x)) and trunk is None and tokens is None and encoder.head is None
    with pytest.raises(
        SchemaError, match=r"Sequential has no tokens.*methods tokens\(fields, spacing\) and token_grid"
    ):
        encoder.token_grid((3, 4))
    encoder.set_statistics([1.0, 2.0], [1.0, 1.0])  # as many channels as the data turn out to have
    assert encoder.in_channels == 2
    with pytest.raises(ShapeError, match="got 3 means and 3 deviations; expected 2 each"):
        encoder.set_statistics([1.0] * 3, [1.0] * 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_by_whole_tokens_on_a_periodic_axis_shifts_the_tokens(name):
    encoder = build(name)
    x = field(2, 1, 8, 32)
    grid = encoder.token_grid((8, 32))
    before = encoder.tokens(x).view(2, *grid, -1)
    after = encoder.tokens(torch.roll(x, 8, dims=3)).view(2, *grid, -1)
    torch.testing.assert_close(after, torch.roll(before, 8 * grid[1] // 32, dims=2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(x), encoder(torch.roll(x, 8, dims=3)), rtol=1e-4, atol=1e-5)
    assert (encoder(x) - encoder(torch.roll(x, 4, dims=2))).abs().max() > 1e-4  # time is no circle


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_encoder_gives_the_same_features(name, tmp_path):
    encoder = build(name)
    save_pretrained(tmp_path / "encoder", encoder, {})
    x = field(2, 1, 8, 16)
    assert torch.equal(load(tmp_path / "encoder")(x), encoder(x))


def test_stacked_frames_are_channels():
    encoder = ConvEncoder(2, width=4, blocks=(1, 1), periodic=(True, True), stacked_frames=3).eval()
    x = field(2, 2, 3, 8, 8)
    assert encoder.stem[0].convolution.weight.shape[1] == 6
    assert encoder(x).shape == (2, encoder.feature_dim) and encoder.tokens(x).shape == (2, 4, 8)
    # what it sees is the plain network on (B, C·T, X, Y)
    plain = encoder.stages[0](encoder.stem(x.reshape(2, 6, 8, 8)))
    torch.testing.assert_close(encoder.trunk(x)[:, :4], plain.mean(dim=(2, 3)))
    with pytest.raises(ShapeError, match=r"expected \(B, 2, 3, \*X\)"):
        encoder(field(2, 2, 4, 8, 8))
    one = ConvEncoder(1, width=4, blocks=(1,), periodic=(True,), stacked_frames=3)
    assert one(field(2, 1, 3, 8)).shape == (2, 8)


def test_patches_hold_the_nodes_of_their_block():
    encoder = SpaceTimeTransformer(2, (2, 4), width=8, depth=1, heads=1)
    x = torch.arange(2 * 2 * 4 * 8.0).view(2, 2, 4, 8)
    patches = encoder.patches(x)
    assert patches.shape == (2, 4, 16)
    assert torch.equal(patches[1, 3], x[1, :, 2:4, 4:8].flatten())
    assert torch.equal(token_positions((2, 2)), torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]))


def test_a_grid_is_filled_up_by_wrapping_or_by_its_last_value():
    encoder = SpaceTimeTransformer(1, (2, 4), width=8, depth=1, heads=1, periodic=(True,))
    x = field(1, 1, 3, 6)
    patches = encoder.patches(x).view(1, 2, 2, 2, 4)
    assert torch.equal(patches[0, 0, 1, 0], torch.cat([x[0, 0, 0, 4:], x[0, 0, 0, :2]]))
    assert torch.equal(patches[0, 1, 0, 1], x[0, 0, 2, :4])


def test_tokens_that_are_not_kept_are_never_seen():
    encoder = build("transformer")
    x = field(2, 1, 4, 16)
    keep = torch.tensor([[0, 3, 5], [1, 2, 7]])
    kept = encoder.tokens(x, keep)
    assert kept.shape == (2, 3, 16)
    changed = x.clone()
    hidden = sorted(set(range(8)) - {0, 3, 5})
    for n in hidden:
        t, j = divmod(n, 4)
        changed[0, :, 2 * t : 2 * t + 2, 4 * j : 4 * j + 4] += 10
    torch.testing.assert_close(encoder.tokens(changed, keep)[0], kept[0])
    # all tokens, in another order, give the same values in that order
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1)).expand(2, -1)
    torch.testing.assert_close(
        encoder.tokens(x, order), encoder.tokens(x).gather(1, order[..., None].expand(-1, -1, 16)), rtol=1e-4, atol=1e-5
    )


def test_attention_on_a_circle_depends_on_the_distance_on_the_circle():
    encoder = build("transformer")
    cosine, sine = encoder.layers.rotation(token_positions((1, 8)), (1, 8))
    # the first pairs belong to time, the others to the circle: q_i k_j depends on i - j modulo 8
    q = k = torch.ones(8, 8)
    scores = _turn(q, cosine, sine) @ _turn(k, cosine, sine).T
    for i in range(8):
        torch.testing.assert_close(scores[i], torch.roll(scores[0], i), rtol=1e-4, atol=1e-4)


def test_spacing_reaches_every_token():
    encoder = SpaceTimeTransformer(1, (2, 4), width=8, depth=1, heads=1, spacing=True).eval()
    x = field(2, 1, 4, 8)
    one, two = torch.tensor([[0.1, 0.2]]).expand(2, -1), torch.tensor([[0.1, 0.4]]).expand(2, -1)
    assert (encoder.tokens(x, spacing=one) - encoder.tokens(x, spacing=two)).abs().amin(dim=(0, 1)).max() > 0
    with pytest.raises(ShapeError, match="spacing=True"):
        encoder(x)


def test_the_predictor_depends_on_places_and_not_on_order():
    torch.manual_seed(0)
    predictor = TokenPredictor(16, width=16, depth=2, heads=2).eval()
    tokens = field(2, 3, 16)
    places, asked = torch.tensor([[0, 3, 5], [1, 2, 7]]), torch.tensor([[1, 2], [0, 4]])
    out = predictor(tokens, places, asked, (2, 4))
    assert out.shape == (2, 2, 16)
    swap = [2, 0, 1]
    torch.testing.assert_close(predictor(tokens[:, swap], places[:, swap], asked, (2, 4)), out, rtol=1e-4, atol=1e-5)
    assert (predictor(tokens, places, asked + 1, (2, 4)) - out).abs().max() > 1e-4
    with pytest.raises(ShapeError, match=r"expected \(B, K, D\), \(B, K\) and \(B, M\)"):
        predictor(tokens, places[:, :2], asked, (2, 4))


def test_errors_name_found_and_expected():
    with pytest.raises(ShapeError, match=r"fields \(2, 3, 8, 8\); expected \(B, 1, T, \*X\) with 1 space axes"):
        build("convnext")(field(2, 3, 8, 8))
    with pytest.raises(ShapeError, match=r"fields \(2, 1, 8\); expected \(B, 1, T, \*X\)"):
        build("transformer")(field(2, 1, 8))
    with pytest.raises(ValueError, match="one number of blocks per width"):
        ConvNeXtEncoder(widths=(4, 8), blocks=(1,))
    with pytest.raises(ValueError, match="one size for time and one per space axis"):
        SpaceTimeTransformer(patch=(4,))
    with pytest.raises(ValueError, match="not a multiple of 2 x 4 heads"):
        SpaceTimeTransformer(width=20, heads=4)


SPACED = {
    "convolutional": lambda **s: ConvEncoder(1, width=4, blocks=(1, 1), spacing=True, **s),
    "stacked": lambda **s: ConvEncoder(1, width=4, blocks=(1,), stacked_frames=8, spacing=True, periodic=(True, False)),
    "convnext": lambda **s: ConvNeXtEncoder(1, widths=(4,), blocks=(1,), kernel=3, spacing=True, **s),
    "transformer": lambda **s: SpaceTimeTransformer(1, (2, 4), width=16, depth=1, heads=2, spacing=True, **s),
}


@pytest.mark.parametrize("name", SPACED)
def test_an_encoder_that_is_told_the_grid_tells_grids_apart(name, tmp_path):
    torch.manual_seed(0)
    encoder = SPACED[name]().eval()
    axes = 2 if name == "stacked" else 1
    x = field(3, 1, 8, *(16,) * axes)
    fine = torch.tensor([[0.1, *(0.5,) * axes]], dtype=torch.float64).expand(3, -1).clone()
    twice = fine.clone()
    twice[1, 0] *= 2
    before, after = encoder(x, spacing=fine), encoder(x, spacing=twice)
    assert before.dtype == torch.float32
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert not torch.allclose(after[1], before[1], atol=1e-6)
    torch.testing.assert_close(encoder(x, fine), encoder.head(encoder.trunk(x, spacing=fine)))
    assert torch.isfinite(encoder.tokens(x, spacing=fine)).all()
    save_pretrained(tmp_path / "encoder", encoder)
    assert torch.equal(load(tmp_path / "encoder")(x, spacing=fine), before)
    with pytest.raises(ShapeError, match=r"spacing=True and got spacing none; expected \(3, "):
        encoder(x)
    with pytest.raises(ShapeError, match=r"got spacing \(3, 1\)"):
        encoder(x, fine[:, :1])


def test_what_is_left_open_is_one_periodic_field():
    assert ConvEncoder().init_args["periodic"] == [True] and ConvEncoder().in_channels == 1
    assert ConvNeXtEncoder().init_args["in_channels"] == 1
    assert SpaceTimeTransformer().periodic == (False, True)
    assert TokenPredictor(8, width=8, heads=2).init_args["periodic"] == [False, True]


def test_training_a_narrow_encoder_does_not_corrupt_memory():
    # In a process of its own, which glibc ends at the first damage it meets.
    code = (
        "import torch\n"
        "from pdessl.models import ConvEncoder\n"
        "for width in (2, 3, 4, 6):\n"
        "    network = ConvEncoder(width=width)\n"
        "    for _ in range(5):\n"
        "        network(torch.randn(8, 1, 16, 32)).square().sum().backward()\n"
    )
    environment = {**os.environ, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "5", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-500:]
