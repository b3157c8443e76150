"""SimCLR: each view finds its partner among all other views of the batch."""

# B rows of this process, n rows over all processes, D embedding width

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.objectives.distributed import check_embeddings, gather_rows, mean_over_rows, row_share, unit_rows
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views, over_pairs

__all__ = ["SimCLR", "SimCLRTerms", "nt_xent"]


class SimCLRTerms(NamedTuple):
    """Terms of :class:`SimCLR`: the loss, the mean cosine of partners, and the share that find theirs first."""

    loss: Tensor
    cosine: Tensor
    accuracy: Tensor


def nt_xent(z: Tensor, z_prime: Tensor, temperature: float = 0.1, groups: Tensor | None = None) -> SimCLRTerms:
    """Normalised temperature-scaled cross entropy of partners against all other rows.

        ℓ_i = -u_i·u_p(i)/τ + log Σ_{k≠i} exp(u_i·u_k/τ),   mean over the 2n unit rows u of both views

    The denominator holds the partner and excludes the row itself: 2n - 1 terms. Each process computes the rows it owns
    against the rows of all: B · 2n similarities, not n².

    Args:
        z: embeddings of the first view, shape (B, D).
        z_prime: of the second, the same rows in the same order.
        temperature: τ > 0.
        groups: integers (B,), equal for samples that are not negatives of each other (windows of one run); those are
            left out of the denominators. None: every other sample is a negative.
    """
    with torch.autocast(z.device.type, enabled=False):
        mine = torch.stack((unit_rows(z), unit_rows(z_prime)))  # (2, B, D)
        every = [gather_rows(view) for view in mine]
        n, start = every[0].shape[0], row_share(z)[0]
        sample = torch.arange(n, device=z.device)
        owned = sample[start : start + z.shape[0]]
        other = owned[:, None] != sample
        excluded = torch.zeros_like(other)
        if groups is not None:
            names = gather_rows(groups.to(z.device))
            excluded = (names[start : start + z.shape[0], None] == names) & other
        losses, hits = [], []
        cosines = (mine[0] * mine[1]).sum(dim=-1)
        for view in (0, 1):
            within = (mine[view] @ every[view].T / temperature).masked_fill(~other | excluded, -torch.inf)
            across = (mine[view] @ every[1 - view].T / temperature).masked_fill(excluded, -torch.inf)
            similarities = torch.cat((across, within), dim=1)
            losses.append(torch.logsumexp(similarities, dim=1) - cosines / temperature)
            hits.append(similarities.detach().argmax(dim=1) == owned)
        both = torch.stack((torch.stack(losses, dim=1), torch.stack(hits, dim=1).to(cosines.dtype)), dim=-1)
        return SimCLRTerms(
            mean_over_rows(both[..., 0]), mean_over_rows(cosines.detach()), mean_over_rows(both[..., 1].detach())
        )


class SimCLR(nn.Module):
    """Contrastive baseline: a view must be closer to its partner than to any other sample of the batch (NT-Xent).

        loss = mean over 2n rows of  -cos(z_i, z_p(i))/τ + log Σ_{k≠i} exp(cos(z_i, z_k)/τ)

    Behaviour: log(2n - 1) when all rows are equal. A row's scale and a common rotation do not enter. Two windows of one
    run are labelled negatives unless ``groups`` says that they belong together.

    Args:
        temperature: τ > 0; 0.1 for large batches, 0.5 for small ones.

    Shapes:
        z, z' (B, D), any float dtype -> SimCLRTerms of scalars in float32 (float64 in, float64 out). Negatives are
        the rows of all ranks; batches may differ in size.

    Raises:
        ShapeError: z and z' differ in shape, or are not (B, D); groups that are not (B,).
        DataError: a non-finite entry.
        ValueError: fewer than 2 rows over all ranks, or a temperature <= 0.

    Source: Chen, Kornblith, Norouzi, Hinton (2020), arXiv:2002.05709, eq. 1.
    """

    choose_when: ClassVar[str] = "two views; contrastive baseline: large batches of really different samples"

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"SimCLR: temperature is {temperature}; expected a number > 0.")
        self.temperature = temperature

    def forward(self, views: Views) -> Terms:
        """Return the terms, the mean over pairs of views."""
        return over_pairs(views, lambda v, w: self.terms(views[v].embedding, views[w].embedding), "SimCLR")

    def terms(self, z: Tensor, z_prime: Tensor, groups: Tensor | None = None) -> SimCLRTerms:
        """Return the terms for embeddings of two views, the same rows in the same order.

        Args:
            z: embeddings of the first view, (B, D).
            z_prime: of the second.
            groups: integers (B,), equal for samples that are not negatives of each other; None for none.
        """
        check_embeddings("SimCLR", (z, z_prime))
        if groups is not None and groups.shape != z.shape[:1]:
            raise ShapeError(f"SimCLR got groups {tuple(groups.shape)}; expected one integer per row, ({len(z)},).")
        return nt_xent(z, z_prime, self.temperature, groups)
