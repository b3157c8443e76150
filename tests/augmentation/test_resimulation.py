"""Transform then simulate = simulate then transform, with the moved parameters; and not with the old ones.

Trajectories are simulated, transformed by the augmentation, and simulated again from the transformed first frame on the
transformed domain with the transformed parameters. Both must agree at the transformed times.
"""

import math

import pytest
import torch

from pdessl import solvers
from pdessl.augmentation import LieAugmentation

X = 64


def initial(length, modes=3, seed=0, rows=2):
    g = torch.Generator().manual_seed(seed)
    x = torch.arange(X, dtype=torch.float64) / X
    phase = 2 * math.pi * torch.rand(rows, modes, 1, generator=g, dtype=torch.float64)
    k = torch.arange(1, modes + 1, dtype=torch.float64)[:, None]
    return (torch.cos(2 * math.pi * k * x + phase) / k).sum(dim=1, keepdim=True)


# simulator, equation of the symmetry engine, parameters by name, length, end, strengths of the flows
CASES = {
    "burgers": (
        solvers.Burgers, "burgers", {"viscosity": 0.2}, 2 * math.pi, 1.0, ("viscosity",),
        {"galilean_boost": 0.4, "scaling": 0.3, "viscosity_scaling": 0.25, "space_translation": 0.7},
    ),
    "kdv": (
        solvers.KdV, "kdv_coefficients", {"steepening": 1.0, "dispersion": 0.3}, 10.0, 1.0,
        ("steepening", "dispersion"),
        {"galilean_boost": -0.3, "scaling": 0.1, "steepening_scaling": 0.2, "dispersion_scaling": -0.15},
    ),
    "kuramoto_sivashinsky": (
        solvers.KuramotoSivashinsky, "kuramoto_sivashinsky_coefficients",
        {"steepening": 1.0, "antidiffusion": 1.0, "hyperviscosity": 1.0}, 22.0, 3.0,
        ("steepening", "antidiffusion", "hyperviscosity"),
        {"galilean_boost": 0.3, "steepening_scaling": 0.1, "hyperviscosity_scaling": 0.1,
         "antidiffusion_scaling": -0.1},
    ),
    "heat": (
        solvers.Heat, "heat", {"diffusivity": 0.3}, 2 * math.pi, 1.0, ("diffusivity",),
        {"amplitude_scaling": 0.3, "scaling": -0.2, "diffusivity_scaling": 0.4, "space_translation": 0.5},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_view_is_the_solution_with_the_moved_parameters(name):
    simulator, equation, parameters, length, end, moves, strengths = CASES[name]
    times = torch.linspace(0, end, 5, dtype=torch.float64)
    options = {"points": X, "dtype": torch.float64, "substeps": 100, "check_resolution": False}
    start = initial(length)
    solution = simulator(**parameters, domain_length=length, **options)(start, times).replace(equation=equation)
    solution = solution.replace(
        parameters={n: torch.full((len(start),), v, dtype=torch.float64) for n, v in parameters.items()}
    )
    augment = LieAugmentation(equation, dict.fromkeys(strengths, 1.0), moves=moves)
    rows = torch.tensor([1.0, -0.5], dtype=torch.float64)
    view, elements = augment.transform(solution, {n: e * rows for n, e in strengths.items()})
    assert set(elements.log_parameter_shift) == set(parameters)
    for n, before in solution.parameters.items():
        assert torch.allclose(view.parameters[n], before * elements.log_parameter_shift[n].exp())
    # the domain must be resampled to start at x = 0 for the simulator: it is periodic, so only its length matters
    clock = view.time - view.time[:, :1]

    def again(values):
        return simulator(**values, domain_length=view.lengths[:, 0], **options)(view.fields[:, :, 0], clock).fields

    scale = view.fields.std()
    assert float((again(view.parameters) - view.fields).abs().max() / scale) < 1e-7
    moved = [n for n in parameters if float(elements.log_parameter_shift[n].abs().max()) > 0]
    assert moved
    for n in moved:
        stale = dict(view.parameters) | {n: solution.parameters[n]}
        assert float((again(stale) - view.fields).abs().amax(dim=(1, 2, 3)).max() / scale) > 0.02, n
    stale = {n: solution.parameters[n] for n in parameters}
    assert float((again(stale) - view.fields).abs().max() / scale) > 0.1
