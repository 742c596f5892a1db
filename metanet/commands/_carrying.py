"""What a merged network needs besides its weights: configuration, tokenizer and more, from one of
the inputs."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._cli.folders import files_beside, folder_of, left_beside
from ..checkpoints import MODULES, Checkpoint, has_weights, parts_of
from ..documents import read_json
from ..errors import CheckpointError, MetanetError
from ._configuration import VOCABULARY, updated
from ._vocabulary import Vocabulary

CONFIG = "config.json"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
_TEMPLATE = ("chat_template.jinja", "chat_template.json")
# Fields that say nothing of what the network computes
_INDIFFERENT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "auto_map",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
    | {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "id2label",
        "label2id",
        "tie_word_embeddings",
        "pretrained_cfg",
    }
)
# What else goes with a tokenizer
_OF_TOKENS = frozenset(
    {
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "merges.txt",
        "generation_config.json",
    }
)
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
    vocabulary: Vocabulary | None = None, parts: Iterable[str] = (),
) -> Carried:  # fmt: skip
    """The files of the first of these checkpoints that lies in a Hugging Face folder.

    The tokenizer is that of the embedding, where this is one model's.

    Args:
        stored: the base if there is one, then the models.
        out_dtype: of the result, if it is another than that of the inputs.
        layers: for every layer of the result the one that it comes from; ``None``: those of the
            inputs.
        vocabulary: of the result.
        parts: sub-folders that the result has weights for.

    Raises:
        CheckpointError: pipelines that differ in what can't be merged, or of which a part would be
            lost.
    """
    places = [folder_of(checkpoint) for checkpoint in stored]
    folders = list(dict.fromkeys(each for each in places if each is not None))
    if not folders:
        return Carried()
    source = folders[0]
    config = read_config(source)
    files, warnings = _with_parts(source, folders, list(parts))
    embedded = None if vocabulary is None else vocabulary.taken
    taken = None if embedded is None else folder_of(embedded)
    tokens = source
    if taken is not None and taken != source:
        tokens = taken
        files = {name: path for name, path in files.items() if not _is_of_tokens(name)}
        theirs = {name: path for name, path in files_beside(taken).items() if _is_of_tokens(name)}
        files |= theirs
        lacking = "" if theirs.keys() & {*_TOKENIZER} else ", which has none"
        warnings.append(f"the tokenizer is that of {taken}, as the embedding is{lacking}")
    elif taken is None and embedded is not None:
        warnings.append(
            f"the embedding is that of {embedded.path}, which has no folder with a tokenizer: that of {source} stays"
        )
    new, missing = updated(
        config, out_dtype=out_dtype, layers=layers, vocabulary=vocabulary,
        tokens=None if tokens == source else read_config(tokens),
    )  # fmt: skip
    settled = VOCABULARY if vocabulary is not None and vocabulary.rows else ()
    warnings += [*left_beside(source), *_other_configs(source, folders, settled)]
    warnings += _other_tokenizers(tokens, folders) if tokens == source else ()
    if code := sorted(each.name for each in source.glob("*.py")):
        names = ", ".join(code[:_LISTED])
        needed = (
            ", which its config.json needs (auto_map): copy it yourself"
            if "auto_map" in config
            else ""
        )
        warnings.append(f"code is not carried along: {names} of {source}{needed}")
    elif "auto_map" in config:
        warnings.append(
            f"{source / CONFIG} needs code from elsewhere (auto_map), which is not carried along"
        )
    warnings += [f"no field of {CONFIG} says {what} yourself" for what in missing]
    if config and new != config:
        files[CONFIG] = (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode()
    return Carried(files, tuple(warnings), _library(config))


def _is_of_tokens(name: str) -> bool:
    return name in _OF_TOKENS or name in _TOKENIZER or name in _TEMPLATE


def _with_parts(
    source: Path, folders: Sequence[Path], parts: list[str]
) -> tuple[dict[str, bytes | Path], list[str]]:
    """The files of a folder, with those of its parts if it is a pipeline, or else of the first that
    is one.

    Raises:
        CheckpointError: parts of other pipelines say otherwise, or one with weights is none of the
            merge's.
    """
    files: dict[str, bytes | Path] = dict(files_beside(source))
    pipelines = [folder for folder in folders if (folder / MODULES).is_file()]
    if not pipelines:
        return files, []
    first, *others = pipelines
    for part in parts_of(first):
        if has_weights(first / part) and part not in parts:
            raise CheckpointError(
                f"'{first}' is a pipeline whose part {part} has weights of its own, which would be lost: give the "
                "folder instead of a file in it, and merge without arch="
            )
    own = {
        name: path for name, path in files_beside(first).items() if "/" in name or name == MODULES
    }
    lacking = [folder for folder in folders if folder not in pipelines]
    warnings = [
        f"{folder} is no pipeline: the parts of {first} are carried along" for folder in lacking
    ]
    for folder in others:
        theirs = {name for name in files_beside(folder) if "/" in name}
        for name in sorted(own.keys() | theirs):
            if _alike(first / name, folder / name):
                continue
            if name == MODULES or name.endswith(CONFIG):
                raise CheckpointError(
                    f"{name} of '{first}' and '{folder}' differ: how their parts work can't be merged. Make them alike"
                )
            warnings.append(f"{name} of {first} is carried along and differs from that of {folder}")
    return files | own, warnings


def _alike(one: Path, other: Path) -> bool:
    """Whether two files say the same, but for what says nothing of the network."""
    if not one.is_file() or not other.is_file() or _same(one, other) or one.name != CONFIG:
        return one.is_file() and other.is_file() and _same(one, other)
    first, second = (read_config(path.parent) for path in (one, other))
    return all(
        first.get(key) == second.get(key) for key in {**first, **second} if key not in _INDIFFERENT
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder; empty without one."""
    path = folder / CONFIG
    # transformers writes Infinity
    found = read_json(path, error=CheckpointError, nan=True) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _library(config: Mapping[str, Any]) -> str | None:
    if "model_type" in config:
        return "transformers"
    if "_diffusers_version" in config:
        return "diffusers"
    return "timm" if isinstance(config.get("architecture"), str) else None


# ---------------------------------------------------------------- what others say


def _other_configs(source: Path, folders: Sequence[Path], settled: Sequence[str]) -> Iterator[str]:
    """What the configurations of other folders say otherwise than that of the source.

    Args:
        settled: fields that the stored tensors decide.
    """
    one, indifferent = read_config(source), _INDIFFERENT.union(settled)
    for folder in folders[1:]:
        other = read_config(folder)
        keys = [
            key
            for key in {**one, **other}
            if key not in indifferent and one.get(key) != other.get(key)
        ]
        if keys:
            shown = [
                f"{key} {_short(one.get(key))} and {_short(other.get(key))}"
                for key in keys[:_LISTED]
            ]
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
        return read_json(one, nan=True) == read_json(other, nan=True)
    except MetanetError:
        return False
