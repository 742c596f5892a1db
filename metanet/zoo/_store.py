"""How a zoo lies on disk.

One folder ``<name>-<8 hex digits of the recipe's hash>``:

- ``<architecture>-00000.safetensors``, ...: shards, tensors stacked over networks. Each carries its
  rows of the table and its training curves in its header, so that a shard stands for itself.
- ``<architecture>-00000.json``, ...: checksum of each shard, written right after it. What a killed
  run has finished.
- ``table.csv``, ``curves.csv``: the rows of all shards, for people and for other tools.
- ``zoo.json``: recipe, architectures, and checksum, size and count of every file above, and of
  itself; written last.
"""

import csv
import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .. import trust
from ..documents import read_json, validated
from ..errors import MetanetError
from ._blueprint import Blueprint
from ._errors import DamagedZooError, ZooError
from ._files import sha256, write_whole
from ._format import Manifest, ShardEntry
from ._population import Zoo
from ._reading import read_header, read_populations, read_table

log = logging.getLogger(__name__)
FORMAT = 1
MANIFEST = "zoo.json"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some networks of one architecture, made together: the unit of making, checking and
    remaking."""

    state: dict[str, Tensor]  # name -> [n, ...], in state_dict order
    rows: list[dict[str, Any]]  # one row of the table each; all with the same keys
    curves: list[dict[str, list[float]]] = field(
        default_factory=list
    )  # one per network; column -> value per epoch


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that tell recipes apart."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def shard_name(architecture: str, number: int) -> str:
    """``cnn-00003.safetensors``."""
    return f"{architecture}-{number:05d}.safetensors"


def sidecar(path: Path) -> Path:
    """The file beside a shard that has its checksum."""
    return path.with_suffix(".json")


def save_shard(path: Path, shard: Shard) -> str:
    """Write a shard and then its checksum, which is returned."""
    # One metadata entry only: safetensors writes several in a random order, and shards are compared
    # bit for bit.
    header = {"order": list(shard.state), "rows": shard.rows, "curves": shard.curves}
    tensors = {name: tensor.contiguous() for name, tensor in shard.state.items()}
    data = safetensors.torch.save(tensors, metadata={"zoo": json.dumps(header)})
    write_whole(path, data)
    digest = sha256(data)
    entry = {"sha256": digest, "bytes": len(data), "count": len(shard.rows)}
    write_whole(sidecar(path), json.dumps(entry).encode())
    return digest


def shard_problem(path: Path) -> str | None:
    """What is wrong with a finished shard; None if it is what its checksum says."""
    beside = sidecar(path)
    if not beside.exists():
        return "has no checksum beside it" if path.exists() else "missing"
    try:
        entry = validated(ShardEntry, read_json(beside), f"'{beside}'")
    except MetanetError:
        return f"{beside.name} cannot be read"
    return _read(path.parent, path.name, entry)[1]


def _read(folder: Path, name: str, entry: ShardEntry) -> tuple[bytes, str | None]:
    """The content of a file of a zoo, and what is wrong with it. Of foreign files nothing is
    told."""
    path = folder / name
    if not trust.is_inside(path, folder):
        return b"", "it is a link that leads out of the folder"
    if not path.is_file():
        return b"", "it is no regular file" if path.exists() else "missing"
    if (size := path.stat().st_size) != entry.bytes:
        return b"", f"it has {size:,} bytes, not {entry.bytes:,}"
    try:
        data = path.read_bytes()
    except OSError as error:
        return b"", error.strerror or str(error)
    return data, None if sha256(
        data
    ) == entry.sha256 else "its content does not have the checksum that is stated"


def finish(
    folder: Path,
    name: str,
    recipe: Mapping[str, Any],
    architectures: Mapping[str, Blueprint],
    shards: Iterable[tuple[str, str]],
) -> None:
    """Write the tables and the manifest of a folder whose shards, (file name, architecture), are
    whole."""
    import metanet

    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    files: dict[str, dict[str, Any]] = {}
    for file, architecture in shards:
        data = (folder / file).read_bytes()
        header = read_header(data, file)
        rows += header.rows
        for row, curve in zip(header.rows, header.curves, strict=False):  # not every zoo has curves
            for epoch, values in enumerate(zip(*curve.values(), strict=True), start=1):
                curves.append(
                    {"id": row["id"], "epoch": epoch, **dict(zip(curve, values, strict=True))}
                )
        count = len(header.rows)
        files[file] = {
            "architecture": architecture,
            "sha256": sha256(data),
            "bytes": len(data),
            "count": count,
        }
    columns = {}
    for file, content in (("table.csv", rows), ("curves.csv", curves)):
        if content:
            data = _to_csv(content)
            write_whole(folder / file, data)
            files[file] = {"sha256": sha256(data), "bytes": len(data), "count": len(content)}
            columns[file] = {key: type(value).__name__ for key, value in content[0].items()}
    manifest = {
        "format": FORMAT,
        "name": name,
        "recipe": dict(recipe),
        "made_with": {"metanet": getattr(metanet, "__version__", None), "torch": torch.__version__},
        "architectures": {key: value.entry() for key, value in architectures.items()},
        "columns": columns,
        "files": files,
    }
    manifest["sha256"] = _manifest_checksum(manifest)
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def open_zoo(path: str | Path) -> Zoo:
    """Read the zoo in a folder, checking the checksum of every file.

    The networks of a zoo that a stranger made are built by what ``zoo.json`` names; see
    :meth:`~metanet.zoo.Population.build`.

    Raises:
        ZooError: the folder is no zoo, or one of a later format.
        DamagedZooError: files are missing or changed; lists all of them.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    contents, problems = {}, {}
    for file, entry in manifest.files.items():
        contents[file], problem = _read(folder, file, entry)
        if problem is not None:
            problems[file] = problem
    if problems:
        raise DamagedZooError(folder, problems)
    table, curves = (
        read_table(folder, file, contents[file], manifest.columns.get(file, {}))
        if file in contents
        else {}
        for file in ("table.csv", "curves.csv")
    )
    if missing := [name for name in ("id", "run", "architecture") if name not in table]:
        raise DamagedZooError(folder, {"table.csv": f"it has no column {', '.join(missing)}"})
    populations = read_populations(folder, manifest, contents, table["id"].tolist())
    return Zoo(name=manifest.name, path=folder, table=table, curves=curves, populations=populations)


