"""Which part of an encoder is fine-tuned: all of it, its last layers, its norms, or low-rank additions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pdessl.errors import CheckpointError, SchemaError, did_you_mean
from pdessl.models.encoder import network_of

__all__ = ["PARTS", "LowRank", "add_adapters", "merge_adapters", "train_only"]

PARTS = ("all", "last", "norms", "adapters", "none")
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class LowRank(nn.Module):
    """A linear layer with a trained addition of low rank; the layer itself is frozen.

        y = W x + b + (α/r) U V x,        V (r, in) drawn, U (out, r) zero at the start

    Args:
        layer: the linear layer.
        rank: r >= 1.
        alpha: α, the strength of the addition; default r.

    Source: Hu et al. (2021), LoRA, arXiv:2106.09685.
    """

    def __init__(self, layer: nn.Linear, rank: int = 4, alpha: float | None = None) -> None:
        super().__init__()
        if rank < 1:
            raise SchemaError(f"LowRank got rank {rank}; expected at least 1.")
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, layer.in_features, device=layer.weight.device))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank, device=layer.weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.factor = (rank if alpha is None else alpha) / rank

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output plus the addition."""
        return self.layer(x) + self.factor * (x @ self.down.T @ self.up.T)

    def merged(self) -> nn.Linear:
        """Return one linear layer that does the same."""
        with torch.no_grad():
            self.layer.weight.add_(self.factor * (self.up @ self.down))
        return self.layer.requires_grad_(True)


def add_adapters(module: nn.Module, rank: int = 4) -> int:
    """Put a :class:`LowRank` around every linear layer inside a module, in place; return how many there are."""
    count = 0
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, LowRank(child, rank))
            count += 1
        elif not isinstance(child, LowRank):
            count += add_adapters(child, rank)
    return count


def merge_adapters(module: nn.Module) -> nn.Module:
    """Put the plain linear layers back, additions included, in place; what is saved then needs no adapters."""
    for name, child in list(module.named_children()):
        if isinstance(child, LowRank):
            setattr(module, name, child.merged())
        else:
            merge_adapters(child)
    return module


def train_only(encoder: nn.Module, part: str = "all", rank: int = 4) -> nn.Module:
    """Make a part of an encoder trainable and freeze the rest, in place.

    Args:
        encoder: with stages (``stages`` or ``layers``) for ``last``.
        part: ``all``; ``last``: the last stage and everything after it; ``norms``: gains and biases of the norms;
            ``adapters``: low-rank additions to the linear layers, which are put in; ``none``.
        rank: of the additions.

    Raises:
        SchemaError: another part.
        CheckpointError: an encoder without such a part; the message says which parts it has.
    """
    if part not in PARTS:
        raise SchemaError(f"no part '{part}' of an encoder.{did_you_mean(part, PARTS)} Parts: {', '.join(PARTS)}.")
    encoder.requires_grad_(part == "all")
    if part == "last":
        for module in _last(encoder):
            module.requires_grad_(True)
    elif part == "norms":
        for module in encoder.modules():
            if isinstance(module, _NORMS):
                module.requires_grad_(True)
    elif part == "adapters" and add_adapters(encoder, rank) == 0:
        raise _without(encoder, part, "linear layer")
    if part != "none" and not any(p.requires_grad for p in encoder.parameters()):
        raise _without(encoder, part, "stage" if part == "last" else "norm")
    return encoder


def _last(encoder: nn.Module) -> list[nn.Module]:
    """Return the last stage (or layer) of an encoder, and the norm and head after it."""
    inner = dict(network_of(encoder).named_children())
    stages = inner.get("stages", inner.get("layers"))
    within = {} if stages is None else dict(stages.named_children())
    if not isinstance(stages, (nn.ModuleList, nn.Sequential)):
        stages = within.get("layers")  # layers that carry their own norm
    if not isinstance(stages, (nn.ModuleList, nn.Sequential)) or not len(stages):
        return []
    return [stages[-1], *(owner[name] for owner in (inner, within) for name in ("norm", "head") if name in owner)]


def _without(encoder: nn.Module, part: str, what: str) -> CheckpointError:
    kind = type(network_of(encoder)).__name__
    return CheckpointError(f"{kind} has no {what} to train: '{part}' does not fit it. Choose another of {PARTS}.")
