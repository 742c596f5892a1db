"""The command ``merge``: several checkpoints into one, and everything that belongs to it."""

import glob
import hashlib
import json
import os
import shlex
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .._cli.folders import check_free, folder_of
from .._cli.networks import (
    Networks,
    find_device,
    load_alignment,
    loss_of,
    matcher_of,
    open_networks,
    trace_networks,
)
from .._cli.overrides import key_of, typed
from .._cli.recipe import CONFIG_FILE, DIGESTS
from .._cli.sweep import METRICS_FILE
from ..alignment import Alignment
from ..architecture import Architecture
from ..checkpoints import PARTS, Checkpoint, atomic_write
from ..config import plain
from ..documents import read_yaml
from ..errors import CheckpointError, MetanetError, UntoldNeuronsWarning
from ..merging import METHODS, Merged, model_card, save_merged
from ..merging import merge as merge_networks
from ._carrying import Carried, carried, read_config
from ._configuration import says_tied
from ._naming import as_stored
from ._vocabulary import Vocabulary, vocabulary_of

CARD_FILE = "README.md"


def merge(cfg: Any) -> None:
    """Merge ``cfg.models`` and write the result to ``cfg.out``, with all that is needed to use it
    and to make it again.

    Args:
        cfg: the composed ``conf/merge.yaml``.

    Raises:
        MetanetError: ``out`` is not empty, something does not exist or is missing, or the
            checkpoints do not belong together.
    """
    started = time.perf_counter()
    options = _checked(plain(cfg))
    out = Path(options["out"])
    device = find_device(options["device"])
    base, paths = options["base"], options["models"]
    networks = open_networks(
        options, [*([] if base is None else [base]), *paths]
    )  # the base first, as in files
    how, arch = _alignment(options, networks)
    chosen = dict(options["method"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntoldNeuronsWarning)  # the summary says it
        merged = merge_networks(
            networks.stored[len(networks.stored) - len(paths) :], chosen.pop("name"),
            base=None if base is None else networks.stored[0], arch=arch, model=networks.model, data=networks.data,
            loss=loss_of(options["loss"]), repair=options["repair"], repair_passes=options["repair_passes"],
            overrides=options["overrides"], slices=options["slices"], dtype=options["dtype"],
            out_dtype=options["out_dtype"], overflow=options["overflow"], seed=options["seed"], device=device,
            progress=True, **how, **chosen,
        )  # fmt: skip
    named, others = (
        (merged, [])
        if networks.model is None
        else as_stored(merged, networks.stored[0], networks.model)
    )
    beside = _beside(named, others, merged, networks.stored, options)
    for warning in [*(() if arch is None else arch.warnings), *beside.warnings]:
        print(f"warning: {warning}", flush=True)
    recipe = {**merged.recipe, "models": paths, "base": base, **_given(options, merged.alignments)}
    save_merged(
        out, named, recipe=recipe, max_shard_size=options["max_shard_size"], progress=True,
        parts=_folders([*_parts(networks.stored), *beside.files]),
        files=lambda hashes: _files(options, merged, recipe, hashes, beside),
    )  # fmt: skip
    numbers = _numbers(merged, named) | {"seconds": time.perf_counter() - started}
    run_dir = Path(options["paths"]["run_dir"])
    with atomic_write(run_dir / METRICS_FILE) as temporary:
        Path(temporary).write_text(json.dumps(numbers, indent=1))
    for k, each in enumerate(merged.alignments):
        if each is not None and options.get("matcher") is not None:
            each.save(run_dir / f"alignment-{k}.safetensors")
    print(_summary(out, merged, numbers))


# ---------------------------------------------------------------- what is given


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options with paths in full and files read, all that can be told before anything is
    opened.

    Raises:
        MetanetError: something has another form, or ``out`` is no place to write to.
    """
    models = options["models"] = _expanded(options["models"])
    if (
        not isinstance(models, list)
        or not all(isinstance(each, str) for each in models)
        or not models
    ):
        shown = models if isinstance(models, str) else "A"
        raise MetanetError(f"models={models}: give a list of checkpoints, models=[{shown},B]")
    if not isinstance(options["method"], Mapping):
        raise MetanetError(f"method={options['method']}: choose from {', '.join(sorted(METHODS))}")
    options["models"] = [os.path.expanduser(each) for each in models]
    for key in ("base", "out"):
        options[key] = None if options[key] is None else os.path.expanduser(options[key])
    if options["out"] is None:
        raise MetanetError("no value for out: give out=VALUE")
    for key in ("overrides", "slices"):
        if isinstance(options[key], str):
            options[key] = _read_tree(key, options[key])
    if options["overrides"] is not None and not isinstance(options["overrides"], Mapping):
        raise MetanetError(f"overrides={options['overrides']}: give {{PATTERN: {{OPTION: VALUE}}}}")
    if options["slices"] is not None and not isinstance(options["slices"], list):
        raise MetanetError(
            f"slices={options['slices']}: give [{{MODEL: [FIRST, BEHIND_THE_LAST]}}, ...]"
        )
    inputs = [*([] if options["base"] is None else [options["base"]]), *options["models"]]
    _check_place(Path(options["out"]), inputs)
    return options


def _expanded(models: Any) -> Any:
    """Patterns of file names as the files that they match, sorted: ``runs/*.safetensors``.

    Raises:
        MetanetError: nothing matches.
    """
    listed = [models] if isinstance(models, str) and glob.has_magic(models) else models
    if not isinstance(listed, list):
        return models
    out: list[Any] = []
    for each in listed:
        if (
            not isinstance(each, str)
            or not glob.has_magic(each)
            or Path(each).expanduser().exists()
        ):
            out.append(each)
        elif matched := sorted(glob.glob(os.path.expanduser(each))):
            out += matched
        else:
            raise MetanetError(f"models={each}: no file or folder is called like that")
    return out


def _read_tree(key: str, given: str) -> Any:
    try:
        return read_yaml(Path(given).expanduser())
    except MetanetError as error:
        raise MetanetError(f"{key}={given}: {error}") from error


def _check_place(out: Path, inputs: Sequence[str]) -> None:
    place = out.resolve()
    for given in inputs:
        folder = Path(given).resolve()
        if folder.is_dir() and folder in (place, *place.parents):
            where = "is" if folder == place else "lies in"
            raise MetanetError(
                f"out={out} {where} the folder of an input, {given}: give another one"
            )
    check_free(out, "the merged checkpoint and what belongs to it")


def _alignment(
    options: Mapping[str, Any], networks: Networks
) -> tuple[dict[str, Any], Architecture | None]:
    """What :func:`metanet.merge` is told of the alignment, and the architecture where something
    needs it."""
    given, matcher = options["alignment"], options.get("matcher")
    if given is not None and matcher is not None:
        raise MetanetError(
            "give either matcher=NAME, which finds an alignment, or alignment=FILE, which has one"
        )
    method = METHODS.get(options["method"]["name"])
    asks = {"matcher=" + matcher["name"]: True} if matcher is not None else {}
    asks["method=" + options["method"]["name"]] = method is not None and {
        "arch",
        "model",
        "data",
    } & {*method.needs}
    asks[f"repair={options['repair']}"] = options["repair"] is not None
    if networks.model is None and (asking := [name for name, needed in asks.items() if needed]):
        raise MetanetError(
            f"{asking[0]} needs the network: give arch=timm:NAME, hf:FOLDER, package.module:factory"
        )
    if networks.data is None and (
        (method is not None and "data" in method.needs) or options["repair"] is not None
    ):
        asking = (
            f"repair={options['repair']}"
            if options["repair"] is not None
            else f"method={method.name}"
        )
        raise MetanetError(f"{asking} runs the networks: give data=")
    how: dict[str, Any] = {}
    if given is not None:
        how["align"] = _loaded(given, networks)
    elif matcher is not None:
        how["align"], how["align_options"] = matcher_of(options)
    if matcher is None and (method is None or "arch" not in method.needs):
        return how, None
    return how, trace_networks(networks, options["arch"], options["input_shape"], options["seed"])


def _loaded(given: Any, networks: Networks) -> Alignment | list[Alignment | None]:
    """Alignments that were saved.

    Raises:
        MetanetError: one can't be read, or is of another network.
    """
    listed = given if isinstance(given, list) else [given]
    found = [None if each is None else load_alignment(each) for each in listed]
    for path, each in zip(listed, found, strict=True):
        try:
            if each is not None:
                each.check(networks.fitted[0])
        except CheckpointError as error:
            hint = (
                ""
                if networks.model
                else "; give arch= where the files name the tensors otherwise than the network"
            )
            raise CheckpointError(f"alignment={path}: {error}{hint}") from error
    return found if isinstance(given, list) else found[0]


def _given(options: Mapping[str, Any], alignments: Sequence[Alignment | None]) -> dict[str, Any]:
    """What the result depends on besides the recipe, so that other shards are never taken for those
    of this merge."""
    elements = [None if each is None else each.transform.elements for each in alignments]
    digests = [
        None
        if each is None
        else {n: hashlib.sha256(e.contiguous().numpy()).hexdigest() for n, e in each.items()}
        for each in elements
    ]
    keys = ("arch", "arch_args", "data", "data_args", "loss")
    return {"relabellings": digests, **{key: options[key] for key in keys}}


# ---------------------------------------------------------------- what is written


def _beside(
    named: Checkpoint, others: Sequence[str], merged: Merged, stored: Sequence[Checkpoint], options: Mapping[str, Any]
) -> Carried:  # fmt: skip
    """Configuration, tokenizer and the like, and what is to be said of the result."""
    layers = None
    if options["slices"] is not None:
        spans = [next(iter(each.values())) for each in options["slices"]]
        layers = [layer for first, behind in spans for layer in range(first, behind)]
    vocabulary = _vocabulary(named, merged, stored)
    found = carried(
        stored, out_dtype=options["out_dtype"], layers=layers, vocabulary=vocabulary, parts=_folders(_parts(stored))
    )  # fmt: skip
    notes = list(found.warnings)
    like = stored[0].shapes
    if changed := [
        n for n, shape in named.shapes.items() if like.get(n, shape) != shape and layers is None
    ]:
        notes.append(
            f"{len(changed)} tensors have other shapes than in the inputs: {_some(changed)}"
        )
    if others:
        notes.append(
            f"{len(others)} tensors are none of the network's and stay as they are: {_some(others)}"
        )
    library = (
        "timm"
        if found.library is None and str(options["arch"]).startswith("timm:")
        else found.library
    )
    return Carried(found.files, tuple(notes), library)


def _vocabulary(named: Checkpoint, merged: Merged, stored: Sequence[Checkpoint]) -> Vocabulary:
    """That of the result, against the input whose configuration goes with it."""
    for each in stored:
        if (folder := folder_of(each)) is not None:
            return vocabulary_of(named, merged, stored, each, says_tied(read_config(folder)))
    return vocabulary_of(named, merged, stored, stored[0], None)


def _parts(stored: Sequence[Checkpoint]) -> list[str]:
    """Sub-folders of a pipeline that the merge has weights for, as ``PART/``."""
    return [f"{part}/" for part in stored[0].metadata.get(PARTS, {})]


def _folders(files: Iterable[str]) -> list[str]:
    """The sub-folders that files lie in, each once."""
    return list(dict.fromkeys(name.rpartition("/")[0] for name in files if "/" in name))


def _files(
    options: Mapping[str, Any], merged: Merged, recipe: Mapping[str, Any], hashes: Mapping[str, str], beside: Carried
) -> dict[str, bytes | Path]:  # fmt: skip
    """All that lies beside the weights."""
    chosen = {key: value for key, value in options.items() if key not in ("paths", "recipe")}
    given = {
        key: value
        for key, value in chosen.items()
        if value not in (None, {}) and key != "data_args"
    }
    given |= {"data_args": options["data_args"]} if options["data"] is not None else {}
    whole = chosen | {DIGESTS: dict(hashes)}  # the card has them in a table
    config, shown = (
        yaml.safe_dump(each, sort_keys=False, allow_unicode=True) for each in (whole, given)
    )
    card = model_card(
        recipe, title=Path(options["out"]).absolute().name, hashes=hashes, report=merged.report,
        alignments=merged.alignments, library=beside.library, notes=beside.warnings, command=_command(), config=shown,
    )  # fmt: skip
    return {**beside.files, CARD_FILE: card.encode(), CONFIG_FILE: config.encode()}


def _command() -> str:
    """The command line, as a person would type it."""
    from hydra.core.hydra_config import HydraConfig

    given = [
        each for each in HydraConfig.get().overrides.task if key_of(each) != "recipe"
    ]  # it is among them, in full
    return " ".join(["metanet merge", *(shlex.quote(typed(each)) for each in given)])


def _numbers(merged: Merged, named: Checkpoint) -> dict[str, Any]:
    sizes = {name: shape.numel() for name, shape in named.shapes.items()}
    numbers: dict[str, Any] = {
        "tensors": len(sizes), "values": sum(sizes.values()),
        "bytes": sum(count * named.dtypes[name].itemsize for name, count in sizes.items()), **merged.report,
    }  # fmt: skip
    for k, each in enumerate(merged.alignments):
        if each is not None:
            numbers |= {
                f"objective/{k}/before": each.objective[0],
                f"objective/{k}/after": each.objective[-1],
            }
    return numbers


def _summary(out: Path, merged: Merged, numbers: Mapping[str, Any]) -> str:
    lines = [f"model {k}: {each}" for k, each in enumerate(merged.alignments) if each is not None]
    lines += [f"{name}: {value}" for name, value in merged.report.items()]
    lines.append(
        f"{numbers['tensors']:,} tensors, {numbers['values']:,} values, {numbers['bytes']:,} bytes "
        f"in {numbers['seconds']:.1f} s: {out}"
    )
    return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
