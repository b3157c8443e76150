"""Every objective with a way of calling it on two embeddings (B, 6), for the laws that all of them obey."""

import torch
from torch import nn

from pdessl.objectives import (
    BYOL,
    MMCR,
    SIE,
    WMSE,
    BarlowTwins,
    CodeDistillation,
    CrossForecast,
    CrossResidual,
    GroupAction,
    LeJEPA,
    MaskedJEPA,
    ParameterEquivariance,
    SimCLR,
    SimSiam,
    TemporalJEPA,
    VICReg,
    VICRegL,
)

from .embeddings import draw

ROWS, WIDTH, TOKENS = 20, 6, 3


def fixed(module, seed=30):
    """The module in float64 with weights that depend on the seed only."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return module


class Forecaster(nn.Module):
    past = 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, 4))

    def forward(self, frames, condition):
        return frames[:, :, -1] + (condition @ self.weight)[:, None]


def extras(rows=ROWS):
    """What some objectives need besides the two embeddings; each with the rows first."""
    return {
        "target": draw(rows, WIDTH, seed=40),
        "target_prime": draw(rows, WIDTH, seed=41),
        "positions": draw(rows, 2 * TOKENS, seed=42).unflatten(1, (TOKENS, 2)),
        "positions_prime": draw(rows, 2 * TOKENS, seed=43).unflatten(1, (TOKENS, 2)),
        "element": draw(rows, 2, seed=44),
        "groups": torch.arange(rows) // 2,
        "fields": draw(rows, 24, seed=45).reshape(rows, 1, 6, 4),
        "start": torch.linspace(0, 0.99, rows, dtype=torch.float64),
    }


def two(z, w, e):
    return z, w


def four(z, w, e):
    return z, w, e["target"], e["target_prime"]


def with_groups(z, w, e):
    return z, w, e["groups"]


def with_teacher(z, w, e):
    return z, w, e["target"], e["target_prime"]


def as_tokens(z):
    return z.unflatten(1, (TOKENS, -1))


def with_tokens(z, w, e):
    return z, w, as_tokens(z), as_tokens(w), e["positions"], e["positions_prime"]


def latents(z, w, e):
    return as_tokens(z), as_tokens(w), as_tokens(1.5 * z - 1)


def with_element(z, w, e):
    return z, w, e["element"]


def heads(z, w, e):
    return z, w, e["target"], e["target_prime"]


def forecast(z, w, e):
    return z, e["fields"], e["start"]


def residual(z, w, e):
    return z[:, : TOKENS - 1], as_tokens(w).mT


# name -> (constructor, arguments from (z, z', extras))
CASES = {
    "vicreg": (VICReg, two),
    "vicreg debiased": (lambda: VICReg(debias_covariance=True), two),
    "barlow twins": (lambda: BarlowTwins(0.1), two),
    "w-mse": (WMSE, two),
    "w-mse sub-batches": (lambda: WMSE(sub_batch=9, shrinkage=0.1), two),
    "mmcr": (lambda: MMCR(0.3), two),
    "mmcr views": (lambda: MMCR(0.3), four),
    "simclr": (lambda: SimCLR(0.5), two),
    "simclr groups": (lambda: SimCLR(0.2), with_groups),
    "lejepa": (lambda: LeJEPA(slices=7), two),
    "lejepa views": (lambda: LeJEPA(slices=7), four),
    "lejepa unscaled": (lambda: LeJEPA(0.5, slices=7, scale_by_n=False), two),
    "byol": (lambda: BYOL(fixed(nn.Linear(WIDTH, WIDTH))), with_teacher),
    "byol sigreg": (lambda: BYOL(fixed(nn.Linear(WIDTH, WIDTH)), "sigreg"), with_teacher),
    "simsiam": (lambda: SimSiam(fixed(nn.Linear(WIDTH, WIDTH))), two),
    "simsiam vc": (lambda: SimSiam(fixed(nn.Linear(WIDTH, WIDTH)), regulariser="vc"), two),
    "vicregl": (lambda: VICRegL(location_matches=2, max_distance=1.0), with_tokens),
    "vicregl sigreg": (lambda: VICRegL(regulariser="sigreg"), with_tokens),
    "temporal jepa": (TemporalJEPA, latents),
    "temporal jepa chunks": (lambda: TemporalJEPA(chunks=2, distance="smooth_absolute"), latents),
    "temporal jepa sigreg": (lambda: TemporalJEPA(regulariser="sigreg", rows="position", stop_gradient=True), latents),
    "temporal jepa pooled": (lambda: TemporalJEPA(rows="pooled", regularise=("context",)), latents),
    "masked jepa": (MaskedJEPA, latents),
    "masked jepa sigreg": (
        lambda: MaskedJEPA("absolute", regulariser="sigreg", regularise=("target", "context")),
        latents,
    ),
    "sie": (lambda: SIE(fixed(GroupAction(2, 4)), 2), with_element),
    "sie exponential": (lambda: SIE(fixed(GroupAction(2, 3, "exponential")), 3, regulariser="sigreg"), with_element),
    "parameter equivariance": (lambda: ParameterEquivariance("viscosity", nn.Identity()), heads),
    "cross-residual": (CrossResidual, residual),
    "code distillation": (lambda: CodeDistillation(WIDTH, logarithm=False), two),
    "cross-forecast": (lambda: CrossForecast(fixed(Forecaster()), horizon=2), forecast),
}


def build(name):
    return CASES[name][0]()


def call(name, objective, z, w, e=None):
    """Terms of the objective on embeddings (B, 6)."""
    formula = objective if isinstance(objective, (TemporalJEPA, MaskedJEPA)) else objective.terms
    return formula(*CASES[name][1](z, w, extras(len(z)) if e is None else e))
