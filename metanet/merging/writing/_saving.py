"""Writing a merge: shard by shard beside the output's folder, which appears as a whole or not at
all."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from ...checkpoints import (
    Checkpoint,
    files_of,
    hold,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    unwritable,
)
from ...errors import CheckpointError, MetanetError
from ...progress import Progress, track
from ._parts import mains_of, plan_of, restricted, write_indexes

Files = Mapping[str, bytes | Path]


def save_merged(
    folder: str | os.PathLike,
    tensors: Checkpoint,
    *,
    recipe: Mapping[str, Any],
    files: Files | Callable[[dict[str, str]], Files] | None = None,
    max_shard_size: str | int = "5GB",
    progress: bool = False,
    parts: Sequence[str] = (),
) -> dict[str, str]:
    """Compute a merge's tensors one by one and write them to a new folder.

    Other files may be written beside them.

    All is written to a hidden folder beside ``folder``, shard by shard, and renamed at the end. A
    merge that was stopped, killed or out of disk leaves its finished shards there; the same merge
    of the same files goes on from them. Meanwhile a second thread computes the SHA-256 of the input
    files.

    Args:
        folder: a new or empty folder.
        tensors: what :func:`metanet.merge` returned, or the same under other names.
        recipe: ``merged.recipe``.
        files: what else goes into the folder: name -> content, or a file to be copied; or a
            function that makes them, given the inputs' hashes.
        max_shard_size: bytes of tensors in one file, as a number or like ``"5GB"``.
        progress: show a bar with bytes and time left.
        parts: sub-folders of a pipeline: tensors called ``PART/NAME`` are written there, as
            ``NAME``, and so are ``files``.

    Returns:
        SHA-256 by path, of all files of all inputs that are files.

    Raises:
        MetanetError: the folder is not empty, another process writes there, or the disk is (or
            gets) full; there is nothing under its name then.
        CheckpointError: an input can't be read, was changed meanwhile, or holds what can't be
            merged.
    """
    folder = Path(folder).expanduser().absolute()
    with hold(folder):
        check_free(folder)
        plan = plan_of(tensors, max_shard_size, parts)
        inputs = _input_files(recipe)
        work = folder.with_name(
            f".{folder.name}.{_fingerprint(tensors, plan, recipe, inputs)}.partial"
        )
        try:
            hashes = _fill(work, tensors, plan, inputs, files, parts, progress)
            if folder.is_dir():
                folder.rmdir()  # empty, or this fails
            os.replace(work, folder)
            remove_leftovers(
                folder, r"{name}\.[0-9a-f]{12}\.partial"
            )  # of other merges, which can't end here any more
        except OSError as error:
            raise MetanetError(f"{unwritable(folder, error)}{_waiting(work, plan)}") from error
        except MetanetError as error:
            if not _is_of_the_surroundings(error):
                shutil.rmtree(
                    work, ignore_errors=True
                )  # of these inputs nothing can be made: nobody goes on with it
                raise
            raise type(error)(
                f"{str(error).replace(str(work), str(folder))}{_waiting(work, plan)}"
            ) from error
        finally:
            if not _finished(work, plan):
                shutil.rmtree(work, ignore_errors=True)
    return hashes


def _fill(
    work: Path,
    tensors: Checkpoint,
    plan: Mapping[str, Sequence[str]],
    inputs: Sequence[Path],
    files: Files | Callable[[dict[str, str]], Files] | None,
    parts: Sequence[str],
    progress: bool,
) -> dict[str, str]:
    """All that the folder gets, as far as it isn't there yet; returns the inputs' hashes."""
    work.mkdir(parents=True, exist_ok=True)
    for unfinished in work.glob(".*.partial.*"):  # half a shard, of a process that was killed
        unfinished.unlink()
    sizes = {file: _size(tensors, names) for file, names in plan.items()}
    done = [
        file
        for file, names in plan.items()
        if _is_done(work, file, restricted(tensors, names, file))
    ]
    _check_room(work, sum(size for file, size in sizes.items() if file not in done))
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(_hashes, inputs)
        _write_shards(work, tensors, plan, done, progress)
        hashes = hashing.result()
    write_indexes(work, tensors, plan)
    for part in parts:
        (work / part).mkdir(exist_ok=True)
    _write_files(work, files(hashes) if callable(files) else files or {}, plan)
    return hashes


def _finished(work: Path, plan: Mapping[str, Sequence[str]]) -> int:
    return sum((work / name).is_file() for name in plan)


def _waiting(work: Path, plan: Mapping[str, Sequence[str]]) -> str:
    """What the same merge need not compute again, for messages."""
    count = _finished(work, plan)
    return (
        f" {count} of {len(plan)} shards are finished and wait in {work} for the same merge."
        if count
        else ""
    )


def _is_of_the_surroundings(error: BaseException | None) -> bool:
    """Whether a full disk or the like is behind an error, rather than the inputs."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None


