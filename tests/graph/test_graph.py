"""Blocks, stacks and batches are the same graphs in other forms."""

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

import metanet
from metanet.errors import MetanetError
from metanet.graph import EdgeType, NodeType, fill, permute_nodes, read, unstack
from metanet.testing import random_states
from networks import ARCHITECTURES


def arch_of(name: str) -> metanet.Architecture:
    make, example = ARCHITECTURES[name]
    return metanet.trace(make(), example())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dense_blocks_agree_with_the_edges(name):
    """Entry (g, d, s, k) of a block's dense array joins the neurons that edge_index says, at its kernel position."""
    template = arch_of(name).template
    values = torch.arange(float(template.num_edges)).reshape(1, -1, 1)
    static = template.static
    for block in template.blocks:
        dense = block.dense(values)
        assert torch.equal(block.flat(dense), values[:, block.start : block.stop])
        group, dst, src, _ = block.dense_shape
        source, target = template.nodes[block.source], template.nodes[block.destination]
        assert source.count == group * src
        assert target.count == group * dst
        edges = dense[0, ..., 0].long()
        g, d, s, k = (x.flatten() for x in torch.meshgrid(*map(torch.arange, block.dense_shape), indexing="ij"))
        e = edges.flatten()
        assert torch.equal(static["edge_index"][0, e], source.start + g * src + s)
        assert torch.equal(static["edge_index"][1, e], target.start + g * dst + d)
        assert torch.equal(static["kernel_pos"][e], template.kernel_positions(block)[k])


def test_edges_of_a_convolution_by_hand():
    arch = arch_of("cnn_flatten")
    graph = metanet.to_graph(ARCHITECTURES["cnn_flatten"][0](), arch)
    block = next(b for b in arch.template.blocks if b.tensor == "6.weight")
    assert (block.type, block.dense_shape) == (EdgeType.LINEAR, (1, 10, 6, 4))  # flatten: 2x2 positions of 6 channels
    conv = next(b for b in arch.template.blocks if b.tensor == "3.weight")
    assert (conv.type, conv.dense_shape) == (EdgeType.CONVOLUTION, (1, 6, 4, 4))
    kinds = [NodeType(t) for t in graph.node_type.unique().tolist()]
    assert kinds == [NodeType.INPUT, NodeType.HIDDEN, NodeType.OUTPUT, NodeType.BIAS]
    assert graph.io_position[graph.node_type == NodeType.OUTPUT].tolist() == list(range(10))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_law_4_batches_are_the_graphs_one_by_one(name):
    arch = arch_of(name)
    states = random_states(arch, 3, torch.Generator().manual_seed(0))
    for state in states:
        state.update({n: state[t.tied_to] for n, t in arch.spec.tensors.items() if t.tied_to})
    stacked = {k: torch.stack([s[k] for s in states]) for k in states[0]}
    batch = fill(arch.template, stacked)
    assert isinstance(batch, Batch)
    for graph, state in zip(batch.to_data_list(), states, strict=True):
        one = fill(arch.template, state)
        assert graph.validate()
        for key in one.keys():  # noqa: SIM118
            if isinstance(one[key], torch.Tensor):
                assert torch.equal(graph[key], one[key]), key
        assert all(torch.equal(read(arch.template, graph)[k], v) for k, v in state.items())


def test_mixed_architectures_batch_in_pygs_loader():
    graphs = []
    for name in ("mlp", "cnn_batchnorm", "residual"):
        make, example = ARCHITECTURES[name]
        model = make()
        graphs.append(metanet.to_graph(model, metanet.trace(model, example())))
    batch = next(iter(DataLoader(graphs, batch_size=3)))
    assert batch.num_nodes == sum(g.num_nodes for g in graphs)
    for one, again in zip(graphs, batch.to_data_list(), strict=True):
        assert all(torch.equal(one[k], again[k]) for k in one.keys() if isinstance(one[k], torch.Tensor))  # noqa: SIM118
        assert one.extras == again.extras or str(one.extras) == str(again.extras)


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n != "tied"])
def test_a_transform_of_the_parameters_relabels_the_graph(name):
    """The same transform on the parameters and on the nodes gives the same set of edges."""
    arch = arch_of(name)
    state = random_states(arch, 1, torch.Generator().manual_seed(1))[0]
    t = arch.spec.sample(torch.Generator().manual_seed(2))
    order = torch.arange(arch.template.num_nodes)
    for r in arch.template.nodes:
        if r.axis is not None:
            axis = metanet.symmetry.axis_from_json(r.axis)
            order[r.start : r.stop] = r.start + t.permutation(axis)
    moved = fill(arch.template, t(state))
    plain = permute_nodes(fill(arch.template, state), order)

    def edges(graph) -> list[tuple]:
        rows = torch.cat(
            [graph.edge_index.T, graph.kernel_pos, graph.edge_type[:, None], graph.edge_tensor[:, None]], 1
        )
        return sorted(zip(map(tuple, rows.tolist()), graph.edge_attr.flatten().tolist(), strict=True))

    assert edges(moved) == edges(plain)
    assert edges(moved) != edges(fill(arch.template, state))


def test_validate_names_the_numbers():
    arch = arch_of("mlp")
    graph = metanet.to_graph(ARCHITECTURES["mlp"][0](), arch)
    graph.edge_index[0, 0] = 10_000
    with pytest.raises(MetanetError, match="names node 10000, but there are"):
        graph.validate()
    graph = metanet.to_graph(ARCHITECTURES["mlp"][0](), arch)
    graph.fan_in = graph.fan_in[:-1]
    with pytest.raises(MetanetError, match="fan_in has .* rows, expected one per edge"):
        graph.validate()


def test_reading_a_foreign_graph_is_refused():
    graph = metanet.to_graph(ARCHITECTURES["mlp"][0](), arch_of("mlp"))
    with pytest.raises(metanet.MetanetError, match="edges, this architecture"):
        metanet.from_graph(graph, arch_of("siren"))


def test_unstack_shares_nothing_but_structure():
    arch = arch_of("siren")
    states = random_states(arch, 2, torch.Generator().manual_seed(0))
    stack = arch.template.stack({k: torch.stack([s[k] for s in states]) for k in states[0]})
    batch = unstack(stack)
    assert torch.equal(batch.edge_attr.flatten(), stack.edge_attr.flatten())
    assert batch.num_graphs == 2


def test_the_activation_that_follows_a_site_is_known():
    def activations(name: str) -> list[str]:
        return [r.activation for r in arch_of(name).template.nodes if r.axis is not None]

    assert activations("mlp") == ["none", "relu", "tanh", "none"]
    assert activations("siren") == ["none", "sin", "sin", "none"]
    assert activations("normed") == ["none", "gelu", "softmax", "none"]
    # the sum of a residual block is a site of its own, with the activation behind it
    assert activations("residual") == ["none", "none", "leaky_relu", "none", "relu", "none"]
