"""Parameter graphs on disk: safetensors and JSON, or a file of torch-geometric."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from ..checkpoints import (
    Checkpoint,
    atomic_write,
    load_checkpoint,
    load_objects,
    save_checkpoint,
    write_together,
)
from ..documents import Document, parse_json, read_json, validated
from ..errors import MetanetError
from ._checked import graph_of, refuse_unexpandable
from ._graph import ParameterGraph
from .template._bits import real_parts
from .template._template import GraphTemplate

_FORMAT = 1
_EDGES, _EXTRA, _ATTRIBUTE = "edge_attr", "extras/", "attributes/"  # names of tensors in the file
_OWN = ("edge_attr", "extras", "dtypes", "num_nodes")


class _Description(Document):
    """What ``NAME.json`` says of a graph."""

    format: int
    pair: str
    template: dict[str, Any]
    dtypes: dict[str, str]
    attributes: dict[str, Any]


def save_graph(
    graph: Data, template: GraphTemplate, path: str | os.PathLike, structure: bool = False
) -> list[Path]:
    """Write one parameter graph with its template.

    ``NAME.safetensors`` gets a ``NAME.json`` beside it. The first holds edge values, extras, and
    those attributes that differ from what the template says (of a graph whose nodes were put in
    another order, or with attributes added); the second holds the template and the dtypes.
    :func:`load_graph` gives the same graph, bit for bit.

    ``NAME.pt`` is one file: a plain :class:`torch_geometric.data.Data` with all attributes (some
    100 bytes an edge) and the template as JSON in ``data.template``. It needs no metanet::

        from torch_geometric.data.data import Data, DataEdgeAttr, DataTensorAttr
        from torch_geometric.data.storage import GlobalStorage

        with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
            data = torch.load("NAME.pt", weights_only=True)

    Args:
        graph: one graph, on any device.
        template: of its architecture.
        path: ends in ``.safetensors`` or ``.pt``; missing folders are made, old files are replaced.
        structure: write ``edge_index`` and all other attributes into the safetensors file too, for
            programs that do not read templates.

    Returns:
        The files.

    Raises:
        MetanetError: another suffix, a batch, a graph of another template, an attribute that can't
            be written, or a full disk.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt"):
        raise MetanetError(
            f"can't write '{path}': a graph is saved as NAME.safetensors (with NAME.json) or NAME.pt"
        )
    if isinstance(graph, Batch):
        raise MetanetError(
            f"can't write '{path}': it is a batch of {graph.num_graphs} graphs; save them one by one"
        )
    if (graph.num_nodes, graph.edge_attr.shape[0]) != (template.num_nodes, template.num_edges):
        raise MetanetError(
            f"can't write '{path}': the graph has {graph.num_nodes} nodes "
            f"and {graph.edge_attr.shape[0]} edges, "
            f"the template {template.num_nodes} and {template.num_edges}"
        )
    if path.suffix == ".pt":
        attributes = {
            k: _compact(v) if isinstance(v, Tensor) else v for k, v in graph.to_dict().items()
        }
        data = Data(**attributes, template=json.dumps(template.to_json()))
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            torch.save(
                data.cpu(), file
            )  # to a file of Python's: errors of the disk are OSErrors then
        return [path]
    tensors, others = _attributes(graph, template, structure)
    for name, value in _only(graph, "extras").items():
        tensors[f"{_EXTRA}{name}"] = real_parts(value)  # safetensors knows one complex dtype alone
    pair = uuid.uuid4().hex  # tells that both files are of one save, should somebody copy only one
    description = {
        "format": _FORMAT,
        "pair": pair,
        "template": template.to_json(),
        "dtypes": _only(graph, "dtypes"),
        "attributes": others,
    }
    try:
        text = json.dumps(description)
    except (TypeError, ValueError) as error:
        raise MetanetError(
            f"can't write '{path}': its attributes {', '.join(others)} are no JSON: {error}"
        ) from error
    with write_together(path.parent, path.stem) as beside:
        save_checkpoint(beside / path.name, tensors, {"pair": pair})
        (beside / _json_of(path).name).write_text(text)
    return [path, _json_of(path)]


