"""Folders as Hugging Face libraries write them: the weights in one file or in shards, a config beside them."""

import re
from pathlib import Path

from ..documents import read_json
from ..errors import CheckpointError, listed
from ._mapping import Checkpoint
from ._readers import Options, open_path, reader
from ._sharded import INDEX, is_index
from ._torch import SUFFIXES

# Under these names weights are the folder's, whatever else lies there; the first of a format wins over the next.
_STANDARD = {
    ".safetensors": ("model.safetensors", "diffusion_pytorch_model.safetensors"),
    ".bin": ("pytorch_model.bin", "diffusion_pytorch_model.bin"),
}
_SHARD = re.compile(r".*-\d+-of-\d+\.\w+")
# What trainers write beside the weights, with the suffixes of weights.
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth)")


@reader("a folder with one of them", accepts=lambda path: path.is_dir())
def _read(path: Path, options: Options) -> Checkpoint:
    """Open the one checkpoint of a folder, safetensors rather than torch files."""
    found = open_path(path / _only(path), options)
    config = path / "config.json"
    if config.is_file():
        try:
            found.metadata["config"] = read_json(
                config, error=CheckpointError, nan=True
            )  # transformers writes Infinity
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {found.path.name} alone can be opened") from error
    return found


def _only(folder: Path) -> str:
    """The file name of a folder's checkpoint."""
    names = sorted(each.name for each in folder.iterdir() if not each.is_dir() and not each.name.startswith("."))
    for suffixes, standard in (((".safetensors",), ".safetensors"), (SUFFIXES, ".bin")):
        candidates = [name for name in names if _suffix(name) in suffixes and not _SHARD.fullmatch(name)]
        candidates = [name for name in candidates if not _NO_WEIGHTS.fullmatch(name)]
        for name in _STANDARD[standard]:
            candidates = [each for each in (name, name + INDEX) if each in candidates] or candidates
        if len(candidates) > 1:
            raise CheckpointError(
                f"checkpoint '{folder}' is a folder with several checkpoints: {listed(candidates)}. Give one."
            )
        if candidates:
            return candidates[0]
    if shards := [name for name in names if _SHARD.fullmatch(name) and _suffix(name) in (".safetensors", *SUFFIXES)]:
        raise CheckpointError(
            f"checkpoint '{folder}' has shards ({shards[0]}, ...) but no index ({INDEX}) that says what is in which: "
            f"its writing or its copy was cut off. Restore or remake it."
        )
    there = f"it has {listed(names, 5)}" if names else "it is empty"
    raise CheckpointError(
        f"checkpoint '{folder}' is a folder without a checkpoint: {there}; known: .safetensors, {', '.join(SUFFIXES)}"
    )


def _suffix(name: str) -> str:
    path = Path(name)
    return Path(name.removesuffix(INDEX)).suffix if is_index(path) else path.suffix
