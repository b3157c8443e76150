"""What every stepping network must obey: symmetries of the grid, locality, conditions that act sample by sample."""

import math

import pytest
import torch

from pdessl.errors import SchemaError, ShapeError
from pdessl.evaluation.rollouts import nrmse
from pdessl.models import FNO, DilatedNetwork, Surrogate, UNet
from pdessl.models.slopes import slopes

LINE, PLANE = (True,), (True, True)


def started(network, seed=0):
    """Return a network whose layers that start at zero do not."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return network.eval()


NETWORKS = {
    "dilated": lambda **s: DilatedNetwork(width=8, blocks=3, **s),
    "unet": lambda **s: UNet(width=8, attention=True, heads=2, **s),
    "fno": lambda **s: FNO(width=8, modes=5, blocks=2, **s),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("periodic", [LINE, PLANE, (False,), (True, False)])
def test_shapes_and_a_start_at_persistence(name, periodic):
    grid = (20, 16)[: len(periodic)]
    network = NETWORKS[name](channels=2, past=3, bundle=2, condition=4, periodic=periodic)
    found = network(torch.randn(5, 2, 3, *grid), torch.randn(5, 4))
    assert found.shape == (5, 2, 2, *grid)
    assert not found.any()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("how", ["film", "addition"])
def test_a_condition_acts_on_its_own_sample_only(name, how):
    torch.manual_seed(0)
    network = started(NETWORKS[name](condition=2, modulation=how).double())
    frames, condition = torch.randn(4, 1, 1, 16).double(), torch.randn(4, 2).double()
    before = network(frames, condition)
    condition[1] += 1.0
    changed = (network(frames, condition) - before).abs().amax(dim=(1, 2, 3))
    assert changed[1] > 1e-3
    assert changed[[0, 2, 3]].max() < 1e-12
    alone = torch.cat([network(frames[i : i + 1], condition[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, network(frames, condition), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", ["channels", "group", "none"])
@pytest.mark.parametrize("periodic", [LINE, PLANE])
def test_a_periodic_unet_commutes_with_shifts_by_its_stride(norm, periodic):
    torch.manual_seed(0)
    network = started(UNet(width=8, norm=norm, attention=True, heads=2, condition=1, periodic=periodic).double())
    frames, condition = torch.randn(2, 1, 1, *(32, 16)[: len(periodic)]).double(), torch.randn(2, 1).double()
    whole = network(frames, condition)
    for dim in range(3, 3 + len(periodic)):
        moved = network(frames.roll(4, dim), condition)
        torch.testing.assert_close(moved, whole.roll(4, dim), rtol=1e-11, atol=1e-11)
        assert not torch.allclose(network(frames.roll(1, dim), condition), whole.roll(1, dim), rtol=1e-3)


def test_a_walled_unet_does_not_see_across_walls():
    torch.manual_seed(0)
    frames = torch.randn(1, 1, 1, 128).double()
    other = frames.clone()
    other[..., :4] += 1.0
    for periodic, seen in [(False, False), (True, True)]:
        network = started(UNet(width=6, periodic=(periodic,)).double())
        change = (network(other) - network(frames)).abs()[0, 0, 0]
        assert change[:4].min() > 1e-6
        assert bool(change[-4:].max() > 1e-6) is seen


@pytest.mark.parametrize("axes", [1, 2])
def test_fno_is_resolution_invariant_on_a_band_limited_field(axes):
    torch.manual_seed(0)
    network = started(FNO(width=8, modes=4, blocks=2, condition=1, periodic=(True,) * axes).double())
    condition = torch.tensor([[0.7]]).double()

    def field(n):
        x = torch.arange(n).double() * 2 * math.pi / n
        u = 0.5 * torch.cos(x) + 0.3 * torch.sin(2 * x)
        return (u if axes == 1 else u[:, None] * torch.cos(x + 0.3))[None, None, None]

    coarse, fine = network(field(32), condition), network(field(64), condition)
    at_nodes = fine[..., ::2] if axes == 1 else fine[..., ::2, ::2]
    # The activation makes modes that 32 nodes cannot hold; they are small for a smooth field.
    assert (at_nodes - coarse).abs().max() < 1e-4 * coarse.abs().max()
    rough = network(field(10), condition)
    assert rough.shape[-1] == 10


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_frames_and_conditions_are_refused(name):
    network = NETWORKS[name](condition=2)
    with pytest.raises(ShapeError, match=r"expected \(B, 1, 1, \*X\) with 1 space axes"):
        network(torch.randn(3, 2, 1, 16), torch.randn(3, 2))
    with pytest.raises(ShapeError, match="Give the condition"):
        network(torch.randn(3, 1, 1, 16))
    with pytest.raises(ShapeError, match="Set condition=3"):
        network(torch.randn(3, 1, 1, 16), torch.randn(3, 3))


def test_errors_of_single_networks():
    with pytest.raises(ShapeError, match="Set modes=6"):
        FNO(modes=16)(torch.randn(1, 1, 1, 12))
    with pytest.raises(SchemaError, match="modes, film, addition"):
        FNO(modulation="both")
    with pytest.raises(SchemaError, match="channels, group, none"):
        UNet(norm="batch")
    with pytest.raises(SchemaError, match="film, addition"):
        UNet(condition=1, modulation="both")


def test_a_surrogate_takes_any_module_and_works_in_the_users_units():
    class Decay(torch.nn.Module):
        def forward(self, frames, condition):
            return -frames[:, :, -1] * condition[:, :, None]

    fields = 3.0 + 100 * torch.randn(6, 1, 5, 8, dtype=torch.float64)
    surrogate = Surrogate(Decay(), channels=1, past=1, condition=1)
    with pytest.raises(SchemaError, match="does not say its past"):
        Surrogate(Decay(), channels=1)
    surrogate.set_statistics(fields, torch.tensor([[0.0], [2.0]]))
    frames, condition = fields[:, :, :1].float(), torch.full((6, 1), 1.5)  # 0.5 standardised
    z = (frames - surrogate.scale.mean) / surrogate.scale.std
    expected = frames - 0.5 * surrogate.change * z * surrogate.scale.std
    torch.testing.assert_close(surrogate(frames, condition), expected)
    steps = surrogate.rollout(frames, 4, condition)
    for _ in range(4):
        frames = surrogate(frames, condition)
    torch.testing.assert_close(steps[:, :, -1:], frames)


def test_a_bundle_gives_several_frames_a_step_and_scales_each():
    torch.manual_seed(0)
    network = started(UNet(past=2, bundle=3, width=4))
    surrogate = Surrogate(network)
    surrogate.set_statistics(torch.randn(4, 1, 12, 16).cumsum(dim=2))
    assert bool((surrogate.change.diff(dim=1) > 0).all())
    frames = torch.randn(4, 1, 2, 16)
    found = surrogate.rollout(frames, 5)
    first = surrogate(frames)
    torch.testing.assert_close(found[:, :, :3], first)
    torch.testing.assert_close(found[:, :, 3:], surrogate(first[:, :, 1:])[:, :, :2])
    with pytest.raises(ShapeError, match="1 frames; the surrogate steps from the last 2"):
        surrogate.rollout(frames[:, :, :1], 1)


def test_slopes_are_exact_for_waves_and_parabolas_and_the_same_on_any_grid():
    for n in (16, 48):
        x = torch.arange(n).double() / n
        wave = (torch.sin(2 * math.pi * x) + 2 * torch.cos(6 * math.pi * x))[None, None]
        first, second = slopes(wave, 2, (True,))[0, 0]
        torch.testing.assert_close(first, 2 * math.pi * (torch.cos(2 * math.pi * x) - 6 * torch.sin(6 * math.pi * x)))
        torch.testing.assert_close(second, -4 * math.pi**2 * (wave[0, 0] + 16 * torch.cos(6 * math.pi * x)))
    y = (torch.arange(12).double() + 0.5) / 12
    plane = wave[..., None] * y**2
    found = slopes(plane, 1, (True, False))  # one order along x, then along y
    torch.testing.assert_close(found[0, 0, 0], first[:, None] * y**2)
    torch.testing.assert_close(found[0, 0, 1, :, 1:-1], (wave[0, 0][:, None] * 2 * y)[:, 1:-1])
    # Rough waves, which a derivative would make the largest, are left out.
    rough = torch.cos(math.pi * torch.arange(16).double())[None, None]
    assert not slopes(rough, 3, (True,)).abs().max() > 1e-12
    with pytest.raises(ShapeError, match="walled ones of 3 nodes or more"):
        slopes(plane[..., :2], 1, (True, False))
    with pytest.raises(SchemaError, match="expected 1 or more"):
        slopes(plane, 0, (True, False))


def heat(fields, rate=0.3):
    """One step of the exact solution of u_t = u_xx on as many nodes as there are."""
    k = torch.arange(fields.shape[-1] // 2 + 1).double()
    return torch.fft.irfft(torch.fft.rfft(fields.double()) * torch.exp(-rate * k**2), n=fields.shape[-1]).to(fields)


def heated(count=6, frames=7, points=16):
    field = torch.randn(count, 1, points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [5 + 3 * heat(field, 0.01)]
    for _ in range(frames - 1):
        found.append(heat(found[-1]))
    return torch.stack(found, dim=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_exact_solver_as_a_surrogate_scores_zero(name):
    """A hybrid begins as the step that it corrects: with an exact one nothing is left."""
    fields = heated()
    for bundle in (1, 2):
        network = NETWORKS[name](past=2 + bundle + 2, bundle=bundle)
        hybrid = Surrogate(network, coarse=True, derivatives=2, periodic=LINE)
        assert hybrid.past == 2
        hybrid.set_statistics(fields, coarse=heat)
        assert hybrid.change.max() < 1e-5  # in deviations of the fields
        found = hybrid.rollout(fields[:, :, :2], 5, coarse=heat)
        assert nrmse(found, fields[:, :, 2:]).max() < 1e-5
        # and a step that is half wrong leaves half of what happens to the network
        half = Surrogate(NETWORKS[name](past=2 + bundle, bundle=bundle), coarse=True)
        half.set_statistics(fields, coarse=lambda u: (u + heat(u)) / 2)
        plain = Surrogate(NETWORKS[name](past=2, bundle=bundle))
        plain.set_statistics(fields)
        torch.testing.assert_close(half.change[:, 0], plain.change[:, 0] / 2, rtol=0.02, atol=0)


def test_a_hybrid_sees_its_coarse_step_and_is_refused_without():
    class Shown(torch.nn.Module):
        in_channels, past, bundle, condition = 1, 4, 1, 0

        def forward(self, frames, condition):
            self.frames = frames
            return frames[:, :, -1]

    fields = heated()
    shown = Shown()
    hybrid = Surrogate(shown, coarse=True, derivatives=1, periodic=LINE)
    hybrid.set_statistics(fields, coarse=heat)
    z = hybrid.scale(fields)
    hybrid.step(z[:, :, :2], None, heat)
    torch.testing.assert_close(shown.frames[:, :, :2], z[:, :, :2])
    torch.testing.assert_close(shown.frames[:, :, 2], z[:, :, 2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shown.frames[:, :, 3], slopes(z[:, :, 1], 1, LINE)[:, :, 0] / hybrid.slope[0, 0])
    with pytest.raises(ShapeError, match="steps with a coarse step that it corrects; give it: coarse="):
        hybrid.rollout(fields, 1)
    with pytest.raises(SchemaError, match="'change' where a coarse step is corrected"):
        Surrogate(shown, coarse=True, predicts="frame")
    with pytest.raises(SchemaError, match=r"Surrogate\(network, derivatives=2, periodic=\(True,\)\)"):
        Surrogate(shown, derivatives=1)
    with pytest.raises(SchemaError, match="expected past=5 or more"):
        Surrogate(shown, coarse=True, derivatives=3, periodic=LINE)
