import torch

from pdessl.objectives.distributed import gather_rows, row_count, sum_over_processes

from .embeddings import on_processes


def _gather_and_sum(rank):
    rows = (torch.arange(2.0 + rank) + 10 * rank)[:, None].requires_grad_()
    gathered = gather_rows(rows)
    weights = torch.arange(1.0, 1 + gathered.shape[0])[:, None]
    # A nonlinear loss of all rows and of their sum, computed by both processes.
    ((weights * gathered**2).sum() + sum_over_processes(rows.sum()) ** 2).backward()
    return gathered.flatten().tolist(), row_count(rows), rows.grad.flatten().tolist()


def test_gather_and_sum_are_exact_for_unequal_batches():
    results = on_processes(_gather_and_sum)
    rows = torch.tensor([0.0, 1.0, 10.0, 11.0, 12.0], requires_grad=True)
    ((torch.arange(1.0, 6.0) * rows**2).sum() + rows.sum() ** 2).backward()
    for gathered, count, _ in results:
        assert gathered == rows.tolist()
        assert count == 5
    # Averaged over the two processes (DDP) this is the full-batch gradient, so each holds twice its own rows' share.
    assert results[0][2] + results[1][2] == (2 * rows.grad).tolist()


def test_one_process_passes_tensors_through():
    rows = torch.ones(3, 2)
    assert gather_rows(rows) is rows
    assert sum_over_processes(rows) is rows
    assert row_count(rows) == 3
