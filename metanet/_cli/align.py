"""The command ``align``: move one checkpoint's neurons onto those of another."""

import json
import os
import shutil
import sys
import uuid
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..alignment import Alignment
from ..alignment import align as align_to
from ..checkpoints import Checkpoint, atomic_write, save_checkpoint
from ..config import plain
from ..errors import MetanetError, UntoldNeuronsWarning
from ..evaluation import find_loss
from ..sources import on_disk
from ..symmetry import Transform
from .folders import check_free, files_beside, folder_of
from .networks import (
    ALIGNMENT_FILE,
    Pair,
    find_device,
    loss_of,
    matcher_of,
    open_pair,
    trace_networks,
)
from .sweep import METRICS_FILE


def align(cfg: Any) -> None:
    """Find the relabelling that moves ``cfg.b`` onto ``cfg.a``, and write the moved checkpoint to ``cfg.out``.

    Args:
        cfg: the composed ``conf/align.yaml``.

    Raises:
        MetanetError: ``out`` is not empty, something does not exist, or the checkpoints do not fit the architecture.
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
    _write(out, pair, found, numbers)
    with atomic_write(Path(options["paths"]["run_dir"]) / METRICS_FILE) as temporary:
        Path(temporary).write_text(json.dumps(numbers))
    print(found)
    print(f"distance of a and b: {numbers['distance/before']:.6g} -> {numbers['distance/after']:.6g}")
    print(f"b moved onto a: {out}")


def _numbers(found: Alignment, pair: Pair) -> dict[str, float]:
    moved = found.transform
    groups = [g.name for g in moved.spec.groups if g.kind == "permutation"]
    before = after = 0.0
    for name, known in moved.spec.tensors.items():
        if name in pair.a and known.tied_to is None:
            a, b = pair.a[name].double(), pair.b[name]
            before += float((a - b.double()).square().sum())
            after += float((a - moved.apply(name, b).double()).square().sum())
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


def moved_checkpoint(stored: Checkpoint, fitted: Checkpoint, model: nn.Module, transform: Transform) -> Checkpoint:
    """A checkpoint with its neurons moved and all else as it was stored; each tensor is moved when it is asked for.

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
    temporary = out.absolute().with_name(f".{uuid.uuid4().hex[:8]}.partial.{out.name}")
    try:
        temporary.mkdir(parents=True)
        save_checkpoint(temporary, moved, metadata=moved.metadata, max_shard_size=_shard_size(stored))
        found.save(temporary / ALIGNMENT_FILE)
        (temporary / METRICS_FILE).write_text(json.dumps({**numbers, "identity": dict(found.identity)}, indent=1))
        folder = folder_of(stored)
        for name, each in ({} if folder is None else files_beside(folder)).items():
            shutil.copyfile(each, temporary / name)
        os.replace(temporary, out)
    except OSError as error:
        raise MetanetError(f"can't write out={out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _shard_size(stored: Checkpoint) -> int:
    """The bytes of tensors in the largest shard that there was; one file stays one."""
    if not stored.path.name.endswith(".index.json"):
        return sys.maxsize
    where = json.loads(stored.path.read_bytes())["weight_map"]
    sizes: Counter[str] = Counter()
    for name, in_file in stored.sources.items():
        sizes[where[in_file]] += stored.shapes[name].numel() * stored.dtypes[name].itemsize
    return max(1, *sizes.values())
