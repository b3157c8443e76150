"""The shards of a dataset made by the workers of a Dask cluster: bitwise those of one machine, in one manifest."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pdessl.data.manifest import REPAIR_WRITING
from pdessl.data.production import make_shard
from pdessl.data.recipe import DatasetRecipe, import_simulator
from pdessl.errors import DependencyError, PdesslError, StoreError
from pdessl.files import checksum, versions, write_bytes

__all__ = ["cluster_shards", "connect", "import_distributed"]

RETRIES = 3  # of one shard, after errors of the machine it ran on; a worker that dies does not count
CONNECT_SECONDS = 20.0
WORKER_SECONDS = 120.0


def cluster_shards(
    recipe: DatasetRecipe,
    folder: Path,
    todo: list[tuple[str, int, int]],
    device: str,
    workers: int | None,
    scheduler: str,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (split, manifest entry) of shards as the workers of a cluster finish them, in any order.

    A worker that sees ``folder`` (a shared file system) writes there; another sends the shard's bytes, which are
    written here. Either way the file's checksum is compared with the worker's before the entry is yielded. A shard
    whose worker dies is made by another.

    Args:
        recipe: the dataset.
        folder: folder of the store, which must exist.
        todo: (split, start, count) of the shards to make.
        device: where a worker simulates.
        workers: threads per task; default 1, so that a worker's own threads make one shard each.
        scheduler: address of the Dask scheduler, ``tcp://host:port``.

    Raises:
        DependencyError: the package distributed is not installed.
        StoreError: no scheduler or no worker there, other versions on a worker, or a shard that keeps failing.
    """
    distributed = import_distributed()
    with connect(distributed, scheduler) as client, _marked(folder) as marker:
        waiting = iter(todo)
        running = distributed.as_completed(loop=client.loop)
        jobs: dict[Any, tuple[str, int, int]] = {}
        failures: dict[tuple[str, int, int], int] = {}

        def submit(job: tuple[str, int, int]) -> None:
            name = f"pdessl-{recipe.name}-{job[0]}-{job[1]}-{uuid.uuid4().hex[:8]}"
            task = (recipe.name, dict(recipe.content), *job, device, workers or 1, str(marker), versions())
            future = client.submit(_make, *task, key=name, pure=False)
            jobs[future] = job
            running.add(future)

        while True:
            # No more than keeps every worker busy: a shard waits in a worker's memory until it is written.
            while len(jobs) < 2 * sum(client.nthreads().values()) + 1 and (job := next(waiting, None)):
                submit(job)
            if not jobs:
                return
            future = next(running)
            job = jobs.pop(future)
            try:
                yield job[0], _receive(folder, *future.result())
            except distributed.KilledWorker as error:
                raise StoreError(
                    f"shard {job[1]} of split '{job[0]}' killed {error.allowed_failures + 1} workers one after another"
                    f", most likely for want of memory. Lower shard_size or give the workers more; finished shards are "
                    f"kept, continue with --resume (resume=True)."
                ) from None
            except PdesslError:
                raise
            except Exception as error:
                failures[job] = failures.get(job, 0) + 1
                if failures[job] > RETRIES:
                    raise StoreError(
                        f"shard {job[1]} of split '{job[0]}' failed {failures[job]} times on the cluster: "
                        f"{type(error).__name__}: {error}. Finished shards are kept; continue with --resume "
                        f"(resume=True)."
                    ) from error
                submit(job)


def import_distributed() -> ModuleType:
    """Return the package distributed.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import distributed
    except ImportError:
        raise DependencyError("a Dask cluster needs the package 'distributed': pip install 'pdessl[dask]'") from None
    return distributed


@contextlib.contextmanager
def connect(distributed: ModuleType, scheduler: str) -> Iterator[Any]:
    """Give a client of the scheduler at an address, once it has a worker.

    Raises:
        StoreError: no scheduler or no worker there.
    """
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise StoreError(
            f"no Dask scheduler at '{scheduler}': {str(error).splitlines()[0]}. Start one with 'dask scheduler' and "
            f"give the address it prints, tcp://host:port."
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            raise StoreError(
                f"the Dask scheduler at {scheduler} has no workers. Start some: dask worker {scheduler}"
            ) from None
        yield client


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """Put a file into the folder by which workers find out whether they see the same folder."""
    marker = folder.resolve() / f".{uuid.uuid4().hex}.tmp"
    marker.touch()
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def _make(
    name: str,
    content: Mapping[str, Any],
    split: str,
    start: int,
    count: int,
    device: str,
    workers: int,
    marker: str,
    expected: Mapping[str, str],
) -> tuple[dict[str, Any], bytes | None]:
    """Make a shard on a worker; return its entry, and its bytes unless it lies in the store's folder already."""
    differ = [f"{n} {versions().get(n)} (here {v})" for n, v in expected.items() if versions().get(n) != v]
    if differ:
        raise StoreError(
            f"a worker of the cluster has {', '.join(differ)}; its shards would differ. Install the same versions "
            f"there."
        )
    import_simulator(content)  # the process that asks for it has imported it, or was allowed to
    recipe, shared = DatasetRecipe(name, content), Path(marker)
    if shared.exists():
        return make_shard(recipe, shared.parent, split, start, count, device, workers), None
    with tempfile.TemporaryDirectory() as temporary:
        entry = make_shard(recipe, Path(temporary), split, start, count, device, workers)
        return entry, (Path(temporary) / entry["file"]).read_bytes()


def _receive(folder: Path, entry: dict[str, Any], image: bytes | None) -> dict[str, Any]:
    """Write a shard that came as bytes, compare the checksum, return the entry."""
    path = folder / entry["file"]
    if image is not None:
        write_bytes(path, image, REPAIR_WRITING)
    if not path.is_file() or checksum(path) != entry["sha256"]:
        raise OSError(f"{path} is not what the worker wrote")
    for leftover in folder.glob(f".{path.name}.*.tmp"):  # of a worker that was killed while it wrote this shard
        leftover.unlink(missing_ok=True)
    return entry
