"""Folders as Hugging Face libraries write them: the weights in one file or in shards, a config
beside them."""

import re
from pathlib import Path

from ..documents import read_json
from ..errors import CheckpointError, listed
from ._content import SAFETENSORS, TORCH, TORCH_OLD, kind_of
from ._layouts import inside, refuse_partitioned, sub_folders
from ._mapping import Checkpoint
from ._readers import ReadOptions, open_path, reader
from ._sharded import INDEX, is_index
from ._torch import SUFFIXES

# Under these names weights are the folder's, whatever else lies there; the first of a format wins
# over the next.
_STANDARD = {
    ".safetensors": ("model.safetensors", "diffusion_pytorch_model.safetensors"),
    ".bin": ("pytorch_model.bin", "diffusion_pytorch_model.bin"),
}
_SHARD = re.compile(r".*-\d+-of-\d+\.\w+")
# What trainers write beside the weights, with the suffixes of weights.
_NO_WEIGHTS = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state.*|.*_optim_states)\.(bin|pt|pth)"
)

_LOOKED_AT = 50  # files whose content is looked at where no name tells


@reader("folder", "a folder with one of them", accepts=lambda path: path.is_dir())
def _read(path: Path, options: ReadOptions) -> Checkpoint:
    """Open the one checkpoint of a folder, safetensors rather than torch files; else the one
    further inside."""
    names = sorted(
        entry.name
        for entry in path.iterdir()
        if not entry.is_dir() and not entry.name.startswith(".")
    )
    refuse_partitioned(path, names)
    name = _only(path, names)
    if name is not None:
        return _with_config(path, open_path(path / name, options))
    deeper = inside(path)
    if deeper is None:
        raise CheckpointError(_nothing(path, names))
    return open_path(deeper, options)


def _with_config(folder: Path, checkpoint: Checkpoint) -> Checkpoint:
    config = folder / "config.json"
    if config.is_file():
        try:
            # transformers writes Infinity
            checkpoint.metadata["config"] = read_json(config, error=CheckpointError, nan=True)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {checkpoint.path.name} alone can be opened") from error
    return checkpoint


def _only(folder: Path, names: list[str]) -> str | None:
    """The file name of a folder's checkpoint; None if it has none."""
    for suffixes, standard in (((".safetensors",), ".safetensors"), (SUFFIXES, ".bin")):
        candidates = [
            name for name in names if _suffix(name) in suffixes and not _SHARD.fullmatch(name)
        ]
        candidates = [name for name in candidates if not _NO_WEIGHTS.fullmatch(name)]
        for name in _STANDARD[standard]:
            candidates = [
                choice for choice in (name, name + INDEX) if choice in candidates
            ] or candidates
        if len(candidates) > 1:
            raise CheckpointError(
                f"checkpoint '{folder}' is a folder with several checkpoints: "
                f"{listed(candidates)}. Give one."
            )
        if candidates:
            return candidates[0]
    return _by_content(folder, names)


def _several(folder: Path, names: list[str]) -> CheckpointError:
    return CheckpointError(
        f"checkpoint '{folder}' is a folder with several checkpoints: {listed(names)}. Give one."
    )


def _by_content(folder: Path, names: list[str]) -> str | None:
    """The one file that is a checkpoint under a name that doesn't tell: ``model_best.pth.tar``,
    ``checkpoints``."""
    files = [
        name for name in names if (folder / name).is_file() and not _NO_WEIGHTS.fullmatch(name)
    ]
    kinds = {
        name: kind_of(folder / name) for name in files[:_LOOKED_AT] if not _SHARD.fullmatch(name)
    }
    candidates = [name for name, kind in kinds.items() if kind in (SAFETENSORS, TORCH, TORCH_OLD)]
    if len(candidates) > 1:
        raise _several(folder, candidates)
    return candidates[0] if candidates else None


def _nothing(folder: Path, names: list[str]) -> str:
    """The message about a folder without a checkpoint."""
    if shards := [
        name
        for name in names
        if _SHARD.fullmatch(name) and _suffix(name) in (".safetensors", *SUFFIXES)
    ]:
        return (
            f"checkpoint '{folder}' has shards ({shards[0]}, ...) but no index ({INDEX}) that says "
            f"what is in which: its writing or its copy was cut off. Restore or remake it."
        )
    formats = f"known: .safetensors, {', '.join(SUFFIXES)}"
    if deeper := sub_folders(folder):
        return f"checkpoint '{folder}' is a folder without a checkpoint of its own{deeper}"
    there = f"it has {listed(names, 5)}" if names else "it is empty"
    return f"checkpoint '{folder}' is a folder without a checkpoint: {there}; {formats}"


def _suffix(name: str) -> str:
    path = Path(name)
    return Path(name.removesuffix(INDEX)).suffix if is_index(path) else path.suffix
