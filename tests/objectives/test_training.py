"""Objectives trained on a toy whose answer is known: views share four of eight linear factors; those must be kept."""

import pytest
import torch
from torch import nn

from pdessl.objectives import MMCR, WMSE, BarlowTwins, LeJEPA, SimCLR, VICReg

OBJECTIVES = {
    "vicreg": VICReg,
    "vicreg debiased": lambda: VICReg(debias_covariance=True),
    "barlow twins": lambda: BarlowTwins(0.1),
    "w-mse": WMSE,
    "mmcr": MMCR,
    "simclr": lambda: SimCLR(0.5),
    "lejepa": lambda: LeJEPA(slices=64),
}


def views(rows, generator, mixing):
    """Shared factors (rows, 4), and two views of them; twice as strong, four more factors are each view's own."""
    shared = torch.randn(rows, 4, generator=generator)
    own = (2 * torch.randn(rows, 4, generator=generator) for _ in range(2))
    return shared, [torch.cat((shared, o), dim=1) @ mixing for o in own]


def explained(encoder, mixing):
    """Share of the variance of the shared factors that a linear readout of the encoding finds, on fresh rows."""
    shared, (x, _) = views(1000, torch.Generator().manual_seed(99), mixing)
    z = torch.cat((encoder(x).detach(), torch.ones(1000, 1)), dim=1)
    weights = torch.linalg.lstsq(z[:500], shared[:500]).solution
    return 1 - float((z[500:] @ weights - shared[500:]).square().mean() / shared[500:].var())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_views_share_is_kept_and_what_they_do_not_share_is_dropped(name):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    mixing = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    encoder, objective = nn.Linear(8, 4), OBJECTIVES[name]()
    assert explained(encoder, mixing) < 0.5
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.02)
    for _ in range(200):
        loss = objective.terms(*(encoder(x) for x in views(128, generator, mixing)[1])).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # Four dimensions for four shared factors: none is left for the rest.
    assert explained(encoder, mixing) > 0.98
