"""The laws of docs/architecture that need no metanetwork, over every architecture the tests know and
random ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.testing import assert_function_preserved, random_network, random_states
from networks import ARCHITECTURES, UNSEEN


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_law_1_a_transform_preserves_the_function(name):
    make, example = ARCHITECTURES[name]
    torch.manual_seed(0)
    assert_function_preserved(make(), example(), unseen=UNSEEN.get(name, ()))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_law_1_on_random_networks(seed):
    torch.manual_seed(seed)
    model, x = random_network(seed)
    report = metanet.verify(model, metanet.trace(model, x).spec, x)
    assert report.change < 1e-10
    assert sum(v < 1e-6 for v in report.sensitivity.values()) <= len(report.sensitivity) // 10


def test_verify_notices_a_wrong_spec():
    """The twin of law 1: a spec that ties the wrong axes is found out."""
    model, x = (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)),
        torch.randn(5, 4),
    )
    data = metanet.trace(model, x).spec.to_json()
    data["tensors"]["2.weight"]["axes"].reverse()
    report = metanet.verify(model, metanet.SymmetrySpec.from_json(data), x)
    assert report.change > 1e-3


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn],
    ids=str,
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_law_2_the_round_trip_is_bit_exact(name, dtype):
    make, example = ARCHITECTURES[name]
    model = make()
    arch = metanet.trace(model, example())
    drawn = random_states(arch, 1, torch.Generator().manual_seed(0))[0]
    state = {k: drawn[k].to(dtype) if k in drawn else v for k, v in model.state_dict().items()}
    state.update({n: state[t.tied_to] for n, t in arch.spec.tensors.items() if t.tied_to})
    back = metanet.from_graph(metanet.to_graph(state, arch), arch)
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert back[key].dtype == tensor.dtype
        assert torch.equal(
            back[key].view(torch.uint8) if tensor.ndim else back[key],
            tensor.view(torch.uint8) if tensor.ndim else tensor,
        ), key


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_edge_per_entry_and_no_isolated_neuron(name):
    make, example = ARCHITECTURES[name]
    model = make()
    arch = metanet.trace(model, example())
    graph = metanet.to_graph(model, arch)
    assert graph.validate()
    entries = {
        id(v): v.numel() for v in model.state_dict(keep_vars=True).values() if v.is_floating_point()
    }
    constant = sum(b.count for b in arch.template.blocks if b.tensor is None)
    assert graph.num_edges == sum(entries.values()) + constant
    if name != "tied":  # the second use of a tied weight has no edges of its own yet
        assert set(graph.edge_index.flatten().tolist()) == set(range(graph.num_nodes))


def test_the_architecture_survives_its_file(tmp_path):
    for name, (make, example) in ARCHITECTURES.items():
        model = make()
        arch = metanet.trace(model, example())
        arch.save(tmp_path / f"{name}.json")
        loaded = metanet.Architecture.load(tmp_path / f"{name}.json")
        assert loaded.spec == arch.spec
        a, b = metanet.to_graph(model, arch), metanet.to_graph(model, loaded)
        assert all(torch.equal(a[k], b[k]) for k in a.keys() if isinstance(a[k], torch.Tensor))  # noqa: SIM118
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(MetanetError, match="not an architecture"):
        metanet.Architecture.load(tmp_path / "other.json")
    with pytest.raises(MetanetError, match="no such file"):
        metanet.Architecture.load(tmp_path / "missing.json")


def test_a_checkpoint_that_does_not_fit_is_explained():
    make, example = ARCHITECTURES["mlp"]
    arch, state = metanet.trace(make(), example()), make().state_dict()
    del state["1.bias"]
    state["5.weight"] = torch.zeros(10, 8)
    with pytest.raises(
        CheckpointError,
        match=r"missing  1.bias \(12,\)\n.*shape    5.weight is \(10, 8\), expected \(10, 9\)",
    ):
        metanet.to_graph(state, arch)


def test_activations_are_those_of_the_modules():
    make, example = ARCHITECTURES["siren"]
    model, x = make(), example()
    arch = metanet.trace(model, x)
    shown = arch.activations(model.state_dict(), x)
    first = torch.sin(30 * model.seq[0](x))
    torch.testing.assert_close(shown[1], first.T)
    torch.testing.assert_close(shown[0], x.T)
    torch.testing.assert_close(shown[3], model(x).T)
