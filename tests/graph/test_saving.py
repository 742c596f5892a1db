"""Graphs on disk come back bit for bit, whatever their dtypes, and damaged files say so."""

import json

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage
from torch_geometric.loader import DataLoader

import metanet
from metanet.errors import MetanetError
from metanet.graph import permute_nodes
from metanet.graph._saving import load_graph, save_graph
from metanet.testing import random_states
from networks import ARCHITECTURES

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)


def made(name: str, dtypes=(torch.float32,)):
    """An architecture, and a state dict whose tensors take turns in dtype."""
    make, example = ARCHITECTURES[name]
    arch = metanet.trace(make(), example())
    state = random_states(arch, 1, torch.Generator().manual_seed(0))[0]
    turns = {key: value.to(dtypes[i % len(dtypes)]) for i, (key, value) in enumerate(state.items())}
    return arch, turns | {n: turns[t.tied_to] for n, t in arch.spec.tensors.items() if t.tied_to}


def assert_same(one, other) -> None:
    """Two graphs are equal, attribute by attribute and bit by bit."""
    left, right = one.to_dict(), other.to_dict()
    assert set(left) == set(right)
    for key, value in left.items():
        if isinstance(value, torch.Tensor):
            assert (right[key].dtype, right[key].shape) == (value.dtype, value.shape), key
            assert bits(right[key]) == bits(value), key
        elif key == "extras":
            assert {n: bits(x) for n, x in value[0].items()} == {
                n: bits(x) for n, x in right[key][0].items()
            }
        else:
            assert right[key] == value, key


def bits(x: torch.Tensor) -> bytes:
    return x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_graph_comes_back_bit_for_bit(name, suffix, tmp_path):
    arch, state = made(name)
    graph = metanet.to_graph(state, arch)
    files = save_graph(graph, arch.template, tmp_path / "new" / f"a.{suffix}")
    assert sorted(files) == sorted((tmp_path / "new").iterdir())
    again, template = load_graph(tmp_path / "new" / f"a.{suffix}")
    assert_same(graph, again)
    assert template.to_json() == arch.template.to_json()
    back = metanet.from_graph(again, arch)
    assert {n: bits(x) for n, x in back.items()} == {
        n: bits(x) for n, x in metanet.from_graph(graph, arch).items()
    }


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_every_dtype_and_every_value_survives(suffix, tmp_path):
    arch, state = made("cnn_batchnorm", FLOATS)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-40])
    state["0.weight"].view(-1)[:5] = odd
    state["1.num_batches_tracked"] = torch.tensor(2**40 + 1)
    assert {x.dtype for x in state.values()} >= set(FLOATS)
    save_graph(metanet.to_graph(state, arch), arch.template, tmp_path / f"a.{suffix}")
    back = metanet.from_graph(load_graph(tmp_path / f"a.{suffix}")[0], arch)
    assert {n: (x.dtype, bits(x)) for n, x in back.items() if n in state} == {
        n: (x.dtype, bits(x)) for n, x in state.items()
    }


def test_what_the_template_says_is_not_stored_and_what_differs_is(tmp_path):
    arch, state = made("cnn_flatten")
    graph = metanet.to_graph(state, arch)
    save_graph(graph, arch.template, tmp_path / "plain.safetensors")
    assert list(metanet.load_checkpoint(tmp_path / "plain.safetensors")) == ["edge_attr"]
    order = torch.randperm(graph.num_nodes)
    moved = permute_nodes(graph, order)
    moved.accuracy, moved.curve, moved.source = 0.75, torch.arange(3.0), "run 7"
    save_graph(moved, arch.template, tmp_path / "moved.safetensors")
    again, _ = load_graph(tmp_path / "moved.safetensors")
    assert_same(moved, again)
    assert not torch.equal(again.edge_index, graph.edge_index)
    assert (again.accuracy, again.source) == (0.75, "run 7")
    assert metanet.from_graph(again, arch).keys() == state.keys()


def test_the_structure_can_be_stored_for_other_programs(tmp_path):
    arch, state = made("mlp")
    graph = metanet.to_graph(state, arch)
    save_graph(graph, arch.template, tmp_path / "a.safetensors", structure=True)
    stored = metanet.load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(stored["attributes/edge_index"], graph.edge_index)
    assert torch.equal(stored["attributes/edge_type"], graph.edge_type)
    assert_same(graph, load_graph(tmp_path / "a.safetensors")[0])


