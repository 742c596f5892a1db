"""The files of a graph template: their declared shape, and what must hold between their parts.

A template says where the entries of tensors go, number by number. One that leaves an edge out, or
names a node that there isn't, would make graphs of whatever lay in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt

from ...documents import Document
from ...errors import MetanetError, brief
from ._blocks import Block, NodeRange, window
from ._schema import ACTIVATIONS, ROLES, EdgeType, NodeType

_LARGEST = 2**48
_SEEN = 2**24  # edges of a tensor up to which each is looked at
_DTYPES = frozenset(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))

_Count = Annotated[int, Ge(0), Lt(_LARGEST)]
_Step = Annotated[int, Gt(-_LARGEST), Lt(_LARGEST)]
if TYPE_CHECKING:
    _Activation = str
    _Role = str
else:
    _Activation = Literal[ACTIVATIONS]
    _Role = Literal[ROLES]


class NodeRangeFile(Document):
    name: str
    start: _Count
    count: Annotated[int, Ge(1), Lt(_LARGEST)]
    type: Annotated[int, Ge(0), Lt(len(NodeType))]
    layer: _Count
    activation: _Activation = "none"
    group: str = ""
    width: _Count = 0


class BlockFile(Document):
    tensor: str | None
    names: list[str]
    start: _Count
    shape: list[Annotated[int, Ge(1), Lt(_LARGEST)]]
    roles: list[_Role]
    source: _Count
    destination: _Count
    type: Annotated[int, Ge(0), Lt(len(EdgeType))]
    layer: _Count
    strides: list[_Count] | None = None
    source_start: _Count = 0
    source_strides: list[_Step] | None = None
    destination_start: _Count = 0
    destination_strides: list[_Step] | None = None
    plain: bool = True


class TemplateFile(Document):
    """What ``GraphTemplate.to_json`` makes of a template of single neurons."""

    nodes: list[NodeRangeFile]
    blocks: list[BlockFile]
    dtypes: dict[str, str]
    shapes: dict[str, list[_Count]]
    extras: list[str]
    groups: list[str]


class CoarseFile(Document):
    """The same of a coarse template: the one that it is made from."""

    coarse: TemplateFile


def node_range_of(file: NodeRangeFile) -> NodeRange:
    return NodeRange(**{**dict(file), "type": NodeType(file.type)})


def block_of(file: BlockFile) -> Block:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in file
    }
    return Block(**{**values, "type": EdgeType(file.type)})


# ---------------------------------------------------------------- what must hold between the parts


def check_template(template: Any, place: str, error: type[MetanetError] = MetanetError) -> None:
    """Refuse a template whose parts contradict each other.

    Args:
        template: a ``GraphTemplate`` of single neurons as its file states it.
        place: how the message names it.
        error: the class of what is raised.

    Raises:
        MetanetError: lists the first contradictions with the tensor or range.
    """
    # later checks take for granted what earlier ones found out
    for check in (_of_nodes, _of_blocks, _of_edges):
        if problems := list(islice(check(template), 6)):
            shown = [brief(problem, 240) for problem in problems]
            raise error(
                "\n  ".join([f"{place} is damaged: its parts contradict each other:", *shown])
            )


def _of_nodes(template: Any) -> Iterator[str]:
    reached = 0
    for nodes in template.nodes:
        title = f"the nodes of {brief(nodes.name)}"
        if nodes.start != reached:
            yield f"{title} start at {nodes.start}, expected {reached}"
        if nodes.group and nodes.group not in template.groups:
            yield f"{title} are of the group {brief(nodes.group)}, which there isn't"
        reached = nodes.start + nodes.count
    if max(reached, sum(block.count for block in template.blocks)) >= _LARGEST:
        yield f"it has more than {_LARGEST:,} nodes or edges"
    if len(set(template.groups)) < len(template.groups):
        yield "two groups have one name"
    for name, dtype in template.dtypes.items():
        if dtype not in _DTYPES:
            yield f"{brief(name)} has the dtype {brief(dtype)}, which torch hasn't"
    for name, shape in template.shapes.items():
        if prod(max(1, n) for n in shape) >= _LARGEST:
            yield f"{brief(name)} has the shape {brief(shape)}, of more than {_LARGEST:,} entries"


def _of_blocks(template: Any) -> Iterator[str]:
    for number, block in enumerate(template.blocks):
        for problem in _of_block(template, block):
            yield f"block {number} of {brief(block.tensor)} {problem}"


def _of_block(template: Any, block: Any) -> Iterator[str]:
    of_digits = (block.roles, block.strides, block.source_strides, block.destination_strides)
    lengths = {len(numbers) for numbers in of_digits if numbers is not None}
    if not lengths <= {len(block.shape)}:
        yield f"has the shape {brief(block.shape)}, and roles or strides of another length"
        return
    if max(block.source, block.destination) >= len(template.nodes):
        yield "runs between nodes that there aren't"
        return
    yield from _of_names(template, block)
    starts = {"source": block.source_start, "destination": block.destination_start}
    for side, start in starts.items():
        count = template.nodes[getattr(block, side)].count
        first, last = _reach(start, block.shape, block.node_strides(side))
        if first < 0 or last >= count:
            yield f"names nodes {first} to {last} as its {side}, of which there are {count}"


def _of_names(template: Any, block: Any) -> Iterator[str]:
    tensor = block.tensor
    if tensor is None:
        if block.names:
            yield "is constant, and has names"
        return
    if tensor not in template.dtypes:
        yield "has no dtype"
    if tensor not in template.shapes or tensor not in block.names:
        yield "has no shape, or is not among its own names"


def _reach(start: int, sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """The lowest and the highest number that digits lead to.

    >>> _reach(10, (3, 2), (4, -1))
    (9, 18)
    """
    steps = [(size - 1) * stride for size, stride in zip(sizes, strides, strict=True)]
    down = sum(min(step, 0) for step in steps)
    up = sum(max(step, 0) for step in steps)
    return start + down, start + up


def _of_edges(template: Any) -> Iterator[str]:
    """Each edge belongs to one entry of one tensor."""
    reached = 0
    for name, _, start, count in template.stretches:
        if start != reached:
            yield f"the edges of {brief(name)} start at {start}, expected {reached}"
        reached = start + count
        if name is None:
            continue
        blocks = [block for block in template.blocks if block.tensor == name]
        if blocks and not _cover(blocks, start, count):
            yield f"the edges of {brief(name)} are not each one entry of it"
    if reached != template.num_edges:
        yield f"its tensors have {reached:,} entries, its blocks {template.num_edges:,}"


def _cover(blocks: Sequence[Block], start: int, count: int) -> bool:
    """Whether blocks take each of ``count`` edges from ``start`` on exactly once."""
    if sum(block.count for block in blocks) != count:
        return False
    if any(block.start < start or block.stop > start + count for block in blocks):
        return False
    if all(block.strides is None for block in blocks):
        ends = sorted((block.start, block.stop) for block in blocks)
        return all(end == begin for (_, end), (begin, _) in zip(ends, ends[1:], strict=False))
    if count > _SEEN:
        return True
    seen = torch.zeros(count, dtype=torch.bool)
    for block in blocks:
        window(seen, replace(block, start=block.start - start)).fill_(True)
    return bool(seen.all())
