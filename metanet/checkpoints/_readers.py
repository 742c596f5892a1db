"""``load_checkpoint``: finds the reader of a path's format, and takes off what training code wraps around names."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ._mapping import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One format: ``accepts`` looks at the path only, ``read`` opens it."""

    format: str
    accepts: Callable[[Path], bool]
    read: Callable[[Path], Checkpoint]


READERS: list[Reader] = []


def reader(format: str, accepts: Callable[[Path], bool]) -> Callable:
    """Register a function ``(path) -> Checkpoint`` as the reader of the paths that ``accepts`` takes.

    Args:
        format: how error messages call it, with its suffixes.
        accepts: says whether the path is of this format, by name or kind alone; the first reader that accepts reads.
    """

    def register(read: Callable[[Path], Checkpoint]) -> Callable[[Path], Checkpoint]:
        READERS.append(Reader(format=format, accepts=accepts, read=read))
        return read

    return register


def load_checkpoint(path: str | os.PathLike, unwrap: bool = True) -> Checkpoint:
    """Open a checkpoint: a mapping from names to tensors on the CPU, each read when it is asked for.

    Formats: safetensors (``.safetensors``) and what ``torch.save`` writes (``.pt``, ``.pth``, ``.bin``, ``.ckpt``; zip
    and the older format), of which only tensors and plain containers are read, so that no file can run code. Shapes and
    dtypes are known without reading data.

    Args:
        path: the file.
        unwrap: drop the prefix ``module.`` (DistributedDataParallel) if every name has it, and ``_orig_mod.``
            (torch.compile) wherever it stands. ``False`` gives the names as stored.

    Raises:
        CheckpointError: the file is missing, empty, damaged, of an unknown format, or holds objects that are no tensors
            and could run code; the message names the file and the reason.
    """
    path = Path(path)
    found = next((each for each in READERS if each.accepts(path)), None)
    if not path.exists():
        raise CheckpointError(f"checkpoint '{path}' does not exist{_nearby(path)}")
    formats = "; ".join(each.format for each in READERS)
    if found is None and path.is_dir():
        raise CheckpointError(f"checkpoint '{path}' is a folder; give a file: {formats}")
    if found is None:
        raise CheckpointError(f"checkpoint '{path}' has the unknown suffix {path.suffix!r}; known: {formats}")
    if path.is_file() and path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint '{path}' is empty (0 bytes): its writing was cut off. Restore or remake it.")
    try:
        checkpoint = found.read(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' can't be read: {error.strerror or error}") from error
    return checkpoint.rename(_bare_names(path, checkpoint)) if unwrap else checkpoint


def _bare_names(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Stored name -> name without the prefixes that DistributedDataParallel and torch.compile put before it."""
    bare = {name: name.replace("_orig_mod.", "") for name in names}
    while bare and all(name.startswith("module.") for name in bare.values()):
        bare = {stored: name.removeprefix("module.") for stored, name in bare.items()}
    if len(set(bare.values())) < len(bare):
        raise CheckpointError(
            f"checkpoint '{path}': without the prefix _orig_mod. two tensors have one name; "
            f"load_checkpoint(path, unwrap=False) gives them as stored"
        )
    return bare


def _nearby(path: Path) -> str:
    """What the folder has instead, for the message about a missing file."""
    if not path.parent.is_dir():
        return f": nor does its folder '{path.parent}'"
    names = sorted(each.name for each in path.parent.iterdir() if any(known.accepts(each) for known in READERS))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; its folder has {', '.join(names[:5])}{more}" if names else "; its folder holds no checkpoint"
