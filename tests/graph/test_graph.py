"""Blocks, stacks and batches are the same graphs in other forms."""

import math
from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.graph import (
    SUMMARY,
    EdgeType,
    NodeType,
    _memory,
    fill,
    node_order,
    permute_nodes,
    read,
    unstack,
)
from metanet.testing import assert_graph, random_states, random_values
from networks import ARCHITECTURES


def arch_of(name: str) -> metanet.Architecture:
    make, example = ARCHITECTURES[name]
    return metanet.trace(make(), example())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dense_blocks_agree_with_the_edges(name):
    """Entry (g, d, s, k) of a block's dense array joins the neurons that edge_index says, at its
    kernel position."""
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
        g, d, s, k = (
            x.flatten()
            for x in torch.meshgrid(*map(torch.arange, block.dense_shape), indexing="ij")
        )
        e = edges.flatten()
        assert torch.equal(static["edge_index"][0, e], source.start + g * src + s)
        assert torch.equal(static["edge_index"][1, e], target.start + g * dst + d)
        assert torch.equal(static["kernel_pos"][e], template.kernel_positions(block)[k])


def test_edges_of_a_convolution_by_hand():
    arch = arch_of("cnn_flatten")
    graph = metanet.to_graph(ARCHITECTURES["cnn_flatten"][0](), arch)
    block = next(b for b in arch.template.blocks if b.tensor == "6.weight")
    assert (block.type, block.dense_shape) == (
        EdgeType.LINEAR,
        (1, 10, 6, 4),
    )  # flatten: 2x2 positions of 6 channels
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
        assert all(
            torch.equal(one[k], again[k])
            for k in one.keys()  # noqa: SIM118
            if isinstance(one[k], torch.Tensor)
        )
        assert one.extras == again.extras or str(one.extras) == str(again.extras)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_transform_of_the_parameters_relabels_the_graph(name):
    """The same transform on the parameters and on the nodes gives the same set of edges."""
    arch = arch_of(name)
    state = random_states(arch, 1, torch.Generator().manual_seed(1))[0]
    state.update({n: state[t.tied_to] for n, t in arch.spec.tensors.items() if t.tied_to})
    t = arch.spec.sample(torch.Generator().manual_seed(2))
    moved = fill(arch.template, t(state))
    plain = permute_nodes(fill(arch.template, state), node_order(arch.template, t))

    def edges(graph) -> list[tuple]:
        rows = torch.cat(
            [
                graph.edge_index.T,
                graph.kernel_pos,
                graph.edge_type[:, None],
                graph.edge_tensor[:, None],
            ],
            1,
        )
        return sorted(
            zip(map(tuple, rows.tolist()), graph.edge_attr.flatten().tolist(), strict=True)
        )

    assert edges(moved) == edges(plain)
    assert edges(moved) != edges(fill(arch.template, state))


def test_a_transform_of_another_architecture_is_refused():
    t = arch_of("siren").spec.sample(torch.Generator().manual_seed(0))
    with pytest.raises(MetanetError):
        node_order(arch_of("mlp").template, t)


def test_the_graph_laws_are_checked():
    """The public check finds nothing wrong, and finds a template that loses an edge or joins the
    wrong neurons."""
    arch = arch_of("residual")
    assert_graph(arch)
    template = arch.template
    weight = next(
        i
        for i, b in enumerate(template.blocks)
        if b.type == EdgeType.CONVOLUTION and b.dense_shape[2] > 1
    )
    wrong = replace(template.blocks[weight], source=template.blocks[weight].destination)
    for blocks in (template.blocks[:weight] + template.blocks[weight + 1 :],
                   (*template.blocks[:weight], wrong, *template.blocks[weight + 1 :])):  # fmt: skip
        broken = replace(arch, _loaded=replace(template, blocks=blocks))
        with pytest.raises(AssertionError):
            assert_graph(broken)


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
        return [r.activation for r in arch_of(name).template.nodes if r.type <= NodeType.SUM]

    assert activations("mlp") == ["none", "relu", "tanh", "none"]
    assert activations("siren") == ["none", "sin", "sin", "none"]
    assert activations("normed") == ["none", "gelu", "softmax", "none"]
    # the sum of a residual block is a site of its own, with the activation behind it
    assert activations("residual") == ["none", "none", "leaky_relu", "none", "relu", "none"]


# ---------------------------------------------------------------- every dtype, bit for bit

