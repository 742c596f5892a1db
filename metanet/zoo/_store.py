"""How a zoo lies on disk.

One folder ``<name>-<8 hex digits of the recipe's hash>``:

- ``<architecture>-00000.safetensors``, ...: shards, tensors stacked over networks. Each carries its rows of the table
  and its training curves in its header, so that a shard stands for itself.
- ``<architecture>-00000.json``, ...: checksum of each shard, written right after it. What a killed run has finished.
- ``table.csv``, ``curves.csv``: the rows of all shards, for people and for other tools.
- ``zoo.json``: recipe, architectures, and checksum, size and count of every file above, and of itself; written last.
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

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ._errors import DamagedZooError, ZooError
from ._files import sha256, write_whole
from ._population import Population, Zoo

log = logging.getLogger(__name__)
FORMAT = 1
MANIFEST = "zoo.json"
TYPES = {"int": np.int64, "float": np.float64, "str": np.str_}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some networks of one architecture, made together: the unit of making, checking and remaking."""

    state: dict[str, Tensor]  # name -> [n, ...], in state_dict order
    rows: list[dict[str, Any]]  # one row of the table each; all with the same keys
    curves: list[dict[str, list[float]]] = field(default_factory=list)  # one per network; column -> value per epoch


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How the networks of a population are built; see ``Population``."""

    ref: str
    arch_args: dict[str, Any]
    input_shape: tuple[int, ...]
    input_range: tuple[float, float] = (0.0, 1.0)


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def shard_name(architecture: str, number: int) -> str:
    return f"{architecture}-{number:05d}.safetensors"


def sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def save_shard(path: Path, shard: Shard) -> str:
    """Write a shard and then its checksum, which is returned."""
    # One metadata entry only: safetensors writes several in a random order, and shards are compared bit for bit.
    header = {"order": list(shard.state), "rows": shard.rows, "curves": shard.curves}
    tensors = {name: tensor.contiguous() for name, tensor in shard.state.items()}
    data = safetensors.torch.save(tensors, metadata={"zoo": json.dumps(header)})
    write_whole(path, data)
    entry = {"sha256": sha256(data), "bytes": len(data), "count": len(shard.rows)}
    write_whole(sidecar(path), json.dumps(entry).encode())
    return entry["sha256"]


def shard_problem(path: Path) -> str | None:
    """What is wrong with a finished shard; None if it is what its checksum says."""
    try:
        entry = json.loads(sidecar(path).read_bytes())
        return _problem(path, entry["sha256"])
    except FileNotFoundError:
        return "missing" if not path.exists() else "has no checksum beside it"
    except (ValueError, KeyError, TypeError):
        return f"{sidecar(path).name} cannot be read"


def _problem(path: Path, expected: str) -> str | None:
    if not path.exists():
        return "missing"
    found = sha256(path.read_bytes())
    return None if found == expected else f"its SHA-256 is {found[:12]}..., not {expected[:12]}..."


def finish(
    folder: Path,
    name: str,
    recipe: Mapping[str, Any],
    architectures: Mapping[str, Architecture],
    shards: Iterable[tuple[str, str]],
) -> None:
    """Write the tables and the manifest of a folder whose shards, (file name, architecture), are whole."""
    import metanet

    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    files: dict[str, dict[str, Any]] = {}
    for file, architecture in shards:
        data = (folder / file).read_bytes()
        header = _header(data)
        rows += header["rows"]
        for row, curve in zip(header["rows"], header["curves"], strict=False):  # not every zoo has curves
            for epoch, values in enumerate(zip(*curve.values(), strict=True), start=1):
                curves.append({"id": row["id"], "epoch": epoch, **dict(zip(curve, values, strict=True))})
        count = len(header["rows"])
        files[file] = {"architecture": architecture, "sha256": sha256(data), "bytes": len(data), "count": count}
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
        "architectures": {key: dict(vars(value)) for key, value in architectures.items()},
        "columns": columns,
        "files": files,
    }
    manifest["sha256"] = _manifest_checksum(manifest)
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def open_zoo(path: str | Path) -> Zoo:
    """Read the zoo in a folder, checking the checksum of every file.

    Raises:
        ZooError: the folder is no zoo, or one of a later format.
        DamagedZooError: files are missing or changed; lists all of them.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    contents, problems = {}, {}
    for file, entry in manifest["files"].items():
        try:
            contents[file] = (folder / file).read_bytes()
        except OSError as error:
            problems[file] = error.strerror or str(error)
            continue
        if (found := sha256(contents[file])) != entry["sha256"]:
            problems[file] = f"its SHA-256 is {found[:12]}..., not {entry['sha256'][:12]}..."
    if problems:
        raise DamagedZooError(folder, problems)
    table, curves = (
        _from_csv(contents[file], manifest["columns"][file]) if file in contents else {}
        for file in ("table.csv", "curves.csv")
    )
    return Zoo(
        name=manifest["name"],
        path=folder,
        table=table,
        curves=curves,
        populations=_populations(manifest, contents, list(table["id"])),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """``zoo.json`` of a folder. Errors as in :func:`open_zoo`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        version = manifest["format"]
        sound = manifest.get("sha256") == _manifest_checksum(manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise ZooError(
            f"{folder} is not a zoo: there is no {MANIFEST} in it. Give the folder of a zoo that metanet has made "
            "(data/<name>-<hash>); for checkpoints of your own there is `zoo=folder path=DIR table=CSV label=COLUMN`"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedZooError(folder, {MANIFEST: f"cannot be read ({error!r})"}) from None
    if version != FORMAT:
        raise ZooError(
            f"the zoo in {folder} has format {version}; this metanet reads format {FORMAT}. "
            "Use the metanet that made it, or delete the folder to have it made again"
        )
    if not sound:
        raise DamagedZooError(folder, {MANIFEST: "its content does not have the checksum that it states"})
    return manifest


def _manifest_checksum(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return sha256(json.dumps(rest, sort_keys=True).encode())


def _populations(manifest: Mapping, contents: Mapping[str, bytes], ids: list[str]) -> dict[str, Population]:
    row_of = {identity: row for row, identity in enumerate(ids)}
    populations = {}
    for name, described in manifest["architectures"].items():
        shards = [contents[file] for file, entry in manifest["files"].items() if entry.get("architecture") == name]
        headers = [_header(data) for data in shards]
        states = [safetensors.torch.load(data) for data in shards]
        # safetensors sorts its keys; depth order is what people and graphs expect
        populations[name] = Population(
            architecture=name,
            ref=described["ref"],
            arch_args=described["arch_args"],
            input_shape=tuple(described["input_shape"]),
            input_range=tuple(described["input_range"]),
            state={key: torch.cat([state[key] for state in states]) for key in headers[0]["order"]},
            rows=torch.tensor([row_of[row["id"]] for header in headers for row in header["rows"]]),
        )
    return populations


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["zoo"])


def _to_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)  # floats as repr: they read back to the same bits
    return text.getvalue().encode()


def _from_csv(data: bytes, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    rows = list(csv.reader(io.StringIO(data.decode())))
    header, columns = rows[0], list(zip(*rows[1:], strict=True))
    return {
        name: np.array(column, dtype=np.str_).astype(TYPES[types[name]])
        for name, column in zip(header, columns, strict=True)
    }
