"""What a programmer meets first: rooms as attributes, paths, gradients, pickles, short reprs,
types."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.graph import ACTIVATIONS, NodeType
from metanet.sources import load_source

ROOT = Path(__file__).parents[1]


@pytest.fixture
def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


@pytest.fixture
def arch(network):
    return metanet.trace(network, torch.randn(2, 1, 4, 4))


class TestRooms:
    def test_they_are_attributes(self):
        code = (
            "import metanet; "
            "print(metanet.nn.build('gmn', width=8).name, metanet.merging.METHODS['ties'].name)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        assert done.stdout == "gmn ties\n", done.stderr

    def test_all_are_listed(self):
        rooms = {p.name for p in (ROOT / "metanet").iterdir() if p.is_dir() and p.name[0] != "_"}
        assert rooms - {"conf"} <= set(dir(metanet))
        for name in dir(metanet):
            assert getattr(metanet, name) is not None

    def test_importing_stays_quick(self):
        code = (
            "import sys, metanet; "
            "print(any(m in sys.modules for m in ('torch', 'torch_geometric', 'lightning')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        assert done.stdout == "False\n", done.stderr


class TestPaths:
    @pytest.mark.parametrize("suffix", ["safetensors", "pt"])
    def test_a_graph_of_a_file(self, suffix, network, arch, tmp_path):
        wrapped = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        path = tmp_path / f"a.{suffix}"
        metanet.save_checkpoint(path, wrapped) if suffix == "safetensors" else torch.save(
            wrapped, path
        )
        for given in (path, str(path)):
            state = metanet.from_graph(metanet.to_graph(given, arch), arch)
            assert all(
                torch.equal(state[name], tensor) for name, tensor in network.state_dict().items()
            )

    def test_tied_names_and_integer_buffers_may_be_missing(self, tmp_path):
        tied = nn.Sequential(
            nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False)
        )
        tied[2].weight = tied[0].weight
        arch = metanet.trace(tied, torch.randn(4, 3))
        state = tied.state_dict()
        stored = {k: v for k, v in state.items() if k[0] != "0" and "num_batches" not in k}
        metanet.save_checkpoint(tmp_path / "a.pt.safetensors", stored)
        read = metanet.from_graph(metanet.to_graph(tmp_path / "a.pt.safetensors", arch), arch)
        assert torch.equal(read["0.weight"], state["0.weight"])
        assert set(read) == set(state) - {"1.num_batches_tracked"}

    def test_another_networks_file_is_refused(self, arch, tmp_path):
        metanet.save_checkpoint(tmp_path / "a.safetensors", {"kernel": torch.ones(2)})
        with pytest.raises(CheckpointError, match="missing     0.weight"):
            metanet.to_graph(tmp_path / "a.safetensors", arch)

    @pytest.mark.untyped
    def test_arguments_of_other_kinds_say_what_they_should_be(self, network, arch):
        with pytest.raises(
            MetanetError, match=r"arch=metanet.trace\(model, inputs\), not SymmetrySpec"
        ):
            metanet.to_graph(network, arch.spec)
        with pytest.raises(
            MetanetError, match=r"takes arch.spec of arch=metanet.trace.* not Tensor"
        ):
            metanet.verify(network, torch.randn(2, 1, 4, 4))

    def test_verify_takes_an_architecture(self, network, arch):
        inputs = torch.randn(2, 1, 4, 4)
        report = metanet.verify(network, arch, inputs)
        assert report.ok
        assert report == metanet.verify(network, arch.spec, inputs)


class TestGradients:
    def test_they_pass_through_a_graph(self, network, arch):
        graph = metanet.to_graph(dict(network.state_dict(keep_vars=True)), arch)
        weights = torch.arange(float(graph.num_edges))[:, None]
        (graph.edge_attr * weights).sum().backward()
        start = next(start for name, _, start, _ in arch.template.stretches if name == "4.weight")
        expected = torch.arange(start, start + 48.0).reshape(3, 16)
        assert torch.equal(network[4].weight.grad, expected)

    @pytest.mark.parametrize(
        "make", [metanet.to_graph, lambda state, arch: arch.graph_template().stack(state)]
    )
    def test_they_pass_through_batches_and_stacks(self, make, arch):
        stacked = {name: t.expand(3, *t.shape).clone() for name, t in _float_state().items()}
        leaf = stacked["4.weight"].requires_grad_()
        make(stacked, arch).edge_attr.square().sum().backward()
        assert torch.equal(leaf.grad, 2 * leaf.detach())

    def test_a_second_batch_has_its_own(self, arch):
        for _ in range(2):
            state = _float_state()
            leaf = state["4.weight"].requires_grad_()
            metanet.to_graph([state, state], arch).edge_attr.sum().backward()
            assert torch.equal(leaf.grad, torch.full((3, 16), 2.0))

    def test_without_any_nothing_is_recorded(self, network, arch):
        assert not metanet.to_graph(network, arch).edge_attr.requires_grad

    def test_they_come_back_through_the_state_dict(self, network, arch):
        graph = metanet.to_graph(network, arch).clone()
        graph.edge_attr.requires_grad_()
        metanet.from_graph(graph, arch)["4.bias"].sum().backward()
        assert graph.edge_attr.grad.sum() == 3


def _float_state():
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    return {name: tensor for name, tensor in net.state_dict().items() if tensor.is_floating_point()}


class TestNodeFeatures:
    def test_layers_that_read_x_run(self, network, arch):
        graph = metanet.to_graph(network, arch)
        assert graph.x.shape == (graph.num_nodes, len(NodeType) + len(ACTIVATIONS) + 2)
        assert graph.num_node_features == graph.x.shape[1]
        layer = GCNConv(graph.num_node_features, 5)
        assert layer(graph.x, graph.edge_index).shape == (graph.num_nodes, 5)
        hidden = graph.node_type == NodeType.HIDDEN
        assert torch.equal(graph.x[hidden, NodeType.HIDDEN], torch.ones(int(hidden.sum())))
        assert graph.x[:, -2].min() == 0
        assert graph.x[:, -2].max() == 1

    def test_a_batch_has_those_of_its_graphs(self, arch):
        other = nn.Sequential(
            nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)
        )
        graphs = [
            metanet.to_graph(_float_state(), arch),
            metanet.to_graph(other, metanet.trace(other, torch.ones(2, 3))),
        ]
        from torch_geometric.data import Batch

        batch = Batch.from_data_list(graphs)
        assert torch.equal(batch.x, torch.cat([graph.x for graph in graphs]))

    def test_it_is_no_attribute_until_it_is_set(self, network, arch):
        graph = metanet.to_graph(network, arch)
        assert "x" not in graph
        moved = graph.clone()
        moved.x = torch.ones(graph.num_nodes, 2)
        assert moved.num_node_features == 2
        assert "x" in moved


class TestArchitectures:
    @pytest.mark.parametrize("ref", ["timm:test_resnet", "timm:test_vit"])
    def test_pickles(self, ref):
        arch = metanet.trace(load_source(ref))
        for twin in (pickle.loads(pickle.dumps(arch)), copy.deepcopy(arch)):
            assert twin.spec == arch.spec
            assert twin.recording.ops == arch.recording.ops
            assert twin.template.to_json() == arch.template.to_json()

    def test_a_pickled_one_runs_networks(self, network, arch):
        twin = pickle.loads(pickle.dumps(arch))
        inputs = torch.randn(2, 1, 4, 4)
        ours, theirs = (a.activations(network.state_dict(), inputs) for a in (arch, twin))
        assert all(torch.equal(ours[number], theirs[number]) for number in ours)

    def test_reprs_are_short(self):
        arch = metanet.trace(load_source("timm:test_vit"))
        assert repr(arch) == f"Architecture({arch.name}: {arch.spec!r})"
        assert re.fullmatch(r"SymmetrySpec\(\d+ groups, \d+ tensors\)", repr(arch.spec))
        assert len(str(arch)) > 1000  # print shows everything

    def test_notebooks_get_tables(self, arch):
        html = arch._repr_html_()
        assert html.count("<tr>") == 2 + len(arch.spec.groups) + len(arch.spec.tensors)
        hostile = metanet.Architecture("<script>alert(1)</script>", arch.spec, ("<b>",))
        assert "<script>" not in hostile._repr_html_()
        assert "&lt;b&gt;" in hostile._repr_html_()


TYPED = """
x = metanet.nn.build("gmn", width=8, layers=1, out_dim=3)
batch = metanet.to_graph([a, b], arch)
outputs: torch.Tensor = x(batch)
for several in metanet.align([b, b], to=a, arch=arch):
    several(b)