FLOATS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_law_2_every_bit_pattern_comes_back(dtype):
    """All 256 of fp8; of wider types random patterns, so that every kind of NaN, infinity and
    denormal is there."""
    arch = arch_of("mlp")
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, t in arch.spec.tensors.items():
        count = math.prod(t.shape) * dtype.itemsize
        raw = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
        state[name] = raw.view(dtype).view(tuple(t.shape))
    graph = metanet.to_graph(state, arch)
    assert graph.validate()
    back = metanet.from_graph(graph, arch)
    assert back.keys() == state.keys()
    for name in state:
        assert back[name].dtype == dtype
        assert torch.equal(bits(back[name]), bits(state[name])), name


def test_law_2_mixed_dtypes_and_buffers():
    arch = arch_of("cnn_batchnorm")
    state = random_values(arch, torch.Generator().manual_seed(0))
    for (name, t), dtype in zip(list(state.items()), FLOATS * 5, strict=False):
        state[name] = t.to(dtype)
    state |= {n: torch.tensor(7) for n in arch.template.extras}
    assert arch.template.extras
    back = metanet.from_graph(metanet.to_graph(state, arch), arch)
    assert back.keys() == state.keys()
    assert all(
        back[n].dtype == t.dtype and torch.equal(bits(back[n]), bits(t)) for n, t in state.items()
    )


def test_nan_and_infinity_are_edges_like_any_other():
    arch = arch_of("mlp")
    state = random_values(arch, torch.Generator().manual_seed(0))
    state["1.weight"][0, 0], state["1.weight"][0, 1], state["1.weight"][0, 2] = (
        math.nan,
        math.inf,
        0.0,
    )
    graph = metanet.to_graph(state, arch)
    assert graph.edge_attr.isnan().sum() == 1
    assert graph.edge_attr.isinf().sum() == 1
    assert graph.edge_attr.shape[0] == arch.template.num_edges  # a zero weight keeps its edge


def test_tied_names_share_edges_and_all_come_back():
    arch = arch_of("tied")
    state = random_values(arch, torch.Generator().manual_seed(0))
    count = sum(math.prod(t.shape) for t in arch.spec.tensors.values() if t.tied_to is None)
    graph = metanet.to_graph(state, arch)
    assert int((graph.edge_type != EdgeType.TIED).sum()) == count
    del state["b.weight"]  # as files leave one of them out
    back = metanet.from_graph(metanet.to_graph(state, arch), arch)
    assert torch.equal(back["b.weight"], state["a.weight"])
    state["b.weight"] = state["a.weight"] + 1
    with pytest.raises(
        CheckpointError, match=r"tied     b\.weight and a\.weight are one tensor here"
    ):
        metanet.to_graph(state, arch)


# ---------------------------------------------------------------- many at once, and bad input


def test_a_list_of_state_dicts_is_one_batch_as_pyg_would_make_it():
    arch = arch_of("cnn_batchnorm")
    states = [random_values(arch, torch.Generator().manual_seed(i)) for i in range(3)]
    for i, state in enumerate(states):
        state |= {n: torch.tensor(i) for n in arch.template.extras}
    batch = metanet.to_graph(states, arch)
    want = Batch.from_data_list([metanet.to_graph(s, arch) for s in states])
    for key in want.keys():  # noqa: SIM118
        assert (
            torch.equal(batch[key], want[key])
            if isinstance(want[key], torch.Tensor)
            else batch[key] == want[key]
        ), key
    for graph, state in zip(batch.to_data_list(), states, strict=True):
        back = metanet.from_graph(graph, arch)
        assert all(torch.equal(back[n], t) for n, t in state.items())
    again = metanet.to_graph(states[::-1], arch)  # shares the structure, not the values
    assert torch.equal(again.edge_index, batch.edge_index)
    assert not torch.equal(again.edge_attr, batch.edge_attr)


def test_bad_checkpoints_are_refused_with_what_differs():
    arch = arch_of("mlp")
    state = random_values(arch, torch.Generator().manual_seed(0))
    wrong = {**state, "1.weight": state["1.weight"].T, "3.bias": state["3.bias"].to(torch.int8)}
    del wrong["5.bias"]
    with pytest.raises(CheckpointError) as error:
        metanet.to_graph(wrong, arch)
    for line in (
        "missing  5.bias (10,)",
        "1.weight is (64, 12), expected (12, 64)",
        "3.bias holds torch.int8",
    ):
        assert line in str(error.value)
    with pytest.raises(
        CheckpointError, match="1 tensors that the architecture does not know: head.weight"
    ):
        metanet.to_graph({**state, "head.weight": state["1.weight"]}, arch)
    with pytest.raises(CheckpointError, match="checkpoint 1 of 2 does not have 5.bias"):
        metanet.to_graph([state, {k: v for k, v in state.items() if k != "5.bias"}], arch)
    with pytest.raises(MetanetError, match="the list is empty"):
        metanet.to_graph([], arch)
    with pytest.raises(CheckpointError, match="batch of 2 graphs"):
        metanet.from_graph(metanet.to_graph([state, state], arch), arch)


