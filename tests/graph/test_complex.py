"""Complex tensors in parameter graphs: two parallel edges an entry, exact both ways."""

import math

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.graph import (
    EdgeType,
    draw,
    fill,
    load_graph,
    node_order,
    permute_nodes,
    read,
    same_bits,
    save_graph,
)
from metanet.testing import assert_graph, random_values

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
DTYPES = (torch.complex32, torch.complex64, torch.complex128)
WORDS = {torch.complex32: torch.int16, torch.complex64: torch.int32, torch.complex128: torch.int64}


class Spectral(nn.Module):
    """A gain, a matrix for each frequency, a complex buffer and an integer one."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Conv1d(3, 6, 1), nn.Conv1d(5, 2, 1)
        self.gain = nn.Parameter(torch.ones(6, 1, dtype=torch.cfloat))
        self.w = nn.Parameter(torch.randn(6, 5, 4, dtype=torch.cfloat))
        self.register_buffer("turn", torch.ones(5, 1, dtype=torch.cfloat))
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, x):
        modes = torch.einsum(
            "bix,iox->box", torch.fft.rfft(self.inp(x))[..., :4] * self.gain, self.w
        )
        return self.out(torch.fft.irfft(modes * self.turn, n=x.shape[-1]))


@pytest.fixture(scope="module")
def arch():
    torch.manual_seed(0)
    return metanet.trace(Spectral(), torch.randn(2, 3, 8), check_inputs=(torch.randn(3, 3, 12),))


def every_bit_pattern(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Random bits: NaN of all kinds, infinities, numbers that are nearly 0; and -0.0 for both
    parts."""
    word = WORDS[dtype]
    info = torch.iinfo(word)
    words = torch.randint(info.min, info.max, (*shape, 2), dtype=word)
    special = torch.tensor([-0.0, math.inf, math.nan, -math.nan], dtype=dtype.to_real()).view(word)
    words.view(-1)[: 2 * len(special)] = special.repeat_interleave(2)
    return words.view(dtype).squeeze(-1)


def test_every_entry_is_two_parallel_edges(arch):
    state = random_values(arch, torch.Generator().manual_seed(0))
    template, graph = arch.template, metanet.to_graph({**state, "steps": torch.tensor(3)}, arch)
    graph.validate()
    for name, _, start, count in template.stretches:
        if name in ("gain", "w", "turn"):
            assert count == 2 * state[name].numel()
            values = graph.edge_attr[start : start + count, 0]
            assert torch.equal(values, torch.view_as_real(state[name]).reshape(-1))
            real, imaginary = (slice(start + i, start + count, 2) for i in (0, 1))
            assert torch.equal(graph.edge_index[:, real], graph.edge_index[:, imaginary])
            for edges, part in ((real, 0), (imaginary, 1)):
                positions = graph.kernel_pos[edges]
                last = (positions >= 0).sum(1) - 1
                assert (positions.gather(1, last[:, None]) == part).all()
    assert template.num_edges > 300
    assert template.shapes["w"] == (6, 5, 4)
    assert template.dtypes["w"] == "complex64"
    (block,) = (b for b in template.blocks if b.tensor == "gain")
    assert (block.type, block.shape, block.roles) == (
        EdgeType.SCALE,
        (6, 2),
        ("destination", "kernel"),
    )
    assert_graph(arch)


@pytest.mark.parametrize("dtype", DTYPES)
def test_law_2_every_bit_pattern_comes_back(arch, dtype, tmp_path):
    torch.manual_seed(0)
    state = {n: torch.randn(t.shape) for n, t in arch.spec.tensors.items() if not t.is_complex}
    state |= {
        n: every_bit_pattern(dtype, *t.shape) for n, t in arch.spec.tensors.items() if t.is_complex
    }
    state["steps"] = torch.tensor(7)
    graph = metanet.to_graph(state, arch)
    back = metanet.from_graph(graph, arch)
    assert back.keys() == state.keys()
    assert all(same_bits(back[n], t) for n, t in state.items())
    for name in ("graph.safetensors", "graph.pt"):
        save_graph(graph, arch.template, tmp_path / name)
        loaded, template = load_graph(tmp_path / name)
        assert all(same_bits(t, state[n]) for n, t in read(template, loaded).items())
    torch.save(state, tmp_path / "state.pt")
    again = metanet.from_graph(
        metanet.to_graph(metanet.load_checkpoint(tmp_path / "state.pt"), arch), arch
    )
    assert all(same_bits(again[n], t) for n, t in state.items())


def test_numbers_conjugated_on_reading_are_what_they_show(arch):
    state = random_values(arch, torch.Generator().manual_seed(0))
    lazy = {n: t.conj() if t.is_complex() else t for n, t in state.items()}
    assert not same_bits(lazy["w"], state["w"])
    back = metanet.from_graph(metanet.to_graph(lazy, arch), arch)
    assert all(torch.equal(back[n], t) and not back[n].is_conj() for n, t in lazy.items())


