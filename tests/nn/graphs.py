"""Graphs to try models on, models ready to be tried, and what it means to relabel a graph."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

import metanet.nn
from metanet.graph import GraphStack, GraphTemplate
from nn import irregular
from nn import templates as make

Stacks = list[GraphStack]


def templates() -> dict[str, GraphTemplate]:
    """One of each kind of structure."""
    return {
        "mlp": make.mlp(6, 5, 5, 4, activation="tanh"),
        "cnn": make.cnn(4, 6, flatten=4),
        "resnet": make.cnn(3, 5, norm=True, residual=True, activation="gelu"),
        "depthwise": make.cnn(4, 4, depthwise=True),
        "grouped": make.grouped(),
    }


def stack(template: GraphTemplate, graphs: int, seed: int = 0) -> GraphStack:
    """Random values; 1 on constant edges."""
    generator = torch.Generator().manual_seed(seed)
    values = (
        torch.randn(graphs, template.num_edges, 1, generator=generator, dtype=torch.float64) * 0.4
    )
    for b in template.blocks:
        if b.tensor is None:
            values[:, b.edges()] = 1
    return GraphStack(template, values)


def mixed() -> Stacks:
    return [stack(t, 2 + i % 3, seed=i) for i, t in enumerate(templates().values())]


def everything() -> Stacks:
    """With those whose blocks are not simply matrices."""
    return mixed() + [
        stack(make(), 2 + i % 3, seed=9 + i) for i, make in enumerate(irregular.TEMPLATES.values())
    ]


def sparse(stacks: Sequence[GraphStack]) -> Batch:
    """The same graphs for the sparse path."""
    graphs = [
        Data(edge_attr=v, num_nodes=s.template.num_nodes, **s.template.static)
        for s in stacks
        for v in s.edge_attr
    ]
    return Batch.from_data_list(graphs)


def one_by_one(stacks: Sequence[GraphStack]) -> Stacks:
    return [GraphStack(s.template, v[None]) for s in stacks for v in s.edge_attr]


def ready(name: str, stacks: Stacks, **arguments: object) -> metanet.nn.Metanet:
    """A model in float64 that has seen the stacks."""
    torch.manual_seed(0)
    if name == "stat":
        arguments = {"iterations": 20, **arguments}
    model = metanet.nn.build(name, out_dim=3, **arguments)
    if isinstance(model, metanet.nn.NeuralMetanet):
        model.double().fit_normalisation(stacks)
        for p in model.parameters():  # what starts at zero or one must take part too
            p.data += 0.05 * torch.randn_like(p)
        return model.eval()
    more = [stack(s.template, 20, seed=7 + i) for i, s in enumerate(stacks)]
    target = torch.cat([s.edge_attr[:, :30].mean((1, 2)) + s.edge_attr[:, -1, 0] for s in more])
    model.fit(more, torch.stack([target, target.square(), -target], 1))
    return model


def spread(outputs: Tensor) -> Tensor:
    """The unit of errors: how much the outputs of different networks differ."""
    return outputs.std(0).min()


def relabel(stacks: Stacks, seed: int, io: bool = False) -> Stacks:
    """Every hidden node range in another order, in all blocks that touch it: the same graphs up to
    relabelling.

    Groups (of a grouped convolution; single neurons in a residual sum or a depthwise convolution)
    move alike in the ranges they join, the neurons within each as they like.

    Args:
        io: relabel inputs and outputs, and nothing else.
    """
    generator = torch.Generator().manual_seed(seed)
    return [GraphStack(s.template, _apply(s, _orders(s.template, generator, io))) for s in stacks]


def relabel_one(s: GraphStack, block: int, end: str) -> GraphStack:
    """An illegal relabelling: one end of one block moves, and nothing else."""
    b = s.template.blocks[block]
    g, d, src, _ = b.dense_shape
    orders = {"destination": torch.arange(g * d), "source": torch.arange(g * src)}
    orders[end] = orders[end].roll(1)
    values = s.edge_attr.clone()
    array = b.dense(s.edge_attr)
    if g > 1:  # single neurons in a row: only depthwise convolutions have weights of their own
        assert d == src == 1
        array = array.roll(1, 1)
    else:
        array = array[:, :, orders["destination"]][:, :, :, orders["source"]]
    values[:, b.start : b.stop] = b.flat(array)
    return GraphStack(s.template, values)


def _orders(template: GraphTemplate, generator: torch.Generator, io: bool) -> list[Tensor]:
    component = list(range(len(template.nodes)))
    groups = [1] * len(template.nodes)
    for b in template.blocks:
        if (g := b.size("group")) > 1:
            old, new = component[b.source], component[b.destination]
            component = [new if c == old else c for c in component]
            groups[b.source] = groups[b.destination] = g
    fixed = {c for c, r in zip(component, template.nodes, strict=True) if r.keeps_identity}
    moves: dict[int, Tensor] = {}
    orders = []
    for c, g, r in zip(component, groups, template.nodes, strict=True):
        if c not in moves:
            moves[c] = torch.randperm(g, generator=generator)
        size = r.count // g
        order = torch.cat(
            [i * size + torch.randperm(size, generator=generator) for i in moves[c].tolist()]
        )
        orders.append(order if (c in fixed) == io else torch.arange(r.count))
    return orders


def _apply(s: GraphStack, orders: list[Tensor]) -> Tensor:
    values = s.edge_attr.clone()
    for b in s.template.blocks:
        g, d, src, _ = b.dense_shape
        to, from_ = orders[b.destination].view(g, d), orders[b.source].view(g, src)
        array = b.dense(s.edge_attr)
        whole = [
            array[:, old][:, to[new] % d][:, :, from_[new] % src]
            for new, old in enumerate((to[:, 0] // d).tolist())
        ]
        values[:, b.start : b.stop] = b.flat(torch.stack(whole, 1))
    return values


def former(state):
    """As tensors of the readout were named before version 0.2."""
    names = {"readout.head.": "readout.out.", "readout.pooled.": "readout.head."}
    renamed = {}
    for name, tensor in state.items():
        at = next((old for old in names if old in name), None)
        renamed[name.replace(at, names[at]) if at else name] = tensor
    return renamed
