"""AdamW without decay on norms and biases, and a warm-up followed by a cosine, per optimiser step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["cosine_with_warmup", "optimiser_and_schedule", "parameter_groups"]


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups of trainable parameters: weights with decay, vectors and scalars without.

    Biases and the gains of norms are the parameters with fewer than two axes; the shape tells what a name cannot.
    """
    unique = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
    decayed = [p for p in unique.values() if p.ndim >= 2]
    others = [p for p in unique.values() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def cosine_with_warmup(step: int, total: float, warmup: float) -> float:
    """Return the factor of the learning rate at a step.

    Args:
        step: optimiser steps done.
        total: optimiser steps of the run; infinite for a run without end, which stays at 1 after the warm-up.
        warmup: share of ``total`` (below 1) or number of steps of the linear warm-up.
    """
    rise = warmup * total if warmup < 1 and math.isfinite(total) else warmup
    if step < rise:
        return (step + 1) / (math.floor(rise) + 1)
    if not math.isfinite(total):
        return 1.0
    done = min(1.0, (step - rise) / max(total - rise, 1))
    return 0.5 * (1 + math.cos(math.pi * done))


def optimiser_and_schedule(
    groups: list[dict[str, Any]], learning_rate: float, total: float, warmup: float
) -> dict[str, Any]:
    """Return AdamW and its schedule in the form Lightning expects from ``configure_optimizers``."""
    weights = [p for group in groups for p in group["params"]]
    # One call for all weights; on a processor torch makes a dozen calls for each of them otherwise.
    fused = True if all(p.device.type == "cpu" and p.is_floating_point() for p in weights) else None
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, fused=fused)
    if fused:  # the scaler, not the step, takes the scale off gradients: between the two Lightning clips them
        vars(optimiser)["_step_supports_amp_scaling"] = False
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: cosine_with_warmup(step, total, warmup))
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
