"""Laws 3 and 4 where blocks are no whole matrices: parts of tensors and of ranges, in any order,
heads, loops, ties."""

import functools

import pytest
import torch
from torch_geometric.data import Batch

import metanet
from metanet.graph import GraphStack, NodeType, permute_nodes, unstack
from metanet.graph import ParameterGraph as Graph
from metanet.nn import MODELS, Metanet, architecture_features
from metanet.nn._layout import DenseLayout
from metanet.nn._plan import plan
from metanet.nn._statistics import statistics_of_segments
from metanet.nn._values import ValueFeatures
from metanet.testing import assert_invariant, random_states
from nn import irregular
from nn.graphs import everything, one_by_one, ready, spread, stack
from symmetry.constructs import CONSTRUCTS
from symmetry.truth import Truth, decoders, recurrent, text

TRUTHS: dict[str, Truth] = {
    "gpt2": text.TRUTHS["gpt2"],
    "llama": decoders.TRUTHS["llama"],  # grouped queries, rotary positions
    "mixtral": decoders.TRUTHS["mixtral"],
    "lstm_both_ways": recurrent.TRUTHS["lstm_both_ways"],
}
BUILT = (
    "dense", "channel_shuffle", "channel_shuffle_into_three", "shortcut_padded", "fused_within_heads",
    "multihead",
    "grouped_queries", "linear_attention", "rotary_interleaved", "bilinear", "outer_products",
    "experts_mixed",
    "gru_cell", "tied_transposed", "unread", "weights_made", "bag", "fourier_operator_on_images",
    "complex_layers",
)  # fmt: skip
NAMES = (*BUILT, *TRUTHS)
SMALL = {
    "gmn": {"width": 8, "layers": 1},
    "relay": {"width": 8},
    "deep_sets": {"width": 8},
    "flat_mlp": {"width": 8, "layers": 1},
}
HERE = [name for name, cls in MODELS.items() if cls.bind is Metanet.bind]


@functools.cache
def traced(name: str) -> metanet.Architecture:
    torch.manual_seed(0)
    if name in TRUTHS:
        e = TRUTHS[name].make()
        return metanet.trace(
            e.model.eval(), *e.args, check_inputs=(e.check_args, e.check_kwargs), **e.kwargs
        )
    model, inputs, check = CONSTRUCTS[name].make()
    return metanet.trace(model.eval(), *inputs, check_inputs=(check, {}))


def networks(name: str, count: int = 3) -> GraphStack:
    states = random_states(traced(name), count, torch.Generator().manual_seed(1))
    return traced(name).template.stack({k: torch.stack([s[k] for s in states]) for k in states[0]})


def sparse(stacks: list[GraphStack]) -> Batch:
    return Batch.from_data_list([graph for s in stacks for graph in unstack(s).to_data_list()])


def test_the_templates_are_what_they_are_here_for():
    """Among the traced ones are parts of ranges, strided edges, loops, broadcasts both ways, many
    blocks a tensor."""
    blocks = [b for name in NAMES for b in traced(name).template.blocks]
    assert any(not b.plain and b.tensor is not None for b in blocks)
    assert any(not b.plain and b.tensor is None for b in blocks)
    assert any(b.strides is not None for b in blocks)
    assert any(b.source == b.destination for b in blocks)
    assert any(b.tensor is None and b.size("source") > 1 for b in blocks)
    assert any(b.tensor is None and b.size("destination") > 1 for b in blocks)
    assert len(traced("dense").template.blocks) > len(traced("dense").template.shapes)


@pytest.mark.parametrize("name", irregular.TEMPLATES)
def test_any_order_of_nodes_and_edges_gives_the_dense_numbers(name):
    given = stack(irregular.TEMPLATES[name](), 3)
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for graph in unstack(given).to_data_list():
        graph = permute_nodes(graph, torch.randperm(graph.num_nodes, generator=generator))
        graphs.append(
            _shuffle_edges(graph, torch.randperm(given.template.num_edges, generator=generator))
        )
    for model in ("gmn", "relay", "deep_sets"):
        net = ready(model, [given], **SMALL[model])
        dense = net([given])
        assert (dense - net(Batch.from_data_list(graphs))).abs().max() < 1e-10 * spread(dense)