def test_a_graph_that_does_not_fit_into_memory_is_refused(monkeypatch):
    arch = arch_of("mlp")
    monkeypatch.setattr(_memory, "available_memory", lambda: 5000)
    monkeypatch.setattr(_memory, "_SMALL", 0)
    with pytest.raises(
        MetanetError,
        match=r"98 nodes and 997 edges: .* 109.7 kB of memory, and 5.0 kB are available",
    ):
        metanet.to_graph(random_values(arch, torch.Generator()), arch)


# ---------------------------------------------------------------- coarser


def test_granularity_tensor_has_a_node_per_group_and_an_edge_per_tensor():
    arch = arch_of("residual")
    state = random_values(arch, torch.Generator().manual_seed(0))
    graph = metanet.to_graph(state, arch, granularity="tensor")
    assert graph.validate()
    assert graph.edge_attr.shape == (len(arch.template.blocks), len(SUMMARY))
    neurons = [r for r in arch.graph_template("tensor").nodes if r.group]
    assert {r.group: r.width for r in neurons} == {g.name: g.size for g in arch.spec.groups}
    number = next(i for i, b in enumerate(arch.template.blocks) if b.tensor == "0.weight")
    row = dict(zip(SUMMARY, graph.edge_attr[number].tolist(), strict=True))
    x = state["0.weight"].double()
    want = {
        "mean": x.mean(), "std": x.std(correction=0), "max": x.max(), "median": x.quantile(0.5),
        "zeros": 0, "log10_count": math.log10(x.numel()), "rms": x.square().mean().sqrt(),
    }  # fmt: skip
    assert {k: row[k] for k in want} == pytest.approx(
        {k: float(v) for k, v in want.items()}, rel=1e-5, abs=1e-7
    )
    again = metanet.to_graph(
        {**state, "0.weight": state["0.weight"].flip(0)}, arch, granularity="tensor"
    )
    assert torch.allclose(again.edge_attr, graph.edge_attr, atol=1e-6)
    with pytest.raises(MetanetError, match="holds summaries"):
        metanet.from_graph(graph, arch)
    with pytest.raises(MetanetError, match="choose neuron or tensor"):
        metanet.to_graph(state, arch, granularity="layer")


def test_a_template_comes_back_from_json():
    for granularity in ("neuron", "tensor"):
        template = arch_of(
            "depthwise" if "depthwise" in ARCHITECTURES else "residual"
        ).graph_template(granularity)
        again = type(template).from_json(template.to_json())
        assert again.nodes == template.nodes
        assert again.blocks == template.blocks
        assert all(torch.equal(again.static[k], v) for k, v in template.static.items())


def test_a_lazy_checkpoint_is_read_one_tensor_at_a_time_for_a_coarse_graph(tmp_path):
    arch = arch_of("residual")
    state = random_values(arch, torch.Generator().manual_seed(0))
    metanet.save_checkpoint(tmp_path / "a.safetensors", state)
    checkpoint = metanet.load_checkpoint(tmp_path / "a.safetensors")
    for granularity in ("neuron", "tensor"):
        want = metanet.to_graph(state, arch, granularity)
        assert torch.equal(
            metanet.to_graph(checkpoint, arch, granularity).edge_attr, want.edge_attr
        )
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(CheckpointError):
        metanet.to_graph(checkpoint, arch, "tensor")


class _InputAdded(torch.nn.Module):
    """An image added to what is made of it, and a mask of numbers added to all channels of a
    position."""

    def __init__(self):
        super().__init__()
        self.up, self.down = (
            torch.nn.Conv2d(3, 5, 3, padding=1),
            torch.nn.Conv2d(5, 3, 3, padding=1),
        )

    def forward(self, image, mask):
        return image + self.down(torch.relu(self.up(image)) + mask)


def test_inputs_that_are_added_to_neurons():
    arch = metanet.trace(_InputAdded(), torch.randn(2, 3, 6, 6), torch.randn(2, 1, 6, 6))
    assert_graph(arch)
    inputs = [r.count for r in arch.template.nodes if r.type == NodeType.INPUT]
    assert inputs == [3, 1]  # channels, and one neuron for the mask
    sums = {
        (arch.template.nodes[b.source].type, b.count)
        for b in arch.template.blocks
        if b.type == EdgeType.RESIDUAL
    }
    assert sums == {
        (NodeType.INPUT, 3),
        (NodeType.INPUT, 5),
        (NodeType.HIDDEN, 3),
        (NodeType.HIDDEN, 5),
    }
