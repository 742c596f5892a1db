"""What a merged network needs besides its weights: configuration, tokenizer and more, from one of the inputs."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoints import Checkpoint
from ..errors import CheckpointError
from .folders import files_beside, folder_of

CONFIG = "config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
_TEMPLATE = ("chat_template.jinja", "chat_template.json")
# Fields that say nothing of what the network computes
_INDIFFERENT = frozenset(
    {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "use_cache"}
    | {"bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "tie_word_embeddings", "pretrained_cfg"}
)
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_LISTED = 5


@dataclass(frozen=True)
class Carried:
    """Files for the folder of the result.

    Attributes:
        files: name -> content, or the file to copy.
        warnings: what whoever uses the result should know.
        library: what loads it, as the Hub calls it; ``None`` where nothing says so.
    """

    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    library: str | None = None


def carried(
    stored: Sequence[Checkpoint], *, out_dtype: str | None = None, layers: Sequence[int] | None = None,
    tied: bool = False,
) -> Carried:  # fmt: skip
    """The files of the first of these checkpoints that lies in a Hugging Face folder.

    Args:
        stored: the base if there is one, then the models.
        out_dtype: of the result, if it is another than that of the inputs.
        layers: for every layer of the result the one that it comes from; ``None``: those of the inputs.
        tied: the output layer was left out of the result, for it is the embedding.
    """
    folders = list(dict.fromkeys(each for each in map(folder_of, stored) if each is not None))
    if not folders:
        return Carried()
    source = folders[0]
    config = _read(source)
    files: dict[str, bytes | Path] = dict(files_beside(source))
    warnings = [*_other_configs(source, folders), *_other_tokenizers(source, folders)]
    if code := sorted(each.name for each in source.glob("*.py")):
        names = ", ".join(code[:_LISTED])
        needed = ", which its config.json needs (auto_map): copy it yourself" if "auto_map" in config else ""
        warnings.append(f"code is not carried along: {names} of {source}{needed}")
    elif "auto_map" in config:
        warnings.append(f"{source / CONFIG} needs code from elsewhere (auto_map), which is not carried along")
    new, counted = _updated(config, out_dtype, layers, tied)
    if layers is not None and not counted:
        warnings.append(f"no field of {CONFIG} says the number of layers: set it to {len(layers)} yourself")
    if new != config:
        files[CONFIG] = (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode()
    return Carried(files, tuple(warnings), _library(config))


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / CONFIG} is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _library(config: Mapping[str, Any]) -> str | None:
    if "model_type" in config:
        return "transformers"
    if "_diffusers_version" in config:
        return "diffusers"
    return "timm" if isinstance(config.get("architecture"), str) else None


# ---------------------------------------------------------------- config.json


def _updated(
    config: Mapping[str, Any], out_dtype: str | None, layers: Sequence[int] | None, tied: bool
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """The configuration of the result, and whether it has a field with the number of layers."""
    new: dict[str, Any] = json.loads(json.dumps(config))
    parts = [new, *(value for key, value in new.items() if key.endswith("_config") and isinstance(value, dict))]
    if out_dtype is not None and "model_type" in config:
        known = [(part, key) for part in parts for key in ("dtype", "torch_dtype") if key in part]
        for part, key in known or [(new, "torch_dtype")]:
            part[key] = out_dtype
    if tied and config.get("tie_word_embeddings") is not True:
        new["tie_word_embeddings"] = True
    counted = [(part, key) for part in parts for key in _LAYERS if key in part]
    if layers is not None:
        for part, key in counted:
            before, part[key] = part[key], len(layers)
            for name, value in part.items():
                if "layer" in name and isinstance(value, list) and len(value) == before > max(layers):
                    part[name] = [value[k] for k in layers]  # layer_types
    return new, bool(counted)


def _other_configs(source: Path, folders: Iterable[Path]) -> Iterator[str]:
    one = _read(source)
    for folder in folders:
        other = _read(folder)
        keys = [key for key in {**one, **other} if key not in _INDIFFERENT and one.get(key) != other.get(key)]
        if keys:
            shown = [f"{key} {_short(one.get(key))} and {_short(other.get(key))}" for key in keys[:_LISTED]]
            more = f", and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
            listed = ", ".join(shown) + more
            yield f"the {CONFIG} of {source} is carried along, that of {folder} says otherwise: {listed}"


def _short(value: Any) -> str:
    return f"{json.dumps(value, ensure_ascii=False):.40}"


# ---------------------------------------------------------------- the tokenizer


def _other_tokenizers(source: Path, folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        for names, what, effect in (
            (_TOKENIZER, "tokenizer", "its tokens may mean others there"),
            (_TEMPLATE, "chat template", "it was trained on other prompts"),
        ):
            for name in names:
                if (folder / name).is_file() and not _same(source / name, folder / name):
                    there = "differs from" if (source / name).is_file() else "has none, other than"
                    yield f"the {what} of {source} is carried along and {there} that of {folder} ({name}): {effect}"
                    break


def _same(one: Path, other: Path) -> bool:
    if not one.is_file():
        return False
    if one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes():
        return True
    if one.suffix != ".json":
        return False
    try:
        return json.loads(one.read_bytes()) == json.loads(other.read_bytes())
    except ValueError:
        return False