def _shuffle_edges(graph: Graph, order: torch.Tensor) -> Graph:
    edges = graph.num_edges
    for key, value in graph.to_dict().items():
        if isinstance(value, torch.Tensor) and key.startswith(("edge_", "kernel_", "fan_")):
            graph[key] = value[:, order] if value.shape[0] == 2 != edges else value[order]
    return graph


@pytest.mark.parametrize("name", NAMES)
def test_law_3_relabelled_networks_get_the_same_answer(name):
    architecture = traced(name)
    for model in ("gmn", "relay"):
        assert_invariant(ready(model, [networks(name)], **SMALL[model]), architecture)
    # Deep Sets do not know which neurons a parameter joins, and so cannot see most illegal
    # relabellings
    assert_invariant(
        ready("deep_sets", [networks(name)], **SMALL["deep_sets"]), architecture, sensitive=False
    )


@pytest.mark.parametrize("name", ["dense", "grouped_queries", "gru_cell"])
def test_law_3_of_trees(name):
    model = ready("stat", [networks(name)])
    assert assert_invariant(model, traced(name), networks=8, sensitive=False) == 0


@pytest.mark.parametrize("name", ["dense", "channel_shuffle", "grouped_queries", "rnn_cell"])
def test_law_3_with_probes(name):
    torch.manual_seed(0)
    model, (x,), _ = CONSTRUCTS[name].make()
    architecture = metanet.trace(model.eval(), torch.randn(5, *x.shape[1:]))
    outputs = sum(r.count for r in architecture.template.nodes if r.type == NodeType.OUTPUT)
    net = metanet.nn.build(
        "probed_gmn",
        probes=5,
        inputs=tuple(x.shape[1:]),
        outputs=outputs,
        out_dim=3,
        gmn=SMALL["gmn"],
    )
    net.bind([architecture])
    assert_invariant(net.double().eval(), architecture)


@pytest.mark.parametrize("name", HERE)
def test_law_4_mixed_batches_dense_and_sparse_are_the_networks_one_by_one(name):
    stacks = [networks(n, 2) for n in NAMES]
    for batch in [[s] for s in stacks] if name == "flat_mlp" else [stacks]:
        model = ready(name, batch, **SMALL.get(name, {}))
        with torch.no_grad():
            together, general, alone = model(batch), model(sparse(batch)), model(one_by_one(batch))
        unit = 1e-10 * spread(together)
        assert unit > 0
        assert (together - general).abs().max() < unit
        assert (together - alone).abs().max() < unit


def test_statistics_and_values_are_those_of_every_block():
    stacks = everything()
    layout = DenseLayout(stacks, torch.device("cpu"), torch.float64)
    found = layout.statistics().split([len(s) for s in stacks for _ in s.template.blocks])
    blocks = [(s, b) for s in stacks for b in s.template.blocks]
    for (s, b), rows in zip(blocks, found, strict=True):
        for values, row in zip(s.edge_attr[:, b.edges(), 0], rows, strict=True):
            want = statistics_of_segments(values, torch.zeros(b.count, dtype=torch.long), 1)[0]
            assert torch.allclose(row, want, rtol=1e-12, atol=1e-12), b
    views = ValueFeatures()
    views.fit(stacks)
    for kind in {b.type for _, b in blocks if b.tensor is not None}:
        values = torch.cat(
            [s.edge_attr[:, b.edges(), 0].reshape(-1) for s, b in blocks if b.type == kind]
        )
        assert views.centre[kind] == pytest.approx(float(torch.quantile(values, 0.5)), abs=1e-6)


def test_blocks_of_the_same_sizes_are_worked_on_together():
    for template in (irregular.concatenated(), traced("shortcut_padded").template):
        weights = [b for b, fan in zip(template.blocks, template.fan_in, strict=True) if fan > 1]
        assert len(weights) == 17
        assert len(plan(template, torch.device("cpu")).matrices) == 10


def test_pieces_of_a_tensor_count_as_one_layer():
    """Two architectures, one with its weights in pieces: the features say the same of both, dense
    and sparse."""
    features = architecture_features(irregular.concatenated())
    names = metanet.nn.ARCHITECTURE_FEATURES
    assert features[names.index("convolutions")] == pytest.approx(0.5)
    assert features[names.index("norms")] == pytest.approx(0.5)
    assert architecture_features(irregular.heads())[names.index("linears")] == pytest.approx(0.4)
