"""What an encoder says of runs as an embedding network of other programs: the frozen input of a posterior estimator."""

# B runs, C channels, T frames, X space, F features

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdessl.errors import FormatError, ShapeError
from pdessl.inference.encoding import RunEncoder, features
from pdessl.trajectory import Trajectories

__all__ = ["RunEmbedding"]

_TINY = 1e-12
_SAME = 1e-6  # relative: axes of runs that differ by less are the same


class RunEmbedding(nn.Module):
    """Standardised features of runs whose fields come as bare tensors, from an encoder that stays as it is.

        embedding(fields) = (features(fields) - mean)/deviation

    For the ``embedding_net`` of ``sbi`` (https://sbi.readthedocs.io), which knows fields and no coordinates: time and
    space are those of the runs it was made with. Nothing of it is trained; where many passes are made over the same
    runs, embed them once and give the estimator what comes out.

    Args:
        encoder: network, law (its codes are the features), or anything that makes features of runs.
        runs: with a common grid; their features set mean and deviation. Features that do not vary among them are 0.

    Shapes:
        fields (B, C, T, *X), in the units of the runs -> (B, F), float32.

    Raises:
        FormatError: runs of different times or lengths.
        ShapeError: fields of another shape than those of the runs.
    """

    def __init__(self, encoder: nn.Module | RunEncoder, runs: Trajectories) -> None:
        super().__init__()
        bare = runs.without_parameters()
        for name, values in (("times", runs.time - runs.time[:, :1]), ("lengths", runs.lengths)):
            if bool(((values - values[:1]).abs() > _SAME * values.abs().max()).any()):
                raise FormatError(
                    f"the runs have different {name}; fields alone do not tell them. Embed runs of one grid, or bring "
                    "them to it first (ds.interp)."
                )
        # In a tuple: what is no submodule is neither trained, nor switched to training, nor saved with an estimator.
        self._held = (encoder, bare[:1])
        found = features(encoder, bare).double()
        deviation = found.std(dim=0)
        constant = deviation <= _TINY * found.abs().amax(dim=0).clamp_min(_TINY)
        # Parameters that want no gradient rather than buffers: sbi asks a network's first parameter for its device.
        inverse = torch.where(constant, torch.zeros_like(deviation), 1 / deviation)
        self.mean = nn.Parameter(found.mean(dim=0), requires_grad=False)
        self.scale = nn.Parameter(inverse, requires_grad=False)

    @property
    def width(self) -> int:
        """Number of features, F."""
        return len(self.mean)

    def forward(self, fields: Tensor) -> Tensor:
        """Return the embeddings of fields."""
        encoder, one = self._held
        if fields.ndim != one.fields.ndim or fields.shape[1:] != one.fields.shape[1:]:
            wanted = ", ".join(map(str, one.fields.shape[1:]))
            raise ShapeError(f"RunEmbedding got fields {tuple(fields.shape)}; expected (B, {wanted}).")
        runs = one[[0] * len(fields)].replace(fields=fields.detach().to(one.fields))
        with torch.no_grad():
            found = features(encoder, runs).to(self.mean)
        return ((found - self.mean) * self.scale).float()