def load_graph(path: str | os.PathLike) -> tuple[ParameterGraph, GraphTemplate]:
    """Read what :func:`save_graph` wrote.

    Args:
        path: the ``.safetensors`` (or its ``.json``) or ``.pt`` file.

    Raises:
        MetanetError: a file is missing or damaged, the two are not of one save, or what is in them
            does not fit.
    """
    path = Path(path)
    if path.suffix == ".pt":
        return _load_torch(path)
    path = path.with_suffix(".safetensors")
    checkpoint = load_checkpoint(path, unwrap=False)
    beside = _json_of(path)
    if not beside.exists():
        raise MetanetError(
            f"'{beside}' does not exist: a graph is NAME.safetensors and NAME.json together"
        )
    content = read_json(beside, nan=True)  # attributes may be NaN
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise MetanetError(
            f"'{beside}' is no graph of format {_FORMAT}, which this version of metanet reads"
        )
    description = validated(_Description, content, f"'{beside}'")
    if checkpoint.metadata.get("pair") != description.pair:
        raise MetanetError(
            f"'{path}' and '{beside.name}' are not of the same save: save the graph again"
        )
    template = GraphTemplate.from_json(description.template, f"the template in '{beside}'")
    if _EDGES not in checkpoint or checkpoint.shapes[_EDGES][:1] != (template.num_edges,):
        raise MetanetError(
            f"'{path}' has no {_EDGES} of {template.num_edges} edges, as its template says"
        )
    refuse_unexpandable(template, beside)
    held = {
        name.removeprefix(_ATTRIBUTE): checkpoint[name]
        for name in checkpoint
        if name.startswith(_ATTRIBUTE)
    }
    attributes = {
        **template.static,
        **held,
        **description.attributes,
        "edge_attr": checkpoint[_EDGES],
        "num_nodes": template.num_nodes,
        "dtypes": [description.dtypes],
        "extras": [_extras(checkpoint, description.dtypes)],
    }
    return graph_of(attributes, template, path), template


_PARTS = {"complex32": torch.float16, "complex64": torch.float32, "complex128": torch.float64}


def _extras(checkpoint: Checkpoint, dtypes: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors that travel beside the edges, complex ones made of their parts again.

    Raises:
        MetanetError: a complex one is not stored as its parts.
    """
    extras = {n.removeprefix(_EXTRA): checkpoint[n] for n in checkpoint if n.startswith(_EXTRA)}
    for name, tensor in extras.items():
        part = _PARTS.get(dtypes.get(name, ""))
        if part is None:
            continue
        if tensor.dtype != part or tensor.shape[-1:] != (2,):
            raise MetanetError(
                f"'{checkpoint.path}': {_EXTRA}{name} is {tuple(tensor.shape)} "
                f"{tensor.dtype}, expected real and "
                f"imaginary parts of {dtypes[name]} numbers, (..., 2) {part}"
            )
        extras[name] = torch.view_as_complex(tensor.contiguous())
    return extras


def _load_torch(path: Path) -> tuple[ParameterGraph, GraphTemplate]:
    if not path.exists():
        raise MetanetError(f"graph '{path}' does not exist")
    data = load_objects(path, (Data, DataEdgeAttr, DataTensorAttr, GlobalStorage))
    place = f"'{path}' is damaged, or no graph that metanet saved"
    try:
        attributes = dict(data.to_dict())
    except Exception as error:  # it is whatever the file makes of it
        raise MetanetError(f"{place}: {type(error).__name__}") from error
    text = validated(TypeAdapter(str), attributes.pop("template", None), f"{place}: its template")
    template = GraphTemplate.from_json(
        parse_json(text, f"the template in '{path}'"), f"the template in '{path}'"
    )
    return graph_of(attributes, template, path), template


def _attributes(
    graph: Data, template: GraphTemplate, structure: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors to write by their names in the file, and attributes that are no tensors."""
    static = template.static
    tensors: dict[str, Tensor] = {_EDGES: graph.edge_attr}
    others: dict[str, Any] = {}
    for key, value in graph.to_dict().items():
        if key in _OWN:
            continue
        if not isinstance(value, Tensor):
            others[key] = value
        elif structure or key not in static or not _same(value, static[key]):
            tensors[f"{_ATTRIBUTE}{key}"] = value
    return tensors, others


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.dtype == b.dtype and torch.equal(a, b.to(a.device)))


def _only(graph: Data, key: str) -> Mapping[str, Any]:
    """Attributes of the checkpoint as a whole are lists of one dict."""
    (value,) = getattr(graph, key, None) or [{}]
    return value


def _compact(x: Tensor) -> Tensor:
    """With a storage of its own size: ``torch.save`` writes whole storages."""
    return (
        x.clone(memory_format=torch.contiguous_format)
        if x.untyped_storage().nbytes() > x.nbytes
        else x
    )


def _json_of(path: Path) -> Path:
    return path.with_suffix(".json")
