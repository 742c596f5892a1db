"""The options of ``metanet merge``: what can be told of them before anything is opened."""

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._cli.folders import check_free
from ..documents import read_yaml
from ..errors import MetanetError
from ..merging import METHODS


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with paths in full and files read.

    Args:
        options: as they were composed; they stay as they are.

    Raises:
        MetanetError: something has another form, or ``out`` is no place to write to.
    """
    full = dict(options)
    full["models"] = _models(options["models"])
    if not isinstance(options["method"], Mapping):
        raise MetanetError(f"method={options['method']}: choose from {', '.join(sorted(METHODS))}")
    for key in ("base", "out"):
        full[key] = None if options[key] is None else os.path.expanduser(options[key])
    if full["out"] is None:
        raise MetanetError("no value for out: give out=VALUE")
    full["overrides"] = _overrides(options["overrides"])
    full["slices"] = _slices(options["slices"])
    base = [] if full["base"] is None else [full["base"]]
    _check_place(Path(full["out"]), [*base, *full["models"]])
    return full


def _models(given: Any) -> list[str]:
    models = _expanded(given)
    is_list = isinstance(models, list) and all(isinstance(path, str) for path in models)
    if not is_list or not models:
        shown = models if isinstance(models, str) else "A"
        raise MetanetError(f"models={models}: give a list of checkpoints, models=[{shown},B]")
    return [os.path.expanduser(path) for path in models]


def _expanded(models: Any) -> Any:
    """Patterns of file names as the files that they match, sorted: ``runs/*.safetensors``.

    Raises:
        MetanetError: nothing matches.
    """
    listed = [models] if _is_pattern(models) else models
    if not isinstance(listed, list):
        return models
    expanded: list[Any] = []
    for entry in listed:
        if not _is_pattern(entry) or Path(entry).expanduser().exists():
            expanded.append(entry)
            continue
        matches = sorted(glob.glob(os.path.expanduser(entry)))
        if not matches:
            raise MetanetError(f"models={entry}: no file or folder is called like that")
        expanded += matches
    return expanded


def _is_pattern(entry: Any) -> bool:
    return isinstance(entry, str) and glob.has_magic(entry)


def _overrides(given: Any) -> Any:
    overrides = _read_tree("overrides", given) if isinstance(given, str) else given
    if overrides is not None and not isinstance(overrides, Mapping):
        raise MetanetError(f"overrides={overrides}: give {{PATTERN: {{OPTION: VALUE}}}}")
    return overrides


def _slices(given: Any) -> Any:
    slices = _read_tree("slices", given) if isinstance(given, str) else given
    if slices is not None and not isinstance(slices, list):
        raise MetanetError(f"slices={slices}: give [{{MODEL: [FIRST, BEHIND_THE_LAST]}}, ...]")
    return slices


def _read_tree(key: str, path: str) -> Any:
    try:
        return read_yaml(Path(path).expanduser())
    except MetanetError as error:
        raise MetanetError(f"{key}={path}: {error}") from error


def _check_place(out: Path, inputs: Sequence[str]) -> None:
    place = out.resolve()
    for path in inputs:
        folder = Path(path).resolve()
        if folder.is_dir() and folder in (place, *place.parents):
            where = "is" if folder == place else "lies in"
            raise MetanetError(
                f"out={out} {where} the folder of an input, {path}: give another one"
            )
    check_free(out, "the merged checkpoint and what belongs to it")


def patterns_taken(overrides: Mapping[str, Any] | None) -> list[str]:
    """The patterns of names that are taken from one model, ``{"*head*": {take: 0}}``."""
    pairs = (overrides or {}).items()
    return [name for name, values in pairs if isinstance(values, Mapping) and "take" in values]


def check_needs(options: Mapping[str, Any]) -> None:
    """Refuse a merge that would run or relabel a network which is not given.

    Raises:
        MetanetError: ``arch`` or ``data`` is missing; or two alignments are given.
    """
    matcher, repair = options.get("matcher"), options["repair"]
    if options["alignment"] is not None and matcher is not None:
        raise MetanetError(
            "give either matcher=NAME, which finds an alignment, or alignment=FILE, which has one"
        )
    name = options["method"]["name"]
    needs = set(METHODS.find(name).needs)
    asking = [f"matcher={matcher['name']}"] if matcher is not None else []
    if needs & {"arch", "model", "data"}:
        asking.append(f"method={name}")
    if repair is not None:
        asking.append(f"repair={repair}")
    if options["arch"] is None and asking:
        raise MetanetError(
            f"{asking[0]} needs the network: give arch=timm:NAME, hf:FOLDER, package.module:factory"
        )
    if options["data"] is None and (repair is not None or "data" in needs):
        runs = f"repair={repair}" if repair is not None else f"method={name}"
        raise MetanetError(f"{runs} runs the networks: give data=")
