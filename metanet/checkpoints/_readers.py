"""``load_checkpoint``: finds the reader of a path's format."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError, MetanetError, listed
from ._content import UNKNOWN, Kind, kind_of
from ._mapping import Checkpoint
from ._state_dicts import bare_names
from ._together import finish_saving

_FOREIGN = ("refuse", "inert")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller of ``load_checkpoint`` asks for beyond the path; a reader takes what concerns
    its format."""

    key: str | None = None
    foreign_classes: str = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One format: ``accepts`` looks at the path only, ``kinds`` are those of its content, ``read``
    opens it."""

    format: str
    accepts: Callable[[Path], bool]
    kinds: tuple[Kind, ...]
    read: "Read"


Read = Callable[[Path, Options], Checkpoint]
READERS: list[Reader] = []


def reader(
    format: str, accepts: Callable[[Path], bool], kinds: tuple[Kind, ...] = (), first: bool = False
) -> Callable[[Read], Read]:
    """Register a function ``(path, options) -> Checkpoint`` as the reader of the paths that
    ``accepts`` takes.

    Args:
        format: how error messages call it, with its suffixes.
        accepts: says whether the path is of this format, by name or kind alone; the first reader
            that accepts reads.
        kinds: what its files are by their content, which counts for more than their names.
        first: ask this one before those that are there: it knows a special case of theirs.
    """

    def register(read: Read) -> Read:
        READERS.insert(
            0 if first else len(READERS),
            Reader(format=format, accepts=accepts, kinds=kinds, read=read),
        )
        return read

    return register


def load_checkpoint(
    path: str | os.PathLike,
    unwrap: bool = True,
    key: str | None = None,
    foreign_classes: Literal["refuse", "inert"] = "refuse",
) -> Checkpoint:
    """Open a checkpoint: a mapping from names to tensors on the CPU, each read when it is asked
    for.

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
    checkpoint = open_path(path, Options(key=key, foreign_classes=foreign_classes))
    return checkpoint.rename(bare_names(path, checkpoint)) if unwrap else checkpoint


def open_path(path: Path, options: Options) -> Checkpoint:
    """The checkpoint at a path with its names as stored; readers of several files open each by
    it."""
    reader = next((each for each in READERS if each.accepts(path)), None)
    formats = "; ".join(each.format for each in READERS)
    if not path.exists():
        raise CheckpointError(f"checkpoint '{path}' does not exist{_nearby(path)}")
    try:
        if not path.is_dir():
            reader = _by_content(path, reader)
        if reader is None:
            raise CheckpointError(
                f"checkpoint '{path}' has the unknown suffix {path.suffix!r}; known: {formats}"
            )
        return reader.read(path, options)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint '{path}' can't be read: {error.strerror or error}"
        ) from error


def _by_content(path: Path, named: Reader | None) -> Reader | None:
    """The reader of what a file is: a torch file called ``x.safetensors`` is a torch file.

    Args:
        named: the reader that goes by its name; it judges what is of no known format, and reads
            what has no kind.

    Raises:
        CheckpointError: a file of another format, with what it is and what to do.
    """
    kind = kind_of(path)
    for each in READERS:
        if kind in each.kinds:
            return each
    if kind is UNKNOWN or (named is not None and not named.kinds and kind.name == "json"):
        return named
    advice = f" {kind.advice[:1].upper()}{kind.advice[1:]}." if kind.advice else ""
    raise CheckpointError(f"checkpoint '{path}' is {kind.says}.{advice}")


def _nearby(path: Path) -> str:
    """What the folder has instead, for the message about a missing file."""
    if not path.parent.is_dir():
        return f": nor does its folder '{path.parent}'"
    beside = (each for each in path.parent.iterdir() if not each.is_dir())
    names = sorted(each.name for each in beside if any(known.accepts(each) for known in READERS))
    return f"; its folder has {listed(names, 5)}" if names else "; its folder holds no checkpoint"
