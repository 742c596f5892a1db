"""The command ``align``: move one checkpoint's neurons onto those of another."""

import json
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .._cli.folders import check_free, files_beside, folder_of, left_beside
from .._cli.networks import (
    ALIGNMENT_FILE,
    Pair,
    find_device,
    loss_of,
    matcher_of,
    open_pair,
    trace_networks,
)
from .._cli.sweep import METRICS_FILE
from ..alignment import Alignment
from ..alignment import align as align_to
from ..checkpoints import Checkpoint, atomic_write, read_index, save_checkpoint, write_folder
from ..config import plain
from ..errors import UntoldNeuronsWarning
from ..evaluation import find_loss
from ..graph import real_parts
from ..sources import on_disk
from ..symmetry import Transform


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
    device = find_device(options["device"])
    method, chosen = matcher_of(options)
    loss = None if options["loss"] is None else find_loss(loss_of(options["loss"]))
    pair = open_pair(options)
    arch = trace_networks(pair, options["arch"], options["input_shape"], options["seed"])
    for warning in arch.warnings:
        print(f"warning: {warning}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntoldNeuronsWarning)  # the summary says it
        found = align_to(
            pair.b, to=pair.a, arch=arch, method=method, seed=options["seed"], model=pair.model, data=pair.data,
            loss=loss, device=device, **chosen,
        )  # fmt: skip
    numbers = _numbers(found, pair)
    folder = folder_of(pair.stored[1])
    for left in [] if folder is None else left_beside(folder):
        print(f"warning: {left}")
    _write(out, pair, found, numbers)
    with atomic_write(Path(options["paths"]["run_dir"]) / METRICS_FILE) as temporary:
        Path(temporary).write_text(json.dumps(numbers))
    print(found)
    print(
        f"distance of a and b: {numbers['distance/before']:.6g} -> {numbers['distance/after']:.6g}"
    )
    print(f"b moved onto a: {out}")


def _numbers(found: Alignment, pair: Pair) -> dict[str, float]:
    moved = found.transform
    groups = [g.name for g in moved.spec.groups if g.kind == "permutation"]
    before = after = 0.0
    for name, known in moved.spec.tensors.items():
        if name in pair.a and known.tied_to is None and not known.integer:
            b = pair.b[name]
            start, end, fitted = (
                real_parts(t).double() for t in (pair.a[name], b, moved.apply(name, b))
            )
            before += float((start - end).square().sum())
            after += float((start - fitted).square().sum())
    return {
        "objective/before": found.objective[0], "objective/after": found.objective[-1],
        "distance/before": before**0.5, "distance/after": after**0.5, "seconds": found.seconds,
        "groups/moved": len(groups) - len(found.identity), "groups/left": len(found.identity),
        "steps": len(found.objective) - 1,
    }  # fmt: skip


class _Moved:
    """Reads a tensor and moves it."""

    def __init__(self, fitted: Checkpoint, transform: Transform) -> None:
        self.fitted, self.transform = fitted, transform

    def __call__(self, name: str) -> Tensor:
        return self.transform.apply(name, self.fitted[name])


def moved_checkpoint(
    stored: Checkpoint, fitted: Checkpoint, model: nn.Module, transform: Transform
) -> Checkpoint:
    """A checkpoint with its neurons moved and all else as it was stored; each tensor is moved when
    it is asked for.

    Args:
        stored: by the names of its file.
        fitted: the same by those of the network, which the transform has.
        model: the network.
    """
    moved = Checkpoint(stored.path, _Moved(fitted, transform), fitted.shapes, fitted.dtypes)
    back = on_disk(moved, model, stored)
    back.metadata.pop("config", None)  # a folder's config.json
    return back


def _write(out: Path, pair: Pair, found: Alignment, numbers: Mapping[str, Any]) -> None:
    """The folder, whole or not at all."""
    stored = pair.stored[1]
    moved = moved_checkpoint(stored, pair.b, pair.model, found.transform)
    with write_folder(out) as temporary:
        save_checkpoint(
            temporary, moved, metadata=moved.metadata, max_shard_size=_shard_size(stored)
        )
        found.save(temporary / ALIGNMENT_FILE)
        (temporary / METRICS_FILE).write_text(
            json.dumps({**numbers, "identity": dict(found.identity)}, indent=1)
        )
        folder = folder_of(stored)
        for name, each in ({} if folder is None else files_beside(folder, weights=True)).items():
            (temporary / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(each, temporary / name)


def _shard_size(stored: Checkpoint) -> int:
    """The bytes of tensors in the largest shard that there was; one file stays one."""
    if not stored.path.name.endswith(".index.json"):
        return sys.maxsize
    where, _ = read_index(stored.path)
    sizes: Counter[str] = Counter()
    for name, in_file in stored.sources.items():
        sizes[where[in_file]] += stored.shapes[name].numel() * stored.dtypes[name].itemsize
    return max(1, *sizes.values())
