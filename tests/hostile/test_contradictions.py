"""Files of the right form whose parts contradict each other are refused, with the tensor or group
that shows it."""

import copy
import json
import os

import pytest
import torch
from torch import nn

import metanet
from metanet import Alignment, Architecture, MetanetError, SymmetrySpec, Transform
from metanet.errors import CheckpointError
from metanet.graph import GraphTemplate
from metanet.graph._saving import load_graph, save_graph
from metanet.sources import load_source


@pytest.fixture(scope="module")
def arch():
    torch.manual_seed(0)
    return metanet.trace(
        nn.TransformerEncoderLayer(8, 2, 6, batch_first=True), torch.randn(2, 5, 8)
    )


@pytest.fixture(scope="module")
def small():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    return metanet.trace(model, torch.randn(2, 1, 3, 3)), model


def at(tree, path):
    *to, last = path
    for key in to:
        tree = tree[key]
    return tree, last


def changed(tree, path, value):
    tree = copy.deepcopy(tree)
    inner, last = at(tree, path)
    inner[last] = value(inner[last]) if callable(value) else value
    return tree


def keyed(spec):
    return next(i for i, group in enumerate(spec.groups) if group.keys)


SPECS = {
    "no such key": (lambda k: ("groups", k, "keys", 0), "nobody", "which is no group"),
    "its own key": (lambda k: ("groups", k, "keys"), None, "itself among its keys"),
    "a size": (lambda k: ("groups", k, "size"), lambda n: n + 1, r"items, here"),
    "no items": (lambda k: ("groups", k, "size"), 0, "greater than or equal to 1"),
    "a number of too many digits": (lambda k: ("groups", k, "size"), 2**62, "less than"),
    "a kind": (lambda k: ("groups", k, "kind"), "free", "'permutation' or 'fixed'"),
    "fixed, and moves": (lambda k: ("groups", k, "kind"), "fixed", "is fixed, here it moves"),
    "a shape": (lambda k: ("tensors", "linear1.weight", "shape", 0), 7, "its shape is"),
    "negative": (lambda k: ("tensors", "linear1.weight", "shape", 0), -6, "greater than or equal to 0"),
    "a dtype": (lambda k: ("tensors", "linear1.weight", "dtype"), "float33", "no dtype float33"),
    "a tie": (lambda k: ("tensors", "linear1.weight", "tied_to"), "nothing", "which is no other tensor"),
    "a tie to itself": (lambda k: ("tensors", "linear1.weight", "tied_to"), "linear1.weight",
        "no other tensor"),
    "an axis less": (lambda k: ("tensors", "linear1.weight", "axes"), lambda axes: axes[:1],
        "its axes have sizes"),
    "no axis": (lambda k: ("tensors", "linear1.weight", "axes", 0), {"x": 1}, "one of fixed, group, product"),
    "no such group": (lambda k: ("tensors", "linear1.weight", "axes", 0), {"group": "g", "size": 6},
        "no group g"),
    "an empty product": (lambda k: ("tensors", "linear1.weight", "axes", 0), {"product": []},
        "at least 1 item"),
    "no concatenation": (
        lambda k: ("tensors", "linear1.weight", "axes", 0),
        {"choice": [{"fixed": 6}, {"fixed": 6}], "by": "x"}, "no concatenation of 2 parts",
    ),
    "more than is declared": (lambda k: ("groups", k, "run"), "os.system", "Extra inputs"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_of_a_spec(name, arch, tmp_path):
    path, value, reason = SPECS[name]
    k = keyed(arch.spec)
    tree = arch.spec.to_json()
    value = [tree["groups"][k]["name"]] if value is None else value
    tree = changed(tree, path(k), value) if name != "more than is declared" else tree
    if name == "more than is declared":
        tree["groups"][k]["run"] = value
    (tmp_path / "x.json").write_text(json.dumps(tree))
    with pytest.raises(MetanetError, match=rf"x.json' is damaged[\s\S]*{reason}"):
        SymmetrySpec.load(tmp_path / "x.json")


def test_sound_specs_and_templates_pass(arch, small):
    for each in (arch, small[0]):
        assert SymmetrySpec.from_json(json.loads(json.dumps(each.spec.to_json()))) == each.spec
        again = GraphTemplate.from_json(json.loads(json.dumps(each.template.to_json())))
        assert again.to_json() == each.template.to_json()
        assert GraphTemplate.from_json(each.template.coarse().to_json()).num_edges == len(
            each.template.blocks
        )


TEMPLATES = {
    "an edge left out": (("blocks", 0, "shape", 0), lambda n: n - 1, "edges|entries"),
    "an edge twice": (("blocks", 0, "start"), lambda n: n + 1, "edges"),
    "another node": (("blocks", 0, "source"), 99, "nodes that there aren't"),
    "a node too many": (("blocks", 0, "source_start"), 50, "names nodes"),
    "nodes elsewhere": (("nodes", 0, "start"), 3, "expected 0"),
    "no node": (("nodes", 0, "count"), 0, "greater than or equal to 1"),
    "nodes without end": (("nodes", 0, "count"), 2**62, "less than"),
    "a kind": (("nodes", 0, "type"), 99, "less than"),
    "an activation": (("nodes", 0, "activation"), "magic", "Input should be 'none'"),
    "a role": (("blocks", 0, "roles", 0), "magic", "Input should be 'group'"),
    "fewer roles": (("blocks", 0, "roles"), lambda roles: roles[:-1], "of another length"),
    "a group": (("nodes", 1, "group"), "nobody", "which there isn't"),
    "a dtype": (("dtypes", "0.weight"), "float33", "which torch hasn't"),
    "a shape": (("shapes", "0.weight", 0), 4, "edges|entries"),
    "a name": (("blocks", 0, "tensor"), "nothing", "has no dtype|has no shape"),
    "strides": (("blocks", 0, "strides"), [1, 1, 1, 1], "not each one entry|of another length"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_of_a_template(name, small, tmp_path):
    path, value, reason = TEMPLATES[name]
    arch, _ = small
    arch.save(tmp_path / "x.json")
    tree = json.loads((tmp_path / "x.json").read_text())
    tree["template"] = changed(tree["template"], path, value)
    (tmp_path / "x.json").write_text(json.dumps(tree))
    with pytest.raises(MetanetError, match=rf"x.json' is damaged[\s\S]*({reason})"):
        Architecture.load(tmp_path / "x.json")


def test_of_spec_and_template(small, tmp_path):
    arch, _ = small
    arch.save(tmp_path / "x.json")
    tree = json.loads((tmp_path / "x.json").read_text())
    tensor = tree["spec"]["tensors"]["0.bias"]
    tensor["shape"], tensor["axes"] = [4], [{"fixed": 4, "why": ""}]
    (tmp_path / "x.json").write_text(json.dumps(tree))
    with pytest.raises(
        MetanetError, match=r"0.bias is \(3,\) in its graph template, \(4,\) in its symmetry spec"
    ):
        Architecture.load(tmp_path / "x.json")


ELEMENTS = {
    "no permutation": (lambda e: torch.zeros_like(e), "is not a permutation"),
    "a float": (lambda e: e.double(), "of torch.float64, expected torch.int64"),
    "another shape": (lambda e: e[..., :-1].contiguous(), "has shape"),
    "negative": (lambda e: -e, "is not a permutation"),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_of_elements(name, arch, tmp_path):
    change, reason = ELEMENTS[name]
    transform = arch.spec.sample()
    group, element = next(iter(transform.elements.items()))
    for file in ("t.safetensors", "a.safetensors"):
        metadata = {"spec": arch.spec.to_json()}
        if file == "a.safetensors":
            metadata |= {
                "objective": [1.0, 2],
                "identity": {},
                "seconds": 0,
                "method": "m",
                "options": {},
                "seed": 0,
            }
        metanet.save_checkpoint(
            tmp_path / file, {**transform.elements, group: change(element)}, metadata
        )
        with pytest.raises(CheckpointError, match=reason):
            (Transform if file == "t.safetensors" else Alignment).load(tmp_path / file)
        metanet.save_checkpoint(tmp_path / file, {"nobody": element}, metadata)
        with pytest.raises(CheckpointError, match="no group 'nobody'"):
            (Transform if file == "t.safetensors" else Alignment).load(tmp_path / file)


@pytest.mark.parametrize(
    "key", ["spec", "objective", "identity", "seconds", "method", "options", "seed"]
)
def test_every_key_of_an_alignment_is_needed(key, small, tmp_path):
    arch, model = small
    metanet.align(model, model, arch=arch).save(tmp_path / "x.safetensors")
    stored = metanet.load_checkpoint(tmp_path / "x.safetensors")
    for wrong in (None, {"x": [None]} if key not in ("spec", "identity", "options") else 3):
        metadata = {name: each for name, each in stored.metadata.items() if name != key}
        metadata |= {} if wrong is None else {key: wrong}
        metanet.save_checkpoint(tmp_path / "y.safetensors", stored, metadata)
        with pytest.raises(CheckpointError, match=rf"not a saved alignment[\s\S]*{key}"):
            Alignment.load(tmp_path / "y.safetensors")


GRAPHS = {
    "a node beyond": (lambda g: g.edge_index.fill_(10**6), "node 1000000, but there are"),
    "a kind": (lambda g: g.edge_type.fill_(99), "edge_type has numbers that stand for nothing"),
    "a dtype": (
        lambda g: setattr(g, "node_layer", g.node_layer.float()),
        "node_layer is .* of torch.float32",
    ),
    "a shape": (lambda g: setattr(g, "depth", torch.zeros(3).long()), "depth is"),
    "no tensor": (lambda g: setattr(g, "fan_in", [1, 2]), "fan_in is list"),
    "two dicts": (lambda g: setattr(g, "dtypes", [{}, {}]), "dtypes is no list of one dict"),
    "no such dtype": (
        lambda g: setattr(g, "dtypes", [{"0.bias": "load"}]),
        "dtypes is no list of one dict",
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_of_a_graph(name, small, tmp_path):
    change, reason = GRAPHS[name]
    arch, model = small
    graph = metanet.to_graph(model, arch).clone()
    change(graph)
    save_graph(graph, arch.template, tmp_path / "x.pt")
    with pytest.raises(MetanetError, match=reason):
        load_graph(tmp_path / "x.pt")


CONFIGS = {
    "layers without end": {"n_layer": 2**62},
    "no layers": {"n_layer": -1},
    "a width of text": {"n_embd": "wide"},
    "a width of nothing": {"n_embd": 0},
    "heads that do not divide": {"n_head": 3},
    "no activation": {"activation_function": "magic"},
    "classes of a number": {"architectures": 3},
    "a class of a number": {"architectures": [3]},
    "nested": {"architectures": [["GPT2LMHeadModel"]]},
    "a list of words": {"vocab_size": [1]},
    "more than there is": {"vocab_size": 2**62},
    "null": {"n_positions": None},
    "a model type": {"model_type": "x" * 10**5},
    "a task": {"summary_type": {"a": 1}, "n_inner": -3},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", CONFIGS)
def test_of_a_configuration(name, device, tmp_path):
    fields = {
        "model_type": "gpt2",
        "architectures": ["GPT2Model"],
        "n_embd": 8,
        "n_layer": 1,
        "n_head": 2,
    }
    (tmp_path / "config.json").write_text(
        json.dumps({**fields, "vocab_size": 11, "n_positions": 4, **CONFIGS[name]})
    )
    with pytest.raises(MetanetError) as caught:
        load_source(f"hf:{tmp_path}", device=device)
    assert len(str(caught.value)) <= 2_000


def test_a_configuration_in_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(MetanetError, match="no regular file"):
        load_source(f"hf:{tmp_path}")
