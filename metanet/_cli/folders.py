"""Folders of checkpoints: new ones, and what lies beside the weights of old ones."""

import re
from pathlib import Path

from .. import merging
from ..checkpoints import Checkpoint
from ..errors import MetanetError

# Configuration, tokenizer and processors of a Hugging Face folder, chat templates, and the licence they come under
_BESIDE = re.compile(r"[^.].*\.(jinja|json|model|tiktoken|txt)|(LICEN[CS]E|NOTICE)(\..*)?", re.IGNORECASE)
# What a run or a command says of itself, and the index of shards that are not there
_OF_THE_RUN = re.compile(r".*\.index\.json|metrics\.json|trainer_state\.json|\w+_results\.json")


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
    """The folder of a checkpoint that is a Hugging Face one: it has a ``config.json``."""
    folder = stored.path.parent
    return folder if (folder / "config.json").is_file() else None


def files_beside(folder: Path) -> dict[str, Path]:
    """The files that belong to a checkpoint besides its weights: name -> path."""
    found = {each.name: each for each in sorted(folder.iterdir()) if each.is_file()}
    return {n: p for n, p in found.items() if _BESIDE.fullmatch(n) and not _OF_THE_RUN.fullmatch(n)}