def read_manifest(folder: Path) -> Manifest:
    """``zoo.json`` of a folder. Errors as in :func:`open_zoo`."""
    path = folder / MANIFEST
    if not path.exists():
        raise ZooError(
            f"{folder} is not a zoo: there is no {MANIFEST} in it. Give the folder of a zoo that "
            "metanet has made (data/<name>-<hash>); for checkpoints of your own there is "
            "`zoo=folder path=DIR table=CSV label=COLUMN`"
        )
    try:
        document = read_json(path)
        version = document.get("format", FORMAT) if isinstance(document, dict) else FORMAT
        if version != FORMAT:
            raise ZooError(
                f"the zoo in {folder} has format {trust.shown(version)}; this metanet reads format {FORMAT}. "
                "Use the metanet that made it, or delete the folder to have it made again"
            )
        manifest = validated(Manifest, document, MANIFEST)
    except ZooError:
        raise
    except MetanetError as error:
        raise DamagedZooError(folder, {MANIFEST: f"cannot be read: {error}"}) from None
    if manifest.sha256 != _manifest_checksum(document):
        raise DamagedZooError(
            folder, {MANIFEST: "its content does not have the checksum that it states"}
        )
    return manifest


def _manifest_checksum(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return sha256(json.dumps(rest, sort_keys=True).encode())


def _to_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)  # floats as repr: they read back to the same bits
    return text.getvalue().encode()
