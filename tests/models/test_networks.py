import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.models import ConvEncoder, Encoder, Head, Projector, TimeStepper, embed, view_seed
from pdessl.models.padding import GridConvolution


def field(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "periodic"),
    [((3, 1, 16, 16), (True,)), ((2, 2, 7, 13), (False,)), ((2, 3, 5, 8, 6), (True, False))],
)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_encoder_takes_any_grid(shape, periodic, norm):
    encoder = ConvEncoder(shape[1], width=4, blocks=(1, 2), periodic=periodic, norm=norm)
    assert encoder(field(*shape)).shape == (shape[0], encoder.feature_dim) == (shape[0], 24)
    assert ConvEncoder(shape[1], 4, (1, 2), 5, periodic, norm, pool="last")(field(*shape)).shape == (shape[0], 5)


def test_encoder_is_invariant_to_shifts_on_a_periodic_axis_only():
    x = field(2, 1, 16, 32)
    shifted = torch.roll(x, 8, dims=-1)  # the total stride of two stages is 4
    torch.manual_seed(0)
    periodic = ConvEncoder(width=4, blocks=(1, 1)).eval()
    torch.testing.assert_close(periodic(x), periodic(shifted), rtol=1e-4, atol=1e-5)
    closed = ConvEncoder(width=4, blocks=(1, 1), periodic=(False,)).eval()
    assert (closed(x) - closed(shifted)).abs().max() > 1e-3
    assert (periodic(x) - periodic(torch.roll(x, 8, dims=2))).abs().max() > 1e-3


def test_features_are_mean_and_deviation_of_each_stage():
    encoder = ConvEncoder(width=4, blocks=(1, 1)).eval()
    x = field(2, 1, 8, 8)
    features = encoder(x)
    first = encoder.stages[0](encoder.stem(x))
    torch.testing.assert_close(features[:, :4], first.mean(dim=(2, 3)))
    torch.testing.assert_close(features[:, 4:8], (first.var(dim=(2, 3), correction=0) + 1e-5).sqrt())


def test_grid_convolution_wraps_around():
    convolution = GridConvolution(1, 1, 3, (True,), bias=False)
    with torch.no_grad():
        convolution.convolution.weight.copy_(torch.tensor([[[1.0, 0.0, 0.0]]]))
    assert convolution(torch.arange(5.0).view(1, 1, 5)).flatten().tolist() == [4, 0, 1, 2, 3]
    with pytest.raises(ValueError, match="odd kernel"):
        GridConvolution(1, 1, 4, (True,))


@pytest.mark.parametrize("nodes", [3, 4, 9])  # fewer than both ends that are repeated, just these, and more
def test_wrapping_and_its_gradient_are_those_of_circular_padding(nodes):
    x = field(2, 3, nodes).double().requires_grad_()
    same = x.detach().clone().requires_grad_()
    convolution = GridConvolution(3, 2, 3, (True,), dilation=2).double()
    found = convolution(x)
    inner = convolution.convolution
    padded = torch.nn.functional.pad(same, (2, 2), mode="circular")
    expected = torch.nn.functional.conv1d(padded, inner.weight, inner.bias, dilation=2)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, same.grad)


def test_errors_name_found_and_expected():
    with pytest.raises(ShapeError, match=r"fields \(2, 3, 8, 8\); expected \(B, 1, T, \*X\) with 1 space axes"):
        ConvEncoder(width=4)(field(2, 3, 8, 8))
    with pytest.raises(ValueError, match="norm 'layer'"):
        ConvEncoder(norm="layer")
    with pytest.raises(ShapeError, match=r"Projector got features \(2, 3\); expected \(B, 4\).*feature_dim"):
        Projector(4)(field(2, 3))
    with pytest.raises(ShapeError, match=r"Head got features \(4,\)"):
        Head(4)(field(4))


