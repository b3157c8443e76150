"""Codes of a law as targets: an encoder of a poor view must say what the law reads from the whole run."""

# B batch, R codes

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives.distributed import check_embeddings, full_precision, row_count, sum_over_processes
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views, name_of

__all__ = ["CodeDistillation", "CodeDistillationTerms"]


@runtime_checkable
class _Coded(Protocol):
    codes: Tensor


class CodeDistillationTerms(NamedTuple):
    """Terms of :class:`CodeDistillation`: ``missed`` is the mean square of what is missed, 1 for the mean of all."""

    loss: Tensor
    missed: Tensor


class CodeDistillation(nn.Module):
    """The embedding of a view must be the code that a law reads from the *whole* run.

        loss = mean over rows and codes of  h(e_r - (t_r - m_r) / s_r),      t = log |z|  or  z

    h(d) = d²/2 up to |d| = 1 and |d| - 1/2 beyond (a code that the law got wrong must not lead), m and s: mean and
    deviation of the targets over the first batch, kept with the weights. The teacher is a least-squares solve that
    needs long, fine and clean runs; the student is shown runs that are none of these, and may know more of what such
    fields look like than the solve, which knows the law alone.

    Args:
        codes: R.
        logarithm: targets are log |z|, as a parameter whose relative error counts asks for.

    Shapes:
        e (B, R), z (B, R): ``codes`` of the element that the views were drawn with
        (:class:`pdessl.operators.DegradedViews`). Means run over the rows of all processes.

    Raises:
        SchemaError: views whose element has no codes, or codes below 1.
        ShapeError: embeddings of another shape than the codes.
        DataError: an entry that is not finite.

    Source: distillation: Hinton, Vinyals, Dean (2015), arXiv:1503.02531; of a law's codes: ours.
    """

    choose_when: ClassVar[str] = "runs to be read are coarser, shorter or noisier than those that a law was found in"
    mean: Tensor
    deviation: Tensor

    def __init__(self, codes: int = 1, logarithm: bool = True) -> None:
        super().__init__()
        if codes < 1:
            raise SchemaError(f"CodeDistillation got codes {codes}; expected at least 1, the rank of the law.")
        self.logarithm = logarithm
        # In float64: a scale rounded otherwise on another number of processes would be another loss.
        self.register_buffer("mean", torch.zeros(codes, dtype=torch.float64))
        self.register_buffer("deviation", torch.zeros(codes, dtype=torch.float64))

    def forward(self, views: Views) -> Terms:
        """Return the terms, means over views."""
        found = []
        for view in views:
            if not isinstance(view.element, _Coded):
                raise SchemaError(
                    f"{name_of(self)} needs the code of each run, and the augmentation drew none; make the views with "
                    "pdessl.operators.DegradedViews, which has a law."
                )
            found.append(Terms.of(self.terms(view.embedding, view.element.codes)))
        return Terms.mean(found)

    def terms(self, e: Tensor, codes: Tensor) -> CodeDistillationTerms:
        """Return the terms; see the class for shapes."""
        if e.shape[1:] != self.mean.shape:
            raise ShapeError(
                f"CodeDistillation of {len(self.mean)} codes got embeddings {tuple(e.shape)}; expected "
                f"(B, {len(self.mean)}): give the encoder as many features."
            )
        check_embeddings("CodeDistillation", (e, codes), min_rows=1)
        with torch.autocast(e.device.type, enabled=False):
            e, n = full_precision(e), row_count(e)
            target = (codes.abs().clamp_min(1e-30).log() if self.logarithm else codes).to(e)
            if not bool((self.deviation > 0).any()):
                first = target.detach()
                mean = sum_over_processes(first.sum(dim=0)) / n
                spread = sum_over_processes((first - mean).square().sum(dim=0)) / n
                self.mean.copy_(mean)
                self.deviation.copy_(spread.sqrt().clamp_min(1e-6))  # codes that are all alike teach nothing
            missed = e - (target - self.mean.to(e)) / self.deviation.to(e)
            size = missed.abs()
            loss = torch.where(size <= 1, missed.square() / 2, size - 0.5).mean(dim=1)
            square = missed.detach().square().mean(dim=1)
            return CodeDistillationTerms(
                sum_over_processes(loss.sum(dim=0)) / n, sum_over_processes(square.sum(dim=0)) / n
            )
