"""What every registered model must do; a new one is picked up by itself."""

import pytest
import torch

import metanet.nn
from metanet import MetanetError
from metanet.config import conf_dir
from metanet.graph import GraphStack
from metanet.nn import MODELS, Metanet, NeuralMetanet
from nn.graphs import (
    everything,
    mixed,
    one_by_one,
    ready,
    relabel,
    sparse,
    spread,
    stack,
    templates,
)

ONE_ARCHITECTURE = {"flat_mlp"}
# Models that run the networks they read need recordings, which templates built by hand do not have.
HERE = [name for name, cls in MODELS.items() if cls.bind is Metanet.bind]
INVARIANT = [name for name in HERE if name != "flat_mlp"]
NEURAL = [name for name in HERE if issubclass(MODELS[name], NeuralMetanet)]


def stacks_for(name):
    return mixed()[2:3] if name in ONE_ARCHITECTURE else mixed()


def learned(given):
    return torch.cat([b.edges() for b in given.template.blocks if b.tensor is not None])


def batches_for(name):
    """Batches of all there is: in one where the model allows it."""
    return [[s] for s in everything()] if name in ONE_ARCHITECTURE else [everything()]


@pytest.mark.parametrize("name", HERE)
def test_dense_and_sparse_paths_give_the_same_numbers(name):
    for stacks in batches_for(name):
        model = ready(name, stacks)
        dense, general = model(stacks), model(sparse(stacks))
        assert dense.shape == (sum(map(len, stacks)), 3)
        assert (dense - general).abs().max() < 1e-10 * spread(dense)
        assert spread(dense) > 1e-3


@pytest.mark.parametrize("name", NEURAL)
def test_dense_and_sparse_gradients_are_the_same(name):
    for stacks in batches_for(name):
        model = ready(
            name, [stack(s.template, 3, seed=1) for s in stacks]
        )  # at the very medians the views have kinks
        grads = []
        for form in (list, sparse):
            model.zero_grad()
            given = [GraphStack(s.template, s.edge_attr.clone().requires_grad_()) for s in stacks]
            model(form(given)).square().sum().backward()
            # among equal values, as on constant edges, it is arbitrary which one is a quantile
            values = {f"values {i}": s.edge_attr.grad[:, learned(s)] for i, s in enumerate(given)}
            grads.append({n: p.grad.clone() for n, p in model.named_parameters()} | values)
        for n, g in grads[0].items():
            assert g.abs().max() > 0, f"no gradient reaches {n}"
            assert torch.allclose(g, grads[1][n], rtol=1e-9, atol=1e-10), n


@pytest.mark.parametrize("name", NEURAL)
def test_gradients_of_the_weights_are_those_of_finite_differences(name):
    template = templates()["mlp" if name in ONE_ARCHITECTURE else "grouped"]
    model = ready(
        name, [stack(template, 2, seed=1)]
    )  # other graphs: at the very medians the views have kinks
    given = stack(template, 2)
    values = given.edge_attr.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: model([GraphStack(template, v)]).sum(), values, eps=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", HERE)
