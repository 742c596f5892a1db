"""Checks of parameter graphs: nothing is lost, nothing is there twice, and relabelling means the
same on both sides."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..architecture import Architecture
from ..errors import MetanetError
from ..graph import GraphTemplate, node_order, same_bits
from ..symmetry import Transform
from ._states import random_values


def graph_problems(
    architecture: Architecture, state: Mapping[str, Tensor] | None = None, seed: int = 0
) -> list[str]:
    """Everything that is wrong with the parameter graph of an architecture; nothing, one hopes.

    Every edge belongs to exactly one block, and every entry of every parameter has one; no node is
    without edges; the values come back bit for bit; a random transform of the parameters gives the
    same graph as the same transform of the graph, and moves something if the symmetries say so.

    Args:
        state: a checkpoint; random values are drawn if there is none.
        seed: of these, and of the transform.
    """
    template = architecture.template
    generator = torch.Generator().manual_seed(seed)
    state = random_values(architecture, generator) if state is None else state
    if problems := _coverage(architecture, template):
        return problems
    problems = _round_trip(template, state)
    transform = architecture.spec.sample(generator)
    try:
        order = node_order(template, transform)
    except MetanetError as e:
        return [*problems, str(e)]
    return [*problems, *_relabelled(template, state, transform, order)]


def assert_graph(
    architecture: Architecture, state: Mapping[str, Tensor] | None = None, seed: int = 0
) -> None:
    """A parameter graph keeps its laws: :func:`graph_problems` finds none.

    Raises:
        AssertionError: with all of them.
    """
    __tracebackhide__ = True
    problems = graph_problems(architecture, state, seed)
    assert not problems, f"the parameter graph of {architecture.name}:\n  " + "\n  ".join(problems)


def _coverage(architecture: Architecture, template: GraphTemplate) -> list[str]:
    problems = []
    stop = max([template.num_edges, *(b.stop for b in template.blocks)])
    seen = torch.zeros(stop, dtype=torch.int32)
    for b in template.blocks:
        seen.index_add_(0, b.edges(), torch.ones(b.count, dtype=torch.int32))
    if (seen != 1).any():
        return [f"{int((seen != 1).sum())} of {len(seen)} edges are in no block, or in several"]
    tensors = {
        n: t for n, t in architecture.spec.tensors.items() if t.tied_to is None and not t.integer
    }
    have, want = (
        template.shapes,
        {n: tuple(t.shape) for n, t in tensors.items() if torch.Size(t.shape).numel()},
    )
    if missing := sorted(want.keys() - have.keys()):
        problems.append(f"{len(missing)} tensors have no edges: {', '.join(missing[:5])}")
    if wrong := [n for n in want.keys() & have.keys() if tuple(have[n]) != want[n]]:
        problems.append(f"{len(wrong)} tensors have another shape: {', '.join(wrong[:5])}")
    alone = torch.ones(template.num_nodes, dtype=torch.bool)
    alone[template.static["edge_index"].reshape(-1)] = False
    if alone.any():
        problems.append(f"{int(alone.sum())} of {len(alone)} nodes have no edge")
    return problems


def _round_trip(template: GraphTemplate, state: Mapping[str, Tensor]) -> list[str]:
    dtypes = {n: str(t.dtype).removeprefix("torch.") for n, t in state.items()}
    back = template.tensors(template.values(state), dtypes)
    wrong = [n for n, t in back.items() if not same_bits(t, state[n])]
    return [f"{len(wrong)} tensors come back changed: {', '.join(wrong[:5])}"] if wrong else []


def _relabelled(
    template: GraphTemplate, state: Mapping[str, Tensor], transform: Transform, order: Tensor
) -> list[str]:  # fmt: skip
    problems = []
    new_number = torch.empty_like(order)
    new_number[order] = torch.arange(len(order))
    relabelled = transform(state)
    before, after = template.values(state)[:, 0], template.values(relabelled)[:, 0]
    moved = new_number[template.static["edge_index"]]
    want, have = (
        _edges(template, after, template.static["edge_index"]),
        _edges(template, before, moved),
    )
    have_sorted = have.sort().values
    for name in [
        n for n, t in relabelled.items() if n in template.shapes and not same_bits(t, state[n])
    ][:1]:
        stays = {n: state[n] for n, t in transform.spec.tensors.items() if name in (n, t.tied_to)}
        illegal = _edges(
            template, template.values({**relabelled, **stays})[:, 0], template.static["edge_index"]
        )
        if torch.equal(illegal.sort().values, have_sorted):
            problems.append(
                f"a relabelling that leaves out {name} gives the graph of the whole one"
            )
    if not torch.equal(want.sort().values, have_sorted):
        problems.append("the transform of the parameters and of the graph give different graphs")
    if not torch.equal(after, before) and torch.equal(
        _edges(template, before, template.static["edge_index"]), have
    ):
        problems.append("the transform moves parameters but no node")
    for key in ("node_type", "node_layer", "node_site", "node_group", "activation", "io_position"):
        if not torch.equal(template.static[key], template.static[key][order]):
            problems.append(f"the transform exchanges nodes of different {key}")
    return problems


def _edges(template: GraphTemplate, values: Tensor, ends: Tensor) -> Tensor:
    """Every edge with all it says as one number (a random linear form of it, mixed)."""
    generator = torch.Generator().manual_seed(0)
    static = template.static
    columns = [*ends, *static["kernel_pos"].T, static["edge_type"], static["edge_tensor"]]
    columns.append(
        values.contiguous()
        .view(torch.int64 if values.dtype == torch.float64 else torch.int32)
        .long()
    )
    out = torch.zeros(len(values), dtype=torch.long)
    for column in columns:
        out = (out ^ column) * (int(torch.randint(2**62, (), generator=generator)) * 2 + 1)
        out = out ^ (out >> 29)
    return out
