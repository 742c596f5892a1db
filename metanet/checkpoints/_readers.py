"""``load_checkpoint``: finds the reader of a path's format."""

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError, MetanetError, listed
from ..registry import Registry
from ._content import UNKNOWN, Kind, kind_of
from ._mapping import Checkpoint
from ._state_dicts import bare_names
from ._together import finish_saving

_FOREIGN = ("refuse", "inert")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What the caller of ``load_checkpoint`` asks for beyond the path.

    A reader takes what concerns its format.
    """

    key: str | None = None
    foreign_classes: str = "refuse"


Read = Callable[[Path, ReadOptions], Checkpoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One format.

    Attributes:
        format: how error messages call it, with its suffixes.
        accepts: looks at the path only.
        kinds: of the content of its files.
        function: opens it.
        first: it is asked before those that are not.
    """

    format: str
    accepts: Callable[[Path], bool]
    kinds: tuple[Kind, ...]
    function: Read
    first: bool = False


READERS: Registry[Reader] = Registry("reader of checkpoints", group="metanet.readers")
"""Every reader by its name; a path is read by the first that accepts it."""


def reader(
    name: str,
    format: str,
    accepts: Callable[[Path], bool],
    kinds: tuple[Kind, ...] = (),
    first: bool = False,
) -> Callable[[Read], Read]:
    """Register a function ``(path, options) -> Checkpoint`` as a reader of paths.

    It reads the paths that ``accepts`` takes.

    Args:
        name: of the reader; an entry point of the group ``metanet.readers`` has the same.
        format: how error messages call it, with its suffixes.
        accepts: says whether the path is of this format, by name or kind alone; the first reader
            that accepts reads.
        kinds: what its files are by their content, which counts for more than their names.
        first: ask this one before those that are there: it knows a special case of theirs.

    Raises:
        MetanetError: there is one of this name, or the function takes other arguments.
    """

    def register(function: Read) -> Read:
        count = len(inspect.signature(function).parameters)
        if count != 2:
            raise MetanetError(
                f"reader {name!r} in {function.__code__.co_filename}: {function.__name__} takes "
                f"{inspect.signature(function)}; it must take (path, options)"
            )
        entry = Reader(format=format, accepts=accepts, kinds=kinds, function=function, first=first)
        READERS.add(name, entry)
        return function

    return register


def in_order() -> list[Reader]:
    """All readers as they are asked: special cases first, the last registered of them foremost."""
    readers = list(READERS.values())
    special = [entry for entry in readers if entry.first]
    return [*reversed(special), *(entry for entry in readers if not entry.first)]


def load_checkpoint(
    path: str | os.PathLike,
    unwrap: bool = True,
    key: str | None = None,
    foreign_classes: Literal["refuse", "inert"] = "refuse",
) -> Checkpoint:
    """Open a checkpoint, a mapping from names to tensors.

    Each is read when it is asked for, onto the CPU.

    Formats: safetensors (``.safetensors``), what ``torch.save`` writes (``.pt``, ``.pth``,
    ``.bin``, ``.ckpt``; zip and the older format), the shards of either by their ``.index.json``,
    and a Hugging Face folder. Of torch files only tensors and plain containers are read, so that no
    file can run code. Shapes and dtypes are known without reading data.
    ``load_checkpoint(path).fit(model.state_dict())`` brings the names to those of a network and
    checks them.

    Args:
        path: the file, the index of a sharded checkpoint, or its folder. A folder's safetensors are
            preferred.
        unwrap: drop the prefix ``module.`` (DistributedDataParallel) if every name has it, and
            wherever they stand ``_orig_mod.`` (torch.compile), ``_fsdp_wrapped_module.``,
            ``_checkpoint_wrapped_module.`` and ``_forward_module.`` (Lightning). ``False`` gives
            the names as stored.
        key: the entry of a torch file to take, where it holds several state dicts (``"ema"``, or
            ``"model.generator"`` one level deeper). By itself, the one entry that is a state dict
            is found; averaged weights are taken only if they are asked for so.
        foreign_classes: ``"refuse"`` torch files that hold objects of other classes than tensors
            and plain containers, or read them with such objects replaced by ``"inert"``
            placeholders: nothing of them is imported or called, and ``Checkpoint.foreign`` lists
            what was met. That also reads a pickled ``nn.Module``: its state dict.

    Raises:
        CheckpointError: the path is missing, empty, damaged, of an unknown format, has missing
            shards or several checkpoints, or holds objects that are no tensors and could run code;
            the message names file and reason.
    """
    if foreign_classes not in _FOREIGN:
        raise MetanetError(
            f"foreign_classes={foreign_classes!r}: give one of {', '.join(_FOREIGN)}"
        )
    path = Path(path)
    finish_saving(path)
    checkpoint = open_path(path, ReadOptions(key=key, foreign_classes=foreign_classes))
    return checkpoint.rename(bare_names(path, checkpoint)) if unwrap else checkpoint


def open_path(path: Path, options: ReadOptions) -> Checkpoint:
    """The checkpoint at a path with its names as stored; readers of several files open each by
    it."""
    readers = in_order()
    if not path.exists():
        raise CheckpointError(f"checkpoint '{path}' does not exist{_nearby(path, readers)}")
    by_name = next((reader for reader in readers if reader.accepts(path)), None)
    try:
        reader = by_name if path.is_dir() else _by_content(path, by_name, readers)
        if reader is None:
            formats = "; ".join(reader.format for reader in readers)
            raise CheckpointError(
                f"checkpoint '{path}' has the unknown suffix {path.suffix!r}; known: {formats}"
            )
        return reader.function(path, options)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint '{path}' can't be read: {error.strerror or error}"
        ) from error


def _by_content(path: Path, by_name: Reader | None, readers: Sequence[Reader]) -> Reader | None:
    """The reader of what a file is: a torch file called ``x.safetensors`` is a torch file.

    Args:
        by_name: the reader that goes by the file's name; it judges what is of no known format, and
            reads what has no kind.

    Raises:
        CheckpointError: a file of another format, with what it is and what to do.
    """
    kind = kind_of(path)
    for reader in readers:
        if kind in reader.kinds:
            return reader
    is_index = by_name is not None and not by_name.kinds and kind.name == "json"
    if kind is UNKNOWN or is_index:
        return by_name
    advice = f" {kind.advice[:1].upper()}{kind.advice[1:]}." if kind.advice else ""
    raise CheckpointError(f"checkpoint '{path}' is {kind.says}.{advice}")


def _nearby(path: Path, readers: Sequence[Reader]) -> str:
    """What the folder has instead, for the message about a missing file."""
    if not path.parent.is_dir():
        return f": nor does its folder '{path.parent}'"
    files = [entry for entry in path.parent.iterdir() if not entry.is_dir()]
    names = sorted(f.name for f in files if any(reader.accepts(f) for reader in readers))
    return f"; its folder has {listed(names, 5)}" if names else "; its folder holds no checkpoint"
