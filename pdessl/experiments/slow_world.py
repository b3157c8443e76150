"""World models of two time scales of run folders, planned with on both levels."""

# B episodes, N candidates, M blocks, H control periods, A actuators, p pieces of a block, D width of the slow latent

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor, nn

from pdessl.control import Situation
from pdessl.errors import CheckpointError, DataError
from pdessl.experiments.world import LatentWorld, provenance_of
from pdessl.models import Blocks, Encoder, PooledEncoder, StateReadout, load, roll_out

__all__ = ["SlowWorld", "load_slow_world"]


class SlowWorld:
    """A slow world model on the latents of a fast one; see :class:`pdessl.control.hierarchy.Levels`.

    Args:
        fast: the world model below.
        encoder: of the slow latents: a :class:`pdessl.models.PooledEncoder` on the encoder of ``fast``.
        predictor: of the slow latents, under codes.
        readout: of the field.
        blocks: what a step and a code are.

    Raises:
        CheckpointError: a slow model of other actuators, or on another encoder than that of ``fast``.
    """

    def __init__(
        self, fast: LatentWorld, encoder: Encoder, predictor: nn.Module, readout: StateReadout, blocks: Blocks
    ) -> None:
        inner, codes = encoder.module, blocks.pieces * fast.environment.actuators
        if not isinstance(inner, PooledEncoder):
            raise CheckpointError(
                f"the upper model reads fields by a {type(inner).__name__}, not the latents of the model below. Train "
                "it with model.encoder pdessl.models.pooled."
            )
        if getattr(predictor, "actions", None) != codes:
            raise CheckpointError(f"the upper model takes {predictor.actions} numbers a block; expected {codes}.")
        below, expected = inner.lower.state_dict(), fast.encoder.module.state_dict()
        if below.keys() != expected.keys() or any(not below[name].equal(expected[name]) for name in below):
            raise CheckpointError(
                "the upper model was trained on another encoder than that of --model; give the run that its recipe "
                "names in model.encoder.init_args.checkpoint."
            )
        self.fast, self.encoder, self.predictor, self.readout = fast, encoder, predictor, readout
        self._pooled, self._blocks = inner, blocks

    @property
    def blocks(self) -> Blocks:
        """What a step and a code are."""
        return self._blocks

    def slow_latents(self, situation: Situation, codes: Tensor) -> Tensor:
        """Return the slow latents (B, N, M, D) after each block under codes (B, N, M, p A)."""
        b, n, m, _ = codes.shape
        first = self._pooled.above(self.fast.encoded_now(situation))
        start = first[:, None].expand(b, n, -1).flatten(0, 1)
        return roll_out(self.predictor, start, codes.flatten(0, 1).to(start.dtype)).unflatten(0, (b, n))

    def imagine_blocks(self, situation: Situation, codes: Tensor) -> Tensor:
        """Return the states (B, N, M, K) that are read from what is imagined."""
        fields = self.readout(self.slow_latents(situation, codes))
        return self.fast.environment.state(fields[..., 0, :])

    def subgoals(self, situation: Situation, codes: Tensor) -> Tensor:
        """Return the slow latents (B, M, D)."""
        return self.slow_latents(situation, codes[:, None])[:, 0]

    def missed(self, situation: Situation, actions: Tensor, goal: Tensor) -> Tensor:
        """Return the mean square of what is missed in the slow latent, (B, N)."""
        latents = self.fast.latents(situation, actions)[:, :, -1]
        end = self._pooled.above(self.fast.shaped(latents))
        return (end - goal[:, None]).square().mean(dim=-1).double()


def load_slow_world(folder: str | os.PathLike[str], fast: object) -> SlowWorld:
    """Load the slow world model of a run folder, for planning on two levels with the fast one.

    Raises:
        CheckpointError: no slow world model there, or one that does not belong to the fast one.
        DataError: ``fast`` is no world model.
    """
    place = Path(folder)
    if not isinstance(fast, LatentWorld):
        raise DataError(f"an upper model stands on a world model (--model FOLDER), not on a {type(fast).__name__}.")
    said = provenance_of(place)
    stride, pieces = said.get("stride", 1), said.get("pieces", 1)
    parts = [place / name for name in ("encoder", "predictor", "readout")]
    if not all(part.is_dir() for part in parts) or not isinstance(stride, int) or not isinstance(pieces, int):
        raise CheckpointError(
            f"{place} holds no world model of a slower level. Train one: pdessl pretrain --config world/tracer_slow "
            "--set model.encoder.init_args.checkpoint=RUN"
        )
    encoder, predictor, readout = (load(part) for part in parts)
    if not isinstance(readout, StateReadout):
        raise CheckpointError(f"{place / 'readout'} holds a {type(readout).__name__}; expected a StateReadout.")
    return SlowWorld(fast, Encoder.of(encoder), predictor, readout, Blocks(stride, pieces))
