"""What training leaves in masks and index tables: relabellings found on a fresh network must hold
for it."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import metanet
from metanet.symmetry import Transform
from metanet.testing import assert_graph
from symmetry.constructs import CONSTRUCTS, Net

OWNERS = [name for name in CONSTRUCTS if name.startswith(("mask_", "masks_", "index_"))]


def trained(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state dict in float64 whose masks and tables are anything that is legal."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            state[name] = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        elif tensor.dtype == torch.bool or name in ("keep", "mask", "dims"):
            state[name] = (torch.rand(tensor.shape, generator=generator) < 0.6).to(tensor.dtype)
        else:
            most = max(int(tensor.max()), 1)
            state[name] = torch.randint(most + 1, tensor.shape, generator=generator)
    return state


def change(
    model: nn.Module, state: dict[str, Tensor], other: dict[str, Tensor], inputs: tuple[Tensor, ...]
) -> float:
    want, got = (functional_call(model, s, inputs) for s in (state, other))
    return float((got - want).abs().max() / (want - want.mean()).abs().max())


@pytest.mark.parametrize("name", OWNERS)
def test_relabellings_keep_a_network_whose_tables_were_trained(name):
    model, inputs, _ = CONSTRUCTS[name].make()
    spec = metanet.trace(model, *inputs).spec
    model, inputs = model.double(), tuple(x.double() for x in inputs)
    moving = [n for n, t in spec.tensors.items() if t.integer]
    seen = dict.fromkeys(moving, 0.0)
    for seed in range(4):
        state = trained(model, seed)
        t = spec.sample(torch.Generator().manual_seed(seed))
        moved = t(state)
        assert change(model, state, moved, inputs) < 1e-10
        for table in moving:  # the twin: the table stays where it was
            seen[table] = max(
                seen[table], change(model, state, {**moved, table: state[table]}, inputs)
            )
    assert all(value > 1e-3 for value in seen.values()), seen


def test_tables_follow_in_inverses_products_stacks_and_files(tmp_path):
    model, inputs, _ = CONSTRUCTS["masks_of_heads"].make()
    spec, state = metanet.trace(model, *inputs).spec, trained(model)
    s, t = (spec.sample(torch.Generator().manual_seed(n)) for n in (1, 2))
    names = ("on", "dims")
    assert all(not torch.equal(t(state)[n], state[n]) for n in names)
    assert all(torch.equal(t.inverse()(t(state))[n], state[n]) for n in state)
    assert all(torch.equal((s @ t)(state)[n], s(t(state))[n]) for n in state)
    stacked = {n: torch.stack([x, x]) for n, x in state.items()}
    assert all(torch.equal(t(stacked)[n][1], t(state)[n]) for n in state)
    t.save(tmp_path / "t.safetensors")
    loaded = Transform.load(tmp_path / "t.safetensors")
    assert loaded.spec == spec
    assert all(torch.equal(loaded(state)[n], t(state)[n]) for n in state)
    assert all(t(state)[n].dtype == state[n].dtype for n in names)


def test_a_table_that_moves_is_explained_and_one_that_stays_is_not_listed():
    model, inputs, _ = CONSTRUCTS["masks_of_heads"].make()
    spec = metanet.trace(model, *inputs).spec
    assert "moves with" in spec.explain("dims") and "torch" not in spec.explain("dims")
    assert "past" not in spec.tensors, "the causal mask is told apart by the tokens' places"


@pytest.mark.parametrize(
    "name", ["mask_of_truth_values", "masks_of_heads", "index_of_segments", "index_of_units"]
)
def test_graphs_carry_tables_beside_their_edges_moved_like_the_rest(name):
    model, inputs, _ = CONSTRUCTS[name].make()
    arch = metanet.trace(model, *inputs)
    state = {n: x.float() if x.is_floating_point() else x for n, x in trained(model).items()}
    t = arch.spec.sample(torch.Generator().manual_seed(0))
    graph, moved = metanet.to_graph(state, arch), metanet.to_graph(t(state), arch)
    tables = [n for n, x in state.items() if not x.is_floating_point()]
    assert sorted(graph.extras[0]) == sorted(tables)
    assert all(torch.equal(moved.extras[0][n], t.apply(n, graph.extras[0][n])) for n in tables)
    back = metanet.from_graph(moved, arch)
    assert all(torch.equal(t.inverse()(back)[n], state[n]) for n in state)
    assert_graph(arch, {n: x for n, x in state.items() if x.is_floating_point()})


def test_activations_are_those_of_the_checkpoints_own_mask():
    model, inputs, _ = CONSTRUCTS["mask_of_truth_values"].make()
    arch, state = metanet.trace(model, *inputs), model.state_dict()
    pruned = {**state, "mask": torch.tensor([True, False, True, False, True, True])}
    (value,) = arch.recording.outputs
    with torch.no_grad():
        got = arch.recording.replay(pruned, *inputs, keep=[value])[value]
        torch.testing.assert_close(got, functional_call(model, pruned, inputs))
        without = {n: x for n, x in state.items() if n != "mask"}  # as it was when traced
        torch.testing.assert_close(
            arch.recording.replay(without, *inputs, keep=[value])[value], model(*inputs)
        )


def test_buffers_outside_the_state_dict_are_constants_of_the_code():
    """What no checkpoint holds can't be trained: a first stretch of units stays a stretch."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.register_buffer("index", torch.arange(6), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.stem(x).relu()[:, self.index])

    spec = metanet.trace(Fixed(), torch.randn(5, 4)).spec
    assert [g.size for g in spec.groups] == [6]
    assert str(spec.tensors["stem.weight"].axes[0]) == str(spec.tensors["head.weight"].axes[1])


