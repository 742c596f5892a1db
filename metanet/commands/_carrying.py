"""What a merged network needs besides its weights: configuration, tokenizer and more, from one of
the inputs."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    stored: Sequence[Checkpoint],
    *,
    out_dtype: str | None = None,
    layers: Sequence[int] | None = None,
    vocabulary: Vocabulary | None = None,
    parts: Iterable[str] = (),
) -> Carried:
    """The files of the first of these checkpoints that lies in a Hugging Face folder.

    The tokenizer is that of the embedding, where this is one model's::

        base/   config.json  tokenizer.json      result: config.json of base, tokenizer.json of b
        b/      config.json  tokenizer.json      where the embedding is b's as it was

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
    folders = list(dict.fromkeys(folder for folder in places if folder is not None))
    if not folders:
        return Carried()
    source = folders[0]
    config = read_config(source)
    files, warnings = _with_parts(source, folders, list(parts))
    tokens, remarks = _tokenizer_of(source, vocabulary)
    warnings += remarks
    is_elsewhere = tokens != source
    if is_elsewhere:
        files = {name: path for name, path in files.items() if not _is_of_tokens(name)}
        files |= _token_files(tokens)
    new, missing = updated(
        config,
        out_dtype=out_dtype,
        layers=layers,
        vocabulary=vocabulary,
        tokens=read_config(tokens) if is_elsewhere else None,
    )
    decided = VOCABULARY if vocabulary is not None and vocabulary.rows else ()
    warnings += [*left_beside(source), *_other_configs(source, folders, decided)]
    if not is_elsewhere:
        warnings += _other_tokenizers(source, folders)
    warnings += _of_code(source, config)
    warnings += [f"no field of {CONFIG} says {what} yourself" for what in missing]
    if config and new != config:
        files[CONFIG] = (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode()
    return Carried(files, tuple(warnings), _library(config))


def _tokenizer_of(source: Path, vocabulary: Vocabulary | None) -> tuple[Path, list[str]]:
    """The folder whose tokenizer goes with the result, and what is to be said of it.

    Args:
        source: the folder of all other files.
        vocabulary: of the result.
    """
    embedded = None if vocabulary is None else vocabulary.taken
    if embedded is None:
        return source, []
    folder = folder_of(embedded)
    if folder is None:
        return source, [
            f"the embedding is that of {embedded.path}, which has no folder with a tokenizer: "
            f"that of {source} stays"
        ]
    if folder == source:
        return source, []
    lacking = "" if _token_files(folder).keys() & {*_TOKENIZER} else ", which has none"
    return folder, [f"the tokenizer is that of {folder}, as the embedding is{lacking}"]


def _token_files(folder: Path) -> dict[str, Path]:
    return {name: path for name, path in files_beside(folder).items() if _is_of_tokens(name)}


def _of_code(source: Path, config: Mapping[str, Any]) -> list[str]:
    """What is to be said of code that a configuration needs: it is never carried along."""
    needs_code = "auto_map" in config
    names = sorted(path.name for path in source.glob("*.py"))
    if names:
        shown = ", ".join(names[:_LISTED])
        reason = ", which its config.json needs (auto_map): copy it yourself" if needs_code else ""
        return [f"code is not carried along: {shown} of {source}{reason}"]
    if needs_code:
        elsewhere = "needs code from elsewhere (auto_map), which is not carried along"
        return [f"{source / CONFIG} {elsewhere}"]
    return []


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
        if part not in parts and has_weights(first / part):
            raise CheckpointError(
                f"'{first}' is a pipeline whose part {part} has weights of its own, which would be "
                "lost: give the folder instead of a file in it, and merge without arch="
            )
    beside = files_beside(first)
    of_parts = {name: path for name, path in beside.items() if "/" in name or name == MODULES}
    lacking = [folder for folder in folders if folder not in pipelines]
    warnings = [
        f"{folder} is no pipeline: the parts of {first} are carried along" for folder in lacking
    ]
    for folder in others:
        warnings += _other_parts(first, folder, of_parts)
    return files | of_parts, warnings


def _other_parts(first: Path, folder: Path, of_parts: Iterable[str]) -> Iterator[str]:
    """What a pipeline says otherwise than the first one of how its parts work.

    Raises:
        CheckpointError: it is something that can't be merged.
    """
    theirs = {name for name in files_beside(folder) if "/" in name}
    for name in sorted({*of_parts, *theirs}):
        if _alike(first / name, folder / name):
            continue
        if name == MODULES or name.endswith(CONFIG):
            raise CheckpointError(
                f"{name} of '{first}' and '{folder}' differ: how their parts work can't be merged. "
                "Make them alike"
            )
        yield f"{name} of {first} is carried along and differs from that of {folder}"


def _alike(one: Path, other: Path) -> bool:
    """Whether two files say the same, but for what says nothing of the network."""
    if not one.is_file() or not other.is_file():
        return False
    if _same(one, other):
        return True
    return one.name == CONFIG and not _differing(one.parent, other.parent, _INDIFFERENT)


def _differing(one: Path, other: Path, indifferent: Collection[str]) -> list[str]:
    """Fields that the configurations of two folders do not agree on."""
    first, second = read_config(one), read_config(other)
    fields = [key for key in {**first, **second} if key not in indifferent]
    return [key for key in fields if first.get(key) != second.get(key)]


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder; empty without one."""
    path = folder / CONFIG
    # transformers writes Infinity
    config = read_json(path, error=CheckpointError, nan=True) if path.is_file() else {}
    return config if isinstance(config, dict) else {}


def _library(config: Mapping[str, Any]) -> str | None:
    if "model_type" in config:
        return "transformers"
    if "_diffusers_version" in config:
        return "diffusers"
    return "timm" if isinstance(config.get("architecture"), str) else None


# ---------------------------------------------------------------- what others say


def _other_configs(source: Path, folders: Sequence[Path], decided: Sequence[str]) -> Iterator[str]:
    """What the configurations of other folders say otherwise than that of the source.

    Args:
        source: the first of the folders.
        folders: all of them.
        decided: fields that the stored tensors decide.
    """
    config = read_config(source)
    for folder in folders[1:]:
        keys = _differing(source, folder, _INDIFFERENT.union(decided))
        if not keys:
            continue
        other = read_config(folder)
        pairs = [f"{k} {_short(config.get(k))} and {_short(other.get(k))}" for k in keys[:_LISTED]]
        more_keys = f", and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        yield (
            f"the {CONFIG} of {source} is carried along, that of {folder} says otherwise: "
            f"{', '.join(pairs)}{more_keys}"
        )


def _short(value: Any) -> str:
    return f"{json.dumps(value, ensure_ascii=False):.40}"


# ---------------------------------------------------------------- the tokenizer


def _other_tokenizers(source: Path, folders: Iterable[Path]) -> Iterator[str]:
    """What is to be said of folders with another tokenizer or chat template, one file of each."""
    for folder in folders:
        for names, what, effect in (
            (_TOKENIZER, "tokenizer", "its tokens may mean others there"),
            (_TEMPLATE, "chat template", "it was trained on other prompts"),
        ):
            theirs = [name for name in names if (folder / name).is_file()]
            name = next((name for name in theirs if not _same(source / name, folder / name)), None)
            if name is None:
                continue
            there = "differs from" if (source / name).is_file() else "has none, other than"
            yield (
                f"the {what} of {source} is carried along and {there} that of {folder} ({name}): "
                f"{effect}"
            )


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
