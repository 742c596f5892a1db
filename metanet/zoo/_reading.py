"""From the bytes of a zoo's files to tables and populations; what does not belong together is
named."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..documents import parse_json, validated
from ..errors import MetanetError
from ._blueprint import Blueprint
from ._errors import DamagedZooError
from ._format import ArchitectureEntry, Manifest, ShardHeader
from ._population import Population

TYPES = {"int": np.int64, "float": np.float64, "str": np.str_}
_METADATA = dict[str, str]


def read_table(
    folder: Path, file: str, data: bytes, types: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The columns of a table in the types that the manifest states.

    Raises:
        DamagedZooError: other columns, rows of other lengths, or values that are no numbers.
    """
    try:
        header, *rows = list(csv.reader(io.StringIO(data.decode())))
        if header != list(types) or not rows:
            raise ValueError("its columns are not those that zoo.json states")
        columns = zip(*rows, strict=True)
        return {
            name: np.array(column, dtype=np.str_).astype(TYPES[types[name]])
            for name, column in zip(header, columns, strict=True)
        }
    except (ValueError, OverflowError, csv.Error) as error:
        raise DamagedZooError(folder, {file: f"it is no table: {str(error)[:200]}"}) from None


def read_header(data: bytes, file: str) -> ShardHeader:
    """What a shard says of its networks.

    Raises:
        MetanetError: it is no shard.
    """
    length = int.from_bytes(data[:8], "little")
    outer = parse_json(data[8 : 8 + length], file)
    metadata = validated(
        _METADATA, outer.get("__metadata__") if isinstance(outer, dict) else None, file
    )
    if "zoo" not in metadata:
        raise MetanetError(f"{file} is no shard of a zoo: its header has no entry zoo")
    return validated(ShardHeader, parse_json(metadata["zoo"].encode(), file, nan=True), file)


def read_populations(
    folder: Path, manifest: Manifest, contents: Mapping[str, bytes], ids: Sequence[str]
) -> dict[str, Population]:
    """The networks of every architecture, stacked.

    Raises:
        DamagedZooError: shards that can't be read, or that are not of one architecture.
    """
    row_of = {identity: row for row, identity in enumerate(ids)}
    populations = {}
    for name, described in manifest.architectures.items():
        files = [file for file, entry in manifest.files.items() if entry.architecture == name]
        try:
            shards = [_shard(file, contents[file], row_of) for file in files]
            populations[name] = _population(folder, name, described, shards, row_of)
        except MetanetError as error:
            raise DamagedZooError(folder, {name: str(error)}) from None
    return populations


def _shard(
    file: str, data: bytes, row_of: Mapping[str, int]
) -> tuple[ShardHeader, dict[str, Tensor]]:
    header = read_header(data, file)
    try:
        state = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise MetanetError(f"{file} is no whole safetensors file: {error}") from None
    if sorted(header.order) != sorted(state):
        raise MetanetError(f"{file}: its header lists other tensors than it has")
    odd = [key for key, tensor in state.items() if tensor.shape[:1] != (len(header.rows),)]
    if odd:
        raise MetanetError(
            f"{file}: {odd[0][:100]!r} is not one tensor for each of its {len(header.rows)} networks"
        )
    unknown = [row.get("id") for row in header.rows if row.get("id") not in row_of]
    if unknown:
        raise MetanetError(f"{file}: the table has no network {str(unknown[0])[:100]!r}")
    return header, state


def _population(
    folder: Path,
    name: str,
    described: ArchitectureEntry,
    shards: Sequence[tuple[ShardHeader, dict[str, Tensor]]],
    row_of: Mapping[str, int],
) -> Population:
    if not shards:
        raise MetanetError("it has no shard")
    (first, like), *_ = shards
    for header, state in shards:
        same = header.order == first.order and all(
            state[k].shape[1:] == like[k].shape[1:] for k in first.order
        )
        if not same:
            raise MetanetError("its shards hold tensors of other names or shapes")
    blueprint = Blueprint(
        described.ref, described.arch_args, described.input_shape, described.input_range, name
    )
    # safetensors sorts its keys; depth order is what people and graphs expect
    state = {key: torch.cat([state[key] for _, state in shards]) for key in first.order}
    rows = torch.tensor([row_of[str(row["id"])] for header, _ in shards for row in header.rows])
    return Population.of(state, blueprint, rows=rows, named_in=folder)