def overwritten(write) -> Net:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.head(write(m, m.stem(x).tanh()).relu())

    return Net(
        run, stem=nn.Linear(4, 6), index=torch.zeros(6, dtype=torch.int64), head=nn.Linear(6, 3)
    )


WRITES = {
    "scatter": lambda m, h: torch.zeros_like(h).scatter(1, m.index.expand_as(h), h),
    "index_copy": lambda m, h: torch.zeros_like(h).index_copy(1, m.index, h),
    "index_put": lambda m, h: torch.zeros_like(h).T.index_put([m.index], h.T).T,
}


@pytest.mark.parametrize("name", WRITES)
def test_where_the_last_of_several_writes_stays_their_order_matters(name):
    net, x = overwritten(WRITES[name]), torch.randn(5, 4)
    spec = metanet.trace(net, x).spec
    assert not any(
        leaf for t in spec.tensors.values() for leaf in metanet.symmetry.leaves_of(t.axes[0])
    )


def test_where_writes_are_added_up_their_order_does_not_matter():
    net, x = (
        overwritten(lambda m, h: torch.zeros_like(h).scatter_add(1, m.index.expand_as(h), h)),
        torch.randn(5, 4),
    )
    spec = metanet.trace(net, x).spec
    assert [g.size for g in spec.groups] == [6] and "index" in spec.tensors
    assert metanet.verify(net, spec, x).ok


TIES = {
    "argsort of a table": lambda m, h: h[:, m.index.argsort()],
    "argmax of truth values": lambda m, h: h[:, :1] * (h > 0).int().argmax(-1, keepdim=True),
    "topk of truth values": lambda m, h: h.gather(1, (h > 0).to(torch.uint8).topk(2).indices).sum(
        1, keepdim=True
    ),
    "topk of what is alike": lambda m, h: h.gather(
        1, h.mean(-1, keepdim=True).expand(-1, 6).topk(2).indices
    )[:, :1],
    "largest of truth values": lambda m, h: h[:, :1] * (h > 0).max(-1, keepdim=True).indices,
}


@pytest.mark.parametrize("name", TIES)
def test_of_equal_items_their_places_decide(name):
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.head(TIES[name](m, m.stem(x).tanh()).relu().expand(-1, 6))

    net = Net(run, stem=nn.Linear(4, 6), index=torch.arange(6), head=nn.Linear(6, 3))
    spec = metanet.trace(net, torch.randn(5, 4)).spec
    assert not list(metanet.symmetry.leaves_of(spec.tensors["stem.weight"].axes[0]))
    assert metanet.verify(net, spec, torch.randn(5, 4)).change < 1e-10
