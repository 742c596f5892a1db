"""Folders that hold a checkpoint somewhere inside: which file or folder to open instead, or what to
run first.

======================================================  ==============================================
what training and sharing programs leave                what is opened
======================================================  ==============================================
Hub cache: ``models--a--b/snapshots/HASH``              the snapshot of ``refs/main``, or the only one
Trainer: ``checkpoint-500``, ``checkpoint-1000``        the only one; several are listed
DeepSpeed: ``latest``, ``TAG/mp_rank_00_model_states``  the tag's file, which has the whole network
DeepSpeed ZeRO-3, tensor or pipeline parallel           nothing: the message says what to run
======================================================  ==============================================
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError, listed

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_MODEL_STATES = re.compile(r"mp_rank_\d+_model_states\.pt")
_PARTITIONED = re.compile(r"(zero_pp_rank_\d+_)mp_rank_\d+_model_states\.pt|layer_\d+-model_.*\.pt")
_LISTED = 5
_LONGEST = 200  # characters of a name in a file


def refuse_partitioned(folder: Path, names: list[str]) -> None:
    """Raise for files that hold parts of tensors, and would be read as if they were whole."""
    parts = [name for name in names if _PARTITIONED.fullmatch(name)]
    ranks = [name for name in names if _MODEL_STATES.fullmatch(name)]
    if parts or len(ranks) > 1:
        raise CheckpointError(
            f"checkpoint '{folder}' is of DeepSpeed, in parts "
            f"({listed([*parts, *ranks], _LISTED)}): gather them first, by `python zero_to_fp32.py "
            ". OUT --safe_serialization` in the folder above (ZeRO), or by the conversion script "
            "of the program that trained it (tensor or pipeline parallel)"
        )


def inside(folder: Path) -> Path | None:
    """The file or folder to open instead of a folder that holds no checkpoint itself; None if there
    is none.

    Raises:
        CheckpointError: several would do, or a file names one that can't be.
    """
    if (folder / "latest").is_file():
        return folder / _name_in(folder / "latest")
    if (folder / "snapshots").is_dir():
        return _snapshot(folder)
    steps = sorted(
        (int(match[1]), name) for name in _folders(folder) if (match := _CHECKPOINT.fullmatch(name))
    )
    if len(steps) == 1:
        return folder / steps[0][1]
    if steps:
        names = [name for _, name in steps]
        raise CheckpointError(
            f"checkpoint '{folder}' is a folder with {len(steps)} checkpoints inside: "
            f"{listed(reversed(names), _LISTED)}. Give one, e.g. '{folder / names[-1]}'."
        )
    return None


def _snapshot(folder: Path) -> Path:
    """Of a repository in the cache of the Hugging Face hub."""
    snapshots = folder / "snapshots"
    names = _folders(snapshots)
    main = folder / "refs" / "main"
    if main.is_file() and (name := _name_in(main)) in names:
        return snapshots / name
    if len(names) == 1:
        return snapshots / names[0]
    there = f"it has {listed(names, _LISTED)}" if names else "it is empty"
    raise CheckpointError(
        f"checkpoint '{folder}' is a cached repository, but nothing says which snapshot: {there}"
    )


def _name_in(file: Path) -> str:
    """The folder name that a small text file holds: data, which may not lead elsewhere."""
    with file.open("rb") as stream:
        text = stream.read(_LONGEST).decode("utf-8", "replace").strip()
    if not text or set(text) & {"/", "\\", "\0"} or text in (".", ".."):
        raise CheckpointError(
            f"checkpoint '{file.parent}': its file {file.name} names {text!r}, which is no folder "
            "there"
        )
    return text


def sub_folders(folder: Path) -> str:
    """For the message about a folder without a checkpoint: which of its sub-folders have one; empty
    if none has."""
    names = list(_with_checkpoint(folder))
    if not names:
        return ""
    return f"; its sub-folders have: give '{folder}/NAME' with NAME one of {listed(names, _LISTED)}"


def _with_checkpoint(folder: Path) -> Iterator[str]:
    """Sub-folders, two levels deep, with files that are called like weights."""
    for name in _folders(folder):
        for place in (name, *(f"{name}/{deeper}" for deeper in _folders(folder / name))):
            if any(_is_weights(file) for file in (folder / place).iterdir()):
                yield place


def _is_weights(path: Path) -> bool:
    return (
        path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt") or path.name == ".metadata"
    )


def _folders(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
