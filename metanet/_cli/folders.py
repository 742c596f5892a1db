"""Folders of checkpoints: new ones, and what lies beside the weights of old ones."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from .. import merging
from ..checkpoints import MODULES, Checkpoint, files_of, hold, parts_of
from ..errors import CheckpointError, MetanetError
from ..runs import ERROR_FILE, METRICS_FILE

# Configuration, tokenizer and processors of a Hugging Face folder, chat templates, and the licence
# they come under
_BESIDE = re.compile(
    r"[^.].*\.(jinja|json|model|tiktoken|txt)|(LICEN[CS]E|NOTICE)(\..*)?", re.IGNORECASE
)
# What a run or a command says of itself, and the index of shards that are not there
_OF_THE_RUN = re.compile(r".*\.index\.json|metrics\.json|trainer_state\.json|\w+_results\.json")
_WEIGHTS = re.compile(r"[^.].*\.(safetensors|bin|pt|pth|ckpt)(\.index\.json)?")
_LARGEST = 256 * 2**20  # bytes of a file that is copied because it lies there

# What commands write into the run directory
_OF_A_RUN = (
    METRICS_FILE,
    ERROR_FILE,
    "barrier.csv",
    "barrier.png",
    "last.ckpt",
    "predictions.csv",
    "results.md",
)
# What says where to write, and where an earlier run of the same has written
_NO_INPUTS = frozenset({"out", "paths", "resume", "logger"})


@contextmanager
def alone(options: Mapping[str, Any], run_dir: Path) -> Iterator[None]:
    """Run a command while nobody else writes to its ``out``, and only if it writes over none of its
    inputs.

    Raises:
        MetanetError: another process is writing there, nothing can be written there, or an input
            lies there.
    """
    keep_inputs(options, [run_dir / name for name in _OF_A_RUN], run_dir)
    out = options.get("out")
    with nullcontext() if out is None else hold(Path(out).expanduser()):
        yield


def keep_inputs(
    options: Mapping[str, Any], outputs: Iterable[Path], run_dir: Path | None = None
) -> None:
    """Refuse to write over what is read, whatever names it has: links of both kinds are looked
    through.

    Args:
        options: of the command; every text in them that is the path of something counts as an
            input.
        outputs: the files that will be written.
        run_dir: which options may name, and which is no input.

    Raises:
        MetanetError: one of the outputs is an input, or a file of one.
    """
    reading = {key: value for key, value in options.items() if key not in _NO_INPUTS}
    places = list(_texts(reading))
    if run_dir is not None:
        places = [text for text in places if Path(text).absolute() != run_dir.absolute()]
    inputs: dict[tuple[int, int], str] = {}
    for text in places:
        for path in _files_at(text):
            inputs.setdefault(_identity(path), text)
    for path in filter(Path.exists, outputs):
        source = inputs.get(_identity(path))
        if source is not None:
            raise MetanetError(
                f"{path} would be overwritten, and it is read as {source}: write to another folder"
            )


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping | list | tuple):
        values = tree.values() if isinstance(tree, Mapping) else tree
        for value in values:
            yield from _texts(value)


def _files_at(text: str) -> list[Path]:
    """The files behind a text that is a path (``hf:FOLDER`` too); none if it is something else."""
    place = text.partition(":")[2] if text.startswith(("hf:", "timm:")) else text
    path = Path(place).expanduser()
    try:
        if path.is_dir():
            return [Path(entry.path) for entry in os.scandir(path) if entry.is_file()]
        files = files_of(path) if path.is_file() else []
        return [file for file in files if file.exists()]
    except (OSError, ValueError, MetanetError):
        # too long for a path, a broken index, a folder that can't be listed
        return []


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def check_free(out: Path, gets: str) -> None:
    """Refuse to write where something is.

    Args:
        gets: what the folder is for.

    Raises:
        MetanetError: ``out`` is a file, or a folder that is not empty.
    """
    if out.suffix == ".safetensors":
        raise MetanetError(f"out={out}: give a folder; it gets {gets}")
    merging.check_free(out, "out=")


def folder_of(stored: Checkpoint) -> Path | None:
    """The folder of a checkpoint that is a Hugging Face one: it has a ``config.json`` (or a
    ``modules.json``).

    Raises:
        CheckpointError: that file lies elsewhere, behind a link.
    """
    folder = stored.path.parent
    configurations = [folder / "config.json", folder / MODULES]
    present = [path for path in configurations if path.is_file()]
    for path in present:
        objection = _reason(path, folder)
        if objection is not None:
            raise CheckpointError(
                f"'{path}' {objection}: what a folder brings along must lie in it. "
                "Put the file itself there"
            )
    return folder if present else None


def files_beside(folder: Path, weights: bool = False) -> dict[str, Path]:
    """The files that belong to a checkpoint besides its weights: name -> path; of pipelines the
    parts' files, too.

    Only regular files of the folder are among them, and links to such; in the cache of the Hugging
    Face hub, links to its blobs. See :func:`left_beside` for the others.

    Args:
        weights: with those of the parts.
    """
    named = dict(_beside(folder, weights))
    return {name: path.resolve() for name, path in named.items() if _reason(path, folder) is None}


def left_beside(folder: Path) -> list[str]:
    """What is to be said of files that lie there by name, but are not carried along."""
    lines = []
    for name, path in _beside(folder, False):
        objection = _reason(path, folder)
        if objection is not None:
            lines.append(f"{name} of {folder} is not carried along: it {objection}")
    return lines


def _beside(folder: Path, weights: bool) -> Iterator[tuple[str, Path]]:
    """What lies there by its name: ``tokenizer.json``, and of a part ``text_encoder/config.json``."""
    for part in ("", *parts_of(folder)):
        place = folder / part
        if not place.is_dir():
            continue
        prefix = f"{part}/" if part else ""
        of_part = bool(part) and weights
        for path in sorted(place.iterdir()):
            is_weights = _WEIGHTS.fullmatch(path.name) is not None
            of_run = _OF_THE_RUN.fullmatch(path.name) is not None
            belongs = _BESIDE.fullmatch(path.name) is not None and not of_run
            if belongs or (of_part and is_weights):
                yield f"{prefix}{path.name}", path


def _reason(path: Path, folder: Path) -> str | None:
    """Why a file is none that may be copied; ``None`` if it may.

    A stranger's folder may hold a link ``tokenizer.json -> ~/.ssh/id_rsa``: copied, it would be
    shared with the result.
    """
    if not path.is_file():
        return "is a link to nothing" if path.is_symlink() else "is no regular file"
    root = folder.resolve()
    target = path.resolve()
    if not any(map(target.is_relative_to, (root, *_blobs(root)))):
        return "is a link out of the folder"
    is_weights = _WEIGHTS.fullmatch(path.name) is not None
    if not is_weights and target.stat().st_size > _LARGEST:
        return f"is larger than {_LARGEST:,} bytes"
    return None


def _blobs(folder: Path) -> Iterator[Path]:
    """Where the files of a snapshot in the Hub's cache lie:
    ``models--OWNER--NAME/snapshots/REVISION`` -> ``blobs``."""
    for snapshot in (folder, *folder.parents):
        repo = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repo.name.startswith("models--"):
            yield repo / "blobs"