def check_free(folder: Path, called: str = "") -> None:
    """Refuse to write where something is.

    Args:
        called: what to put before the folder in the message, ``out=``.

    Raises:
        MetanetError: it is a file, or a folder that is not empty.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        what = "is not empty" if folder.is_dir() else "is a file"
        why = "so that nothing is overwritten"
        raise MetanetError(f"{called}{folder} {what}: give a folder that does not exist yet, {why}")


def _input_files(recipe: Mapping[str, Any]) -> list[Path]:
    """Of all inputs that are files, in order, each once."""
    opened = [load_checkpoint(path) for path in _paths(recipe) if Path(path).exists()]
    mains = [main for checkpoint in opened for main in mains_of(checkpoint)]
    return list(dict.fromkeys(path for main in mains for path in files_of(main)))


def _paths(recipe: Mapping[str, Any]) -> list[str]:
    """What the inputs are called; those in memory have no file of that name."""
    base = [] if recipe["base"] is None else [recipe["base"]]
    return [*recipe["models"], *base]


def _fingerprint(
    tensors: Checkpoint,
    plan: Mapping[str, Sequence[str]],
    recipe: Mapping[str, Any],
    inputs: Sequence[Path],
) -> str:
    """The same for the same merge of the same files, and for no other."""
    stats = []
    for path in inputs:
        known = path.stat()
        stats.append((str(path.absolute()), known.st_size, known.st_mtime_ns))
    in_memory = not all(Path(path).exists() for path in _paths(recipe))
    unknown = uuid.uuid4().hex if in_memory else ""
    described = {}
    for name, shape in tensors.shapes.items():
        described[name] = [list(shape), str(tensors.dtypes[name])]
    text = json.dumps([recipe, stats, unknown, described, plan], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_done(work: Path, file: str, shard: Checkpoint) -> bool:
    """Whether a shard is there as a whole: its name is given when it is."""
    if not (work / file).is_file():
        return False
    written = load_checkpoint(work / file, unwrap=False)
    return dict(written.shapes) == dict(shard.shapes) and dict(written.dtypes) == dict(shard.dtypes)


def _size(tensors: Checkpoint, names: Sequence[str]) -> int:
    return sum(tensors.shapes[name].numel() * tensors.dtypes[name].itemsize for name in names)


def _check_room(work: Path, needed: int) -> None:
    free = shutil.disk_usage(work).free
    if free < needed:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise unwritable(work, full, needed) from full


def _write_shards(
    work: Path,
    tensors: Checkpoint,
    plan: Mapping[str, Sequence[str]],
    done: Sequence[str],
    progress: bool,
) -> None:
    sizes = {name: _size(tensors, shard) for name, shard in plan.items()}
    before = sum(sizes[name] for name in done)
    bar: Progress[Any] = track(
        what="merge",
        total=sum(sizes.values()),
        initial=before,
        unit="B",
        scaled=True,
        show=progress,
    )
    with bar:
        for name, shard in plan.items():
            if name not in done:
                save_checkpoint(work / name, _counted(restricted(tensors, shard, name), bar))


def _counted(shard: Checkpoint, bar: Progress[Any]) -> Checkpoint:
    """The tensors of a shard, each telling the bar when it is there."""

    def count(name: str, tensor: Tensor) -> Tensor:
        bar.update(tensor.numel() * tensor.dtype.itemsize)
        return tensor

    return shard.mapped(count)


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    out = {}
    for path in files:
        try:
            with path.open("rb") as file:
                out[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(
                f"checkpoint '{path}' can't be read: {error.strerror or error}"
            ) from error
    return out


def _write_files(work: Path, files: Files, plan: Mapping[str, Sequence[str]]) -> None:
    parts = {"", *(path.name for path in work.iterdir() if path.is_dir())}
    for name, content in files.items():
        part, _, plain = name.rpartition("/")
        strange = part not in parts or Path(plain).name != plain
        if strange or name in plan or name.endswith(".safetensors.index.json"):
            raise MetanetError(
                f"can't write {name!r} into the merge's folder: no plain name, or taken by the "
                "weights"
            )
        if isinstance(content, bytes):
            (work / name).write_bytes(content)
        else:
            shutil.copyfile(content, work / name)