def test_law_4_batches_and_stacks_are_the_graphs_one_by_one(arch):
    states = [random_values(arch, torch.Generator().manual_seed(n)) for n in range(3)]
    graphs = [metanet.to_graph(s, arch) for s in states]
    stacked = {n: torch.stack([s[n] for s in states]) for n in states[0]}
    want = Batch.from_data_list(graphs)
    for batch in (fill(arch.template, states), fill(arch.template, stacked)):
        assert all(
            torch.equal(batch[k], want[k])
            for k in ("edge_attr", "edge_index", "kernel_pos", "batch")
        )
        assert batch.to_data_list()[1].dtypes == graphs[1].dtypes
    dense = arch.template.stack(stacked)
    assert torch.equal(dense.edge_attr, torch.stack([g.edge_attr for g in graphs]))
    back = arch.template.tensors(dense.edge_attr)
    assert all(torch.equal(back[n], t) and back[n].dtype == t.dtype for n, t in stacked.items())


def test_a_relabelling_of_the_parameters_is_one_of_the_graph(arch):
    state = random_values(arch, torch.Generator().manual_seed(0))
    t = arch.spec.sample(torch.Generator().manual_seed(1))
    moved, graph = metanet.to_graph(t(state), arch), metanet.to_graph(state, arch)
    want = permute_nodes(graph, node_order(arch.template, t))

    def edges(g) -> torch.Tensor:
        rows = torch.cat(
            [g.edge_index.T, g.edge_type[:, None], g.kernel_pos, g.edge_attr.view(torch.int32)], 1
        )
        return torch.unique(rows, dim=0)

    assert torch.equal(edges(moved), edges(want))
    assert not torch.equal(edges(moved), edges(graph))


def test_real_for_complex_and_complex_for_real_are_refused(arch):
    state = random_values(arch, torch.Generator().manual_seed(0))
    with pytest.raises(CheckpointError, match=r"w holds torch.float32, expected complex numbers"):
        metanet.to_graph({**state, "w": state["w"].real}, arch)
    with pytest.raises(
        CheckpointError, match=r"inp.bias holds torch.complex64, expected floating-point numbers"
    ):
        metanet.to_graph({**state, "inp.bias": state["inp.bias"].to(torch.cfloat)}, arch)


def test_summaries_and_pictures_show_both_parts(arch, tmp_path):
    state = random_values(arch, torch.Generator().manual_seed(0))
    coarse = metanet.to_graph(state, arch, granularity="tensor")
    row = next(i for i, b in enumerate(arch.template.blocks) if b.tensor == "gain")
    parts = torch.view_as_real(state["gain"])
    assert coarse.edge_attr[row, 0] == pytest.approx(parts.square().mean().sqrt().item(), rel=1e-6)
    assert coarse.edge_attr[row, -1] == pytest.approx(math.log10(12), rel=1e-6)
    draw(metanet.to_graph(state, arch), arch.template, tmp_path / "graph.png")
    assert (tmp_path / "graph.png").stat().st_size > 5_000


def test_a_template_with_complex_tensors_comes_back_from_json(arch, tmp_path):
    arch.save(tmp_path / "arch.json")
    loaded = metanet.Architecture.load(tmp_path / "arch.json")
    assert loaded.template.to_json() == arch.template.to_json()
    state = random_values(loaded, torch.Generator().manual_seed(0))
    assert same_bits(metanet.from_graph(metanet.to_graph(state, arch), loaded)["w"], state["w"])


def test_scalars_and_parts_read_apart_have_their_place():
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.out = nn.Linear(3, 6), nn.Linear(6, 2)
            self.turn = nn.Parameter(torch.ones((), dtype=torch.cfloat))
            self.shift = nn.Parameter(torch.randn(6, dtype=torch.cfloat))

        def forward(self, x):
            return self.out((self.inp(x) * self.turn + self.shift.real).abs() + self.shift.imag)

    arch = metanet.trace(Parts(), torch.randn(4, 3))
    assert_graph(arch)
    assert not arch.template_warnings
    graph = metanet.to_graph(Parts(), arch)
    assert graph.num_edges >= 18 + 6 + 12 + 2 + 2 + 12


@pytest.mark.parametrize(
    "stored", [torch.zeros(6, 1, 3, dtype=torch.float16), torch.zeros(6, 1, 2)]
)
def test_parts_that_make_no_complex_numbers_are_refused(arch, tmp_path, stored):
    state = random_values(arch, torch.Generator().manual_seed(0))
    state["gain"] = (
        torch.full((6, 1, 2), 31745, dtype=torch.int16).view(torch.complex32).squeeze(-1)
    )  # quiet it is not
    graph = metanet.to_graph(state, arch)
    assert "gain" in graph.extras[0]
    save_graph(graph, arch.template, tmp_path / "graph.safetensors")
    assert same_bits(
        read(*reversed(load_graph(tmp_path / "graph.safetensors")))["gain"], state["gain"]
    )
    file = metanet.load_checkpoint(tmp_path / "graph.safetensors", unwrap=False)
    broken = {**file, "extras/gain": stored}
    metanet.save_checkpoint(tmp_path / "graph.safetensors", broken, dict(file.metadata))
    with pytest.raises(
        MetanetError, match=r"extras/gain is .* expected real and imaginary parts of complex32"
    ):
        load_graph(tmp_path / "graph.safetensors")