def test_a_batch_is_its_graphs_one_by_one(name):
    for stacks in batches_for(name):
        model = ready(name, stacks)
        assert torch.allclose(model(stacks), model(one_by_one(stacks)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", HERE)
def test_order_of_stacks_is_order_of_outputs(name):
    stacks = stacks_for(name)
    stacks = one_by_one(stacks) if len(stacks) == 1 else stacks
    model = ready(name, stacks)
    backwards = torch.cat([model([s]) for s in stacks[::-1]])
    assert torch.allclose(model(stacks[::-1]), backwards, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", INVARIANT)
def test_relabelling_hidden_neurons_changes_nothing(name):
    stacks = mixed()
    model = ready(name, stacks)
    plain = model(stacks)
    for seed in range(3):
        moved = relabel(stacks, seed)
        assert not any(
            torch.equal(a.edge_attr, b.edge_attr) for a, b in zip(stacks, moved, strict=True)
        )
        assert (model(moved) - plain).abs().max() < 1e-10 * spread(plain)


@pytest.mark.parametrize("name", NEURAL)
def test_float32_is_close_to_float64(name):
    stacks = stacks_for(name)
    model = ready(name, stacks)
    exact = model(stacks)
    assert torch.allclose(model.float()(stacks).double(), exact, atol=2e-4)


@pytest.mark.parametrize("name", HERE)
def test_diverged_networks_get_an_answer(name):
    stacks = stacks_for(name)
    model = ready(name, stacks)
    plain = model(stacks)
    values = stacks[0].edge_attr.clone()
    values[0, :3, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    values[1] *= 1e30
    stacks = [GraphStack(stacks[0].template, values), *stacks[1:]]
    for out in (model(stacks), model(sparse(stacks))):
        assert out.isfinite().all()
        assert torch.allclose(
            out[2:], plain[2:], rtol=0, atol=1e-10
        )  # the others' answers stay as they were


@pytest.mark.parametrize("name", HERE)
def test_saved_and_loaded_gives_the_same_bits(name, tmp_path):
    stacks = stacks_for(name)
    model = ready(name, stacks)
    expected = model(stacks)
    metanet.nn.save(tmp_path / "model", model, {"scale": [0.5, 2.0]})
    again = metanet.nn.load(tmp_path / "model")
    if isinstance(again, NeuralMetanet):
        again.eval()
    assert torch.equal(again(stacks), expected)
    assert again.meta == {"scale": [0.5, 2.0]}
    assert again.arguments == model.arguments
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("name", HERE)
def test_bad_input_is_explained(name):
    stacks = stacks_for(name)
    model = ready(name, stacks)
    with pytest.raises(MetanetError, match="no graphs: the sequence of stacks is empty"):
        model([])
    with pytest.raises(MetanetError, match="reads a sequence of GraphStack or .*, got Tensor"):
        model(torch.zeros(3))
    with pytest.raises(
        MetanetError,
        match=r"stack 0: edge_attr is \(2, 5, 1\), its template says \(batch, \d+, 1\)",
    ):
        model([GraphStack(stacks[0].template, torch.zeros(2, 5, 1))])
    graph = sparse(stacks)
    del graph.kernel_pos, graph.depth
    with pytest.raises(MetanetError, match="no parameter graph, it lacks kernel_pos, depth"):
        model(graph)


@pytest.mark.parametrize("name", [n for n in MODELS if MODELS.is_installed(n)])
def test_each_is_one_file_and_one_yaml(name):
    """The file is found because it lies there: nothing lists the names."""
    assert MODELS[name].__module__ == f"metanet.nn.models.{name}"
    assert f"name: {name}\n" in (conf_dir() / f"model/{name}.yaml").read_text()


def test_registry_lists_the_choices():
    assert {"gmn", "deep_sets", "flat_mlp", "stat"} <= set(MODELS)
    with pytest.raises(
        MetanetError, match=r"there is no model 'gnm'; did you mean 'gmn'\? Choices: .*gmn.*, stat"
    ):
        metanet.nn.build("gnm")
    with pytest.raises(
        MetanetError,
        match=r"model 'gmn' has no argument widht. It takes: width, layers, out_dim, .*",
    ):
        metanet.nn.build("gmn", widht=3)


def test_models_and_their_modules_print_what_they_are():
    model = metanet.nn.build("gmn", width=8, layers=1, probes=4, statistics=False)
    assert repr(model) == "GMN(width=8, layers=1, statistics=False, probes=4)"
    assert repr(metanet.nn.build("stat", leaves=4)) == "StatNN(leaves=4)"
    assert "statistics=False, architecture=True" in repr(model.readout)
    assert "max_io=256" in repr(model.node_embedding)
    assert "probes=4" in repr(model.probes)
    assert repr(model.values) == "ValueFeatures(views=11, kinds=32)"