def test_normalised_is_the_module_on_standardised_fields():
    x = field(3, 2, 4, 5) * 7 + 3
    module = Encoder(torch.nn.Flatten(), [3.0, 0.0], [7.0, 2.0])
    expected = (x - torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)) / torch.tensor([7.0, 2.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(module(x), expected.flatten(1))
    with pytest.raises(ShapeError, match="expected 2 each"):
        module.set_statistics([0.0], [1.0])
    with pytest.raises(ValueError, match="std > 0"):
        module.set_statistics([0.0, 0.0], [1.0, 0.0])


# ------------------------------------------------------------------------- time-stepper


def test_stepper_begins_at_persistence_and_the_condition_changes_it_after_a_step():
    stepper = TimeStepper(channels=2, past=3, width=8, blocks=3, condition=4)
    frames, condition = field(5, 2, 3, 16), field(5, 4, seed=1)
    assert torch.equal(stepper(frames, condition), frames[:, :, -1])
    optimiser = torch.optim.Adam(stepper.parameters(), lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        (stepper(frames, condition) - frames.flip(2)[:, :, -1]).square().mean().backward()
        optimiser.step()
    stepper.eval()
    assert not torch.allclose(stepper(frames, condition), stepper(frames, condition.flip(0)))


def test_rollout_feeds_predictions_back():
    stepper = TimeStepper(past=2, width=8, blocks=2).eval()
    with torch.no_grad():
        stepper.network.lower.convolution.weight.add_(0.1)
    frames = field(3, 1, 2, 16)
    first = stepper(frames)
    second = stepper(torch.stack([frames[:, :, 1], first], dim=2))
    torch.testing.assert_close(stepper.rollout(frames, 2), torch.stack([first, second], dim=2))


def test_stepper_commutes_with_shifts():
    stepper = TimeStepper(past=2, width=8, blocks=4).eval()
    with torch.no_grad():
        stepper.network.lower.convolution.weight.add_(0.1)
    frames = field(2, 1, 2, 20)
    torch.testing.assert_close(stepper(frames.roll(7, -1)), stepper(frames).roll(7, -1), rtol=1e-4, atol=1e-5)


def test_stepper_errors():
    stepper = TimeStepper(past=2, width=8, blocks=1, condition=3)
    with pytest.raises(ShapeError, match=r"condition of shape None; expected \(2, 3\)"):
        stepper(field(2, 1, 2, 16))
    with pytest.raises(ShapeError, match=r"frames \(2, 1, 3, 16\); expected \(B, 1, 2, \*X\)"):
        stepper(field(2, 1, 3, 16), field(2, 3))


# ---------------------------------------------------------------------------- embedding


class Batch:
    def __init__(self, fields):
        self.fields = fields


class AddNoise(torch.nn.Module):
    def forward(self, batch, generator=None):
        return Batch(batch.fields + torch.randn(batch.fields.shape, generator=generator)), None


def test_embed_averages_views_repeats_by_seed_and_leaves_the_encoder_as_it_was():
    encoder = ConvEncoder(width=4, blocks=(1,)).train()
    encoder.head.eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    batches = [Batch(field(3, 1, 8, 8)), Batch(field(2, 1, 8, 8, seed=1))]
    features = embed(encoder, batches, AddNoise(), views=4, seed=1)
    assert features.shape == (5, encoder.feature_dim)
    assert features.dtype == torch.float64
    assert not features.requires_grad
    assert torch.equal(features, embed(encoder, batches, AddNoise(), views=4, seed=1))
    assert not torch.equal(features, embed(encoder, batches, AddNoise(), views=4, seed=2))
    assert encoder.training and not encoder.head.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    generator = torch.Generator().manual_seed(view_seed(1, 0))
    encoder.eval()
    views = [encoder(AddNoise()(batches[0], generator)[0].fields) for _ in range(4)]
    torch.testing.assert_close(features[:3], torch.stack(views).double().mean(0).detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(embed(encoder, batches[0]), encoder(batches[0].fields).double().detach())


def test_view_seed_depends_on_every_number_and_their_order():
    seeds = {view_seed(0, 1), view_seed(1, 0), view_seed(0, 1, 0), view_seed(0), view_seed(0, 2)}
    assert len(seeds) == 5
    assert all(0 <= s < 2**63 for s in seeds)
