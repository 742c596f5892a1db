"""Make what is missing of a zoo, and nothing else."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from ..progress import Progress, track
from ._blueprint import Blueprint
from ._errors import DamagedZooError, ZooError
from ._files import data_root, locked, remove_leftovers
from ._population import Zoo
from ._store import (
    MANIFEST,
    Shard,
    finish,
    open_zoo,
    read_manifest,
    recipe_hash,
    save_shard,
    shard_name,
    shard_problem,
)

log = logging.getLogger(__name__)
Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one shard will hold: the networks ``start`` to ``stop`` of an architecture."""

    architecture: str
    number: int
    start: int
    stop: int
    work: int  # in the units of the progress bar

    @property
    def file(self) -> str:
        """Name of the shard."""
        return shard_name(self.architecture, self.number)


@runtime_checkable
class Maker(Protocol):
    """What makes a zoo. ``make`` must depend on the recipe and the chunk alone: shards are remade
    bit for bit."""

    name: str
    unit: str  # of the progress bar

    def recipe(self) -> dict[str, Any]:
        """What decides about every number of the zoo, plain JSON: its hash names the folder."""

    def described(self) -> dict[str, Blueprint]:
        """How the networks of every architecture are built, by its name."""

    def chunks(self) -> Sequence[Chunk]:
        """What the shards will hold."""

    def make(self, chunk: Chunk, tick: Tick) -> Shard:
        """Train the networks of a chunk; ``tick(work)`` says how much more of it is done."""


def make_chunks(architecture: str, at_most: int, work: Sequence[int]) -> list[Chunk]:
    """Cut networks, one per entry of ``work``, into chunks of nearly equal size."""
    networks = len(work)
    pieces = -(-networks // at_most)
    bounds = [networks * i // pieces for i in range(pieces + 1)]
    return [
        Chunk(
            architecture=architecture,
            number=number,
            start=start,
            stop=stop,
            work=sum(work[start:stop]),
        )
        for number, (start, stop) in enumerate(itertools.pairwise(bounds))
    ]


def zoo_folder(maker: Maker, root: str | None) -> Path:
    """Where the zoo of this recipe lies: every recipe has its own folder."""
    return data_root(root) / f"{maker.name}-{recipe_hash(maker.recipe())}"


def load_or_make(maker: Maker, root: str | None = None, progress: bool = True) -> Zoo:
    """The zoo of a maker: read if it is there and sound; else what is missing or damaged is made
    (again) first.

    A run that was stopped, in whatever way, is continued by the next one and ends with the same
    bits. Processes that want the same zoo at the same time wait for the one that makes it.
    """
    folder = zoo_folder(maker, root)
    try:
        return _open(folder, maker)
    except ZooError:
        pass  # said below, under the lock: perhaps another process is at it
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(
            f"the folder {folder} for the zoo cannot be made ({error.strerror}). Choose another root "
            "with METANET_DATA"
        ) from error
    with locked(folder):
        if (folder / MANIFEST).exists():
            try:
                return _open(folder, maker)
            except DamagedZooError as error:
                for name, what in error.problems.items():
                    log.warning("%s is damaged (%s) and is made again", folder / name, what)
        remove_leftovers(folder)
        _make_missing(folder, maker, progress)
        finish(
            folder,
            maker.name,
            maker.recipe(),
            maker.described(),
            [(chunk.file, chunk.architecture) for chunk in maker.chunks()],
        )
    return _open(folder, maker)


def _open(folder: Path, maker: Maker) -> Zoo:
    if (recipe := read_manifest(folder).recipe) != maker.recipe():
        raise ZooError(
            f"{folder} holds a zoo of another recipe: {recipe}, where {maker.recipe()} is asked for. "
            "Move that folder away or use another root (METANET_DATA)"
        )
    return open_zoo(folder)


def _recorded(folder: Path) -> dict[str, str]:
    try:
        return {file: entry.sha256 for file, entry in read_manifest(folder).files.items()}
    except ZooError:
        return {}


def _unmade(folder: Path, chunks: Sequence[Chunk], recorded: Mapping[str, str]) -> list[Chunk]:
    """The chunks whose shards are not there, or are not whole.

    Args:
        recorded: the files that the manifest knows: what is wrong with these was said before.
    """
    unmade = []
    for chunk in chunks:
        path = folder / chunk.file
        problem = shard_problem(path)
        if problem is None:
            continue
        unmade.append(chunk)
        if problem != "missing" and chunk.file not in recorded:
            log.warning("%s was left by an earlier run (%s) and is made again", path, problem)
    return unmade


def _raise_cause(jobs: Iterable[Future[None]]) -> None:
    """Raise why jobs failed, if any did: not the mark of those that were only stopped."""
    failures = [error for job in jobs if job.done() and (error := job.exception()) is not None]
    causes = [error for error in failures if not isinstance(error, _Stopped)]
    for error in [*causes, *failures]:
        raise error


def _make_missing(folder: Path, maker: Maker, progress: bool) -> None:
    """Make the shards that are not there, side by side.

    Raises:
        BaseException: whatever the first to fail raised; the others stop at their next tick.
    """
    chunks = maker.chunks()
    recorded = _recorded(folder)
    missing = _unmade(folder, chunks, recorded)
    if not missing:
        return
    log.info(
        "making %d of %d shards of the zoo %s in %s", len(missing), len(chunks), maker.name, folder
    )
    work = sum(chunk.work for chunk in chunks)
    before = work - sum(chunk.work for chunk in missing)
    bar: Progress[Chunk] = track(
        what=f"zoo {maker.name}", total=work, initial=before, unit=maker.unit, show=progress
    )
    stop = threading.Event()

    def tick(work: int) -> None:
        if stop.is_set():
            raise _Stopped
        bar.update(work)

    def make(chunk: Chunk) -> None:
        if stop.is_set():
            raise _Stopped
        began = time.perf_counter()
        digest = save_shard(folder / chunk.file, maker.make(chunk, tick))
        log.info("made %s in %.1f s", chunk.file, time.perf_counter() - began)
        if recorded.get(chunk.file, digest) != digest:
            log.warning(
                "%s is not the same as before, bit for bit: it was made by another torch or processor. "
                "The zoo is whole, with the new networks in the table",
                folder / chunk.file,
            )

    # Chunks run side by side, each in operations of one thread: tiny networks gain little from two
    # threads an operation (1.3 times, against 1.9), and the bits of a zoo then do not depend on the
    # number of cores.
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        min(threads, len(missing)), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        jobs = [pool.submit(make, chunk) for chunk in missing]
        wait(jobs, return_when=FIRST_EXCEPTION)
        stop.set()
        _raise_cause(jobs)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        bar.close()
        # this thread's own number never changed, MKL's global one did
        torch.set_num_threads(threads)


class _Stopped(Exception):
    """Another chunk has failed, or the user has interrupted: give up at the next tick."""
