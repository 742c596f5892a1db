"""Where the parts of a pipeline are written: tensors called ``2_Dense/linear.weight`` to
``2_Dense``, without it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...checkpoints import PARTS, Checkpoint, shard_plan, write_index


def mains_of(checkpoint: Checkpoint) -> list[Path]:
    """The path of an opened checkpoint, and those of its parts."""
    parts = [Path(path) for path in checkpoint.metadata.get(PARTS, {}).values()]
    return [path for path in (checkpoint.path, *parts) if path.name != "modules.json"]


def plan_of(tensors: Checkpoint, size: str | int, parts: Sequence[str]) -> dict[str, list[str]]:
    """File -> the names of its tensors; of a part, ``PART/FILE``."""
    plan: dict[str, list[str]] = {}
    for part in ("", *parts):
        names = [name for name in tensors if _part_of(name, parts) == part]
        if not names:
            continue
        for file, shard in shard_plan(restricted(tensors, names), size).items():
            plan[f"{part}/{file}" if part else file] = list(shard)
    return plan


def inner(file: str, name: str) -> str:
    """What a tensor is called in its file: ``2_Dense/linear.weight`` is ``linear.weight`` there."""
    return name.removeprefix(file[: file.rfind("/") + 1])


def restricted(tensors: Checkpoint, names: Sequence[str], file: str = "") -> Checkpoint:
    """Some of the tensors, by their names in a file."""
    return tensors.select({inner(file, name): name for name in names})


def write_indexes(work: Path, tensors: Checkpoint, plan: Mapping[str, Sequence[str]]) -> None:
    """The index of every folder that has several files of tensors."""
    files: dict[str, list[str]] = defaultdict(list)
    for file in plan:
        files[file.rpartition("/")[0]].append(file)
    for part, inside in files.items():
        names = [name for file in inside for name in plan[file]]
        shards = {}
        for file in inside:
            shards[file.rpartition("/")[2]] = [inner(file, name) for name in plan[file]]
        write_index(work / part, restricted(tensors, names, inside[0]), shards)


def _part_of(name: str, parts: Sequence[str]) -> str:
    return next((part for part in parts if name.startswith(f"{part}/")), "")