path: dict[str, torch.Tensor] = metanet.from_graph(metanet.to_graph("a.safetensors", arch), arch)
losses = [(torch.randn(2, 6, 7), torch.randn(2, 6, 5))]
height: float = metanet.barrier(a, b, model=decode, data=losses).barrier
"""
TYPED_PAGES = (
    "README",
    *(f"docs/guide/{name}" for name in ("symmetries", "graphs", "alignment", "merging")),
)


def test_mypy_accepts_the_code_of_the_pages(tmp_path):
    for page in TYPED_PAGES:
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / f"{page}.md").read_text(), re.S)
        code = "\n".join(block for block in blocks if not block.startswith("# nets.py"))
        extra = TYPED if page == "docs/guide/alignment" else ""
        (tmp_path / f"code_{Path(page).name.lower()}.py").write_text(code + extra)
    (tmp_path / "wrong.py").write_text("import metanet\nmetanet.align({}, to=None, arch=3)\n")
    files = sorted(path.name for path in tmp_path.glob("*.py"))
    assert len(files) == len(TYPED_PAGES) + 1
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, text=True)
    assert "code_" not in done.stdout, done.stdout
    assert 'wrong.py:2: error: No overload variant of "align"' in done.stdout, (
        done.stdout + done.stderr
    )