def test_the_torch_file_is_plain_torch_geometric(tmp_path):
    """As the docstring of save_graph says: it needs no metanet, and no code from the file is
    run."""
    arch, state = made("residual")
    graph = metanet.to_graph(state, arch)
    save_graph(graph, arch.template, tmp_path / "a.pt")
    with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
        data = torch.load(tmp_path / "a.pt", weights_only=True)
    assert type(data) is Data
    assert torch.equal(data.edge_index, graph.edge_index) and torch.equal(
        data.edge_attr, graph.edge_attr
    )
    assert json.loads(data.template) == json.loads(json.dumps(arch.template.to_json()))
    batch = next(iter(DataLoader([data, data], batch_size=2)))
    assert batch.num_nodes == 2 * graph.num_nodes


def test_a_graph_out_of_a_batch_is_stored_without_the_rest(tmp_path):
    arch, state = made("mlp")
    graph = metanet.to_graph(state, arch)
    part = Batch.from_data_list([graph] * 10).to_data_list()[3]
    save_graph(part, arch.template, tmp_path / "part.pt")
    save_graph(graph, arch.template, tmp_path / "one.pt")
    assert (tmp_path / "part.pt").stat().st_size < 1.2 * (tmp_path / "one.pt").stat().st_size
    assert_same(load_graph(tmp_path / "one.pt")[0], load_graph(tmp_path / "part.pt")[0])


class TestErrors:
    @pytest.fixture
    def saved(self, tmp_path):
        arch, state = made("mlp")
        graph = metanet.to_graph(state, arch)
        for name in ("a.safetensors", "a.pt"):
            save_graph(graph, arch.template, tmp_path / name)
        return arch, graph, tmp_path

    def test_saving(self, saved):
        arch, graph, folder = saved
        with pytest.raises(
            MetanetError, match=r"saved as NAME.safetensors \(with NAME.json\) or NAME.pt"
        ):
            save_graph(graph, arch.template, folder / "b.npz")
        with pytest.raises(MetanetError, match="it is a batch of 2 graphs; save them one by one"):
            save_graph(
                Batch.from_data_list([graph, graph]), arch.template, folder / "b.safetensors"
            )
        other, _ = made("siren")
        with pytest.raises(
            MetanetError,
            match=rf"has {graph.num_nodes} nodes and .*, the template {other.template.num_nodes} ",
        ):
            save_graph(graph, other.template, folder / "b.safetensors")
        graph.thing = object()
        with pytest.raises(MetanetError, match="its attributes thing are no JSON"):
            save_graph(graph, arch.template, folder / "b.safetensors")
        assert not list(folder.glob("b.*")) and not list(folder.glob(".*"))

    def test_missing_files(self, saved):
        folder = saved[2]
        with pytest.raises(MetanetError, match="'.*b.safetensors' does not exist"):
            load_graph(folder / "b.safetensors")
        with pytest.raises(MetanetError, match="graph '.*b.pt' does not exist"):
            load_graph(folder / "b.pt")
        (folder / "a.json").unlink()
        with pytest.raises(MetanetError, match="NAME.safetensors and NAME.json together"):
            load_graph(folder / "a.safetensors")

    def test_files_of_different_saves(self, saved):
        arch, graph, folder = saved
        old = (folder / "a.json").read_bytes()
        save_graph(graph, arch.template, folder / "a.safetensors")
        (folder / "a.json").write_bytes(old)
        with pytest.raises(MetanetError, match="not of the same save"):
            load_graph(folder / "a.json")

    def test_damaged_files(self, saved):
        folder = saved[2]
        whole = (folder / "a.pt").read_bytes()
        (folder / "a.pt").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(MetanetError, match="'.*a.pt' is damaged, cut off"):
            load_graph(folder / "a.pt")
        torch.save({"weight": torch.ones(2)}, folder / "a.pt")
        with pytest.raises(MetanetError, match="no graph that metanet saved"):
            load_graph(folder / "a.pt")
        text = (folder / "a.json").read_text()
        (folder / "a.json").write_text(text[:-10])
        with pytest.raises(MetanetError, match="'.*a.json' is damaged or no JSON"):
            load_graph(folder / "a.safetensors")
        (folder / "a.json").write_text("[]")
        with pytest.raises(MetanetError, match="is no graph of format 1"):
            load_graph(folder / "a.safetensors")
        (folder / "a.json").write_text('{"format": 1, "template": {}}')
        with pytest.raises(
            MetanetError,
            match=r"pair: Field required[\s\S]*dtypes: Field required[\s\S]*attributes: Field required",
        ):
            load_graph(folder / "a.safetensors")
        (folder / "a.json").write_text(text.replace('"format": 1', '"format": 9'))
        with pytest.raises(MetanetError, match="is no graph of format 1"):
            load_graph(folder / "a.safetensors")
