"""The pinned embeddings of the objective tests, and a way to run a function on several gloo processes."""

import math
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def pinned():
    n, width = 8, 4
    z = [[math.sin(0.9 * i + 0.8 * d + 0.11 * i * d) + 0.1 * d for d in range(width)] for i in range(n)]
    z_prime = [[z[i][d] + 0.2 * math.cos(1.7 * i + 2.3 * d) for d in range(width)] for i in range(n)]
    return torch.tensor(z, dtype=torch.float64), torch.tensor(z_prime, dtype=torch.float64)


def draw(n, width, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, width, generator=generator, dtype=torch.float64)


def rotation(width, seed=6):
    return torch.linalg.qr(draw(width, width, seed=seed))[0]


def pair(n=14, width=4, seed=1):
    z = draw(n, width, seed=seed, scale=0.7) + 0.5
    return z, z + draw(n, width, seed=seed + 1, scale=0.4)


def _process(rank, world, port, function, arguments, queue):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        result = function(rank, *arguments)
        queue.put((rank, result))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def on_processes(function, *arguments, world=2):
    """Run ``function(rank, *arguments)`` on ``world`` gloo processes; return the results (plain data) in rank order."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    running = mp.spawn(_process, (world, port, function, arguments, queue), nprocs=world, join=False)
    results = dict(queue.get() for _ in range(world)) if _all_answer(running, queue, world) else {}
    while not running.join():
        pass
    return [results[rank] for rank in range(world)]


def _all_answer(running, queue, world):
    # A process that fails never puts a result: join raises its error instead of waiting for ever.
    while queue.empty():
        if running.join(timeout=0.1):
            return not queue.empty()
    return True
