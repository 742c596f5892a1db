"""The command ``align``: move one checkpoint's neurons onto those of another."""

import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .._cli.devices import find_device
from .._cli.folders import check_free, files_beside, folder_of, left_beside
from .._cli.networks import (
    ALIGNMENT_FILE,
    Pair,
    loss_of,
    matcher_of,
    open_pair,
    trace_network,
)
from ..alignment import Alignment
from ..alignment import align as align_to
from ..checkpoints import Checkpoint, read_index, save_checkpoint, write_folder
from ..config import plain
from ..errors import UntoldNeuronsWarning
from ..evaluation import find_loss
from ..graph import real_parts
from ..runs import write_metrics
from ..sources import on_disk


def align(cfg: Any) -> None:
    """Find the relabelling that moves ``cfg.b`` onto ``cfg.a``, and write the moved checkpoint to
    ``cfg.out``.

    Args:
        cfg: the composed ``conf/align.yaml``.

    Raises:
        MetanetError: ``out`` is not empty, something does not exist, or the checkpoints do not fit
            the architecture.
    """
    options = plain(cfg)
    out = Path(options["out"]).expanduser()
    check_free(out, "the moved checkpoint, the alignment and metrics.json")
    alignment, pair = _found(options)
    numbers = _numbers(alignment, pair)
    folder = folder_of(pair.stored_b)
    if folder is not None:
        for warning in left_beside(folder):
            print(f"warning: {warning}")
    _write(out, pair, alignment, numbers)
    write_metrics(Path(options["paths"]["run_dir"]), numbers)
    before, after = numbers["distance/before"], numbers["distance/after"]
    print(alignment)
    print(f"distance of a and b: {before:.6g} -> {after:.6g}")
    print(f"b moved onto a: {out}")


def _found(options: Mapping[str, Any]) -> tuple[Alignment, Pair]:
    """The alignment by the matcher of the options, and what was aligned."""
    device = find_device(options["device"])
    matcher, settings = matcher_of(options)
    loss = None if options["loss"] is None else find_loss(loss_of(options["loss"]))
    pair = open_pair(options)
    architecture = trace_network(pair.network, options)
    for warning in architecture.warnings:
        print(f"warning: {warning}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntoldNeuronsWarning)  # the summary says it
        alignment: Alignment = align_to(
            pair.b,
            to=pair.a,
            arch=architecture,
            method=matcher,
            seed=options["seed"],
            model=pair.network.model,
            data=pair.network.data,
            loss=loss,
            device=device,
            **settings,
        )
    return alignment, pair


def _numbers(alignment: Alignment, pair: Pair) -> dict[str, float]:
    """What the run measured."""
    groups = [g.name for g in alignment.transform.spec.groups if g.kind == "permutation"]
    before, after = _distances(alignment, pair)
    return {
        "objective/before": alignment.objective[0],
        "objective/after": alignment.objective[-1],
        "distance/before": before,
        "distance/after": after,
        "seconds": alignment.seconds,
        "groups/moved": len(groups) - len(alignment.identity),
        "groups/left": len(alignment.identity),
        "steps": len(alignment.objective) - 1,
    }


def _distances(alignment: Alignment, pair: Pair) -> tuple[float, float]:
    """The Euclidean distance of a and b, and that of a and the moved b; tied tensors count once."""
    transform = alignment.transform
    before = after = 0.0
    for name, tensor in transform.spec.tensors.items():
        if name not in pair.a or tensor.tied_to is not None or tensor.integer:
            continue
        b = pair.b[name]
        target = _exact(pair.a[name])
        before += float((target - _exact(b)).square().sum())
        after += float((target - _exact(transform.apply(name, b))).square().sum())
    return before**0.5, after**0.5


def _exact(tensor: Tensor) -> Tensor:
    return real_parts(tensor).double()


# ---------------------------------------------------------------- what is written


def _write(out: Path, pair: Pair, alignment: Alignment, numbers: Mapping[str, Any]) -> None:
    """The folder, whole or not at all."""
    moved = _moved(pair, alignment)
    report = {**numbers, "identity": dict(alignment.identity)}
    folder = folder_of(pair.stored_b)
    beside = {} if folder is None else files_beside(folder, weights=True)
    with write_folder(out) as temporary:
        shard_size = _shard_size(pair.stored_b)
        save_checkpoint(temporary, moved, metadata=moved.metadata, max_shard_size=shard_size)
        alignment.save(temporary / ALIGNMENT_FILE)
        write_metrics(temporary, report)
        for name, path in beside.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, temporary / name)


def _moved(pair: Pair, alignment: Alignment) -> Checkpoint:
    """b with its neurons moved and all else as its file has it; each tensor is moved when it is
    asked for."""
    moved = on_disk(alignment.moved(pair.b), pair.network.model, pair.stored_b)
    moved.metadata.pop("config", None)  # of a folder's config.json, which is copied
    return moved


def _shard_size(stored: Checkpoint) -> int:
    """The bytes of tensors in the largest shard that there was; one file stays one."""
    if not stored.path.name.endswith(".index.json"):
        return sys.maxsize
    shards, _ = read_index(stored.path)
    sizes: Counter[str] = Counter()
    for name, in_file in stored.sources.items():
        sizes[shards[in_file]] += stored.shapes[name].numel() * stored.dtypes[name].itemsize
    return max(1, *sizes.values())
