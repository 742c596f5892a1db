"""metanet graph: what it writes and prints, and what it refuses."""

import argparse
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import metanet
from metanet import cli
from metanet.graph import _memory
from metanet.graph._saving import load_graph
from metanet.sources import load_source

NETWORKS = """
import torch
from torch import nn

def mlp(width=6):
    layers = [nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)]
    return nn.Sequential(*layers)

def normed():
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

def tied():
    made = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))
    made[2].weight = made[0].weight
    return made
"""


@pytest.fixture
def graph(calls, capsys):
    """Run the command in a folder with networks: ``graph("arch=...", ...)`` -> exit code, stdout,
    stderr."""
    module = f"networks_{re.sub('[^a-z0-9]', '_', Path.cwd().parent.name)}"
    Path(f"{module}.py").write_text(NETWORKS)
    sys.path.append(str(Path.cwd()))  # a copy, see calls; the command does the same

    def run(*args):
        code = cli.main(["graph", *(arg.replace("{n}", module) for arg in args)])
        out, err = capsys.readouterr()
        return code, out, err

    run.module = module
    return run


@pytest.fixture
def saved(graph):
    """Save a checkpoint of one of the networks: ``saved("mlp", path, width=4)`` -> its state
    dict."""

    def save(name, path="a.safetensors", changes=None, **arguments):
        state = dict(load_source(f"{graph.module}:{name}", **arguments).state_dict()) | (
            changes or {}
        )
        metanet.save_checkpoint(path, {n: x for n, x in state.items() if x is not None})
        return state

    return save


def files(folder) -> set[str]:
    return {path.name for path in Path(folder).iterdir() if not path.name.startswith(".")}


def test_writes_prints_and_draws(graph, saved):
    state = saved("mlp", "odd (1)=a.safetensors")
    code, out, _ = graph(
        "checkpoint=odd (1)=a.safetensors",
        "arch={n}:mlp",
        "input_shape=[5]",
        "out=g=1 (x)",
        "html=true",
    )
    assert code == 0
    assert files("g=1 (x)") == {"graph.safetensors", "graph.json", "graph.png", "graph.html"}
    again, template = load_graph("g=1 (x)/graph.safetensors")
    assert "nodes     22: input 5, hidden 12, output 2, bias 3" in out
    assert f"edges     {template.num_edges}: linear 78, bias 14" in out
    assert "dtypes    float32 6" in out and "NaN, inf  none" in out and "warning" not in out
    arch = metanet.trace(load_source(f"{graph.module}:mlp"), torch.randn(2, 5))
    back = metanet.from_graph(again, arch)
    assert back.keys() == state.keys() and all(torch.equal(back[n], x) for n, x in state.items())
    rms = f"{float(state['2.weight'].square().mean().sqrt()):.3g}"
    assert re.search(
        rf"\n2\.weight +6x6 +float32 +linear +0\.weight +2\.weight +{re.escape(rms)} ", out
    )
    for name in files("g=1 (x)"):
        assert f"{Path('g=1 (x)') / name}  " in out
    assert Path("g=1 (x)/graph.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "http" not in Path("g=1 (x)/graph.html").read_text()


def test_without_out_the_run_directory_gets_the_files(graph, saved):
    saved("mlp", width=4)
    code, _, _ = graph(
        "checkpoint=a.safetensors",
        "arch={n}:mlp",
        "arch_args.width=4",
        "input_shape=[5]",
        "draw=false",
    )
    assert code == 0
    (run,) = Path("outputs/graph").iterdir()
    assert files(run) == {"graph.safetensors", "graph.json", "graph.log", "metrics.json"}
    measured = json.loads((run / "metrics.json").read_text())
    assert (measured["nodes"], measured["edges"], measured["nonfinite"]) == (
        5 + 4 + 4 + 2 + 3,
        54,
        0,
    )


def test_a_network_of_timm_with_norms_and_residuals(graph):
    state = load_source("timm:test_resnet").state_dict()
    metanet.save_checkpoint("r.safetensors", state)
    code, out, _ = graph(
        "checkpoint=r.safetensors", "arch=timm:test_resnet", "out=r", "html=true", "max_neurons=4"
    )
    assert code == 0
    assert files("r") == {"graph.safetensors", "graph.json", "graph.png", "graph.html"}
    assert "convolution 370,608" in out and "; constant: residual 736" in out
    assert "extras    15 tensors travel unchanged: " in out
    again, template = load_graph("r/graph.safetensors")
    assert (
        template.num_edges == sum(x.numel() for x in state.values() if x.is_floating_point()) + 736
    )
    back = metanet.from_graph(again, metanet.trace(load_source("timm:test_resnet")))
    assert all(torch.equal(back[n], x) for n, x in state.items())


def test_a_file_for_torch_geometric(graph, saved):
    state = saved("normed")
    code, _, _ = graph(
        "checkpoint=a.safetensors",
        "arch={n}:normed",
        "input_shape=[5]",
        "out=g",
        "format=pt",
        "draw=false",
    )
    assert code == 0 and files("g") == {"graph.pt"}
    made, template = load_graph("g/graph.pt")
    assert (
        made.edge_attr.shape[0] == template.num_edges == sum(x.numel() for x in state.values()) - 1
    )
    assert made.extras[0].keys() == {"1.num_batches_tracked"}


def test_the_structure_on_request(graph, saved):
    saved("mlp")
    args = (
        "checkpoint=a.safetensors",
        "arch={n}:mlp",
        "input_shape=[5]",
        "out=g",
        "draw=false",
        "structure=true",
    )
    assert graph(*args)[0] == 0
    assert "attributes/edge_index" in metanet.load_checkpoint("g/graph.safetensors")


def test_nan_and_inf_are_reported_with_their_tensors(graph, saved):
    weight = torch.randn(6, 6)
    weight[0, :3] = float("nan")
    saved(
        "mlp", changes={"2.weight": weight, "4.bias": torch.tensor([float("inf"), 1.0]).bfloat16()}
    )
    code, out, _ = graph("checkpoint=a.safetensors", "arch={n}:mlp", "input_shape=[5]", "out=g")
    assert code == 0
    assert "NaN, inf  4 values of 2 tensors: 2.weight (3), 4.bias (1)" in out
    assert "dtypes    float32 5, bfloat16 1" in out
    assert torch.isnan(load_graph("g/graph.safetensors")[0].edge_attr).sum() == 3


def test_what_a_sweep_shows_is_measured(graph, saved):
    saved("mlp")
    code, out, _ = graph(
        "checkpoint=a.safetensors",
        "arch={n}:mlp",
        "input_shape=[5]",
        "-m",
        "max_edges=5,10",
        "draw=false",
    )
    assert code == 0
    assert re.search(r"\| max_edges +\| runs \| nodes", out)


class TestCheckpointsThatDoNotFit:
    def test_all_that_differs_is_named(self, graph, saved):
        whole = torch.ones(2, 6, dtype=torch.int8)  # quantised: no weights without their scales
        saved(
            "mlp",
            changes={
                "2.weight": torch.ones(7, 6),
                "4.bias": None,
                "6.bias": torch.ones(9),
                "4.weight": whole,
            },
        )
        code, _, err = graph("checkpoint=a.safetensors", "arch={n}:mlp", "input_shape=[5]", "out=g")
        assert code == 1
        assert "checkpoint 'a.safetensors' does not fit the network" in err
        assert re.search(r"missing +4\.bias \(2,\)", err)
        assert re.search(r"unexpected +6\.bias \(9,\)", err)
        assert re.search(r"shape +2\.weight is \(7, 6\), expected \(6, 6\)", err)
        assert "dtype       4.weight is torch.int8, expected torch.float32" in err
        assert ":mlp" in err and "arch_args.num_classes=N" in err
        assert not Path("g").exists() and "Traceback" not in err

    def test_what_the_network_has_not_can_be_dropped(self, graph, saved):
        saved("mlp", changes={"6.bias": torch.ones(9)})
        args = (
            "checkpoint=a.safetensors",
            "arch={n}:mlp",
            "input_shape=[5]",
            "out=g",
            "draw=false",
        )
        assert graph(*args)[0] == 1
        code, out, _ = graph(*args, "extra=drop")
        assert code == 0
        assert "left out, 1 of the checkpoint: 6.bias" in out

    def test_a_wrapped_state_dict(self, graph):
        """As training code keeps it: under a key of its own, names with a prefix, among objects
        that are no tensors."""
        state = load_source(f"{graph.module}:mlp").state_dict()
        wrapped = {
            "teacher": {"net.body." + n: x for n, x in state.items()}
            | {"loss.scale": torch.ones(3)}
        }
        torch.save({**wrapped, "options": argparse.Namespace(width=6)}, "a.pt")
        args = ("checkpoint=a.pt", "arch={n}:mlp", "input_shape=[5]", "out=g", "draw=false")
        code, _, err = graph(*args)
        assert code == 1 and "argparse.Namespace" in err
        code, out, _ = graph(*args, "key=teacher", "prefix=net.body.", "foreign_classes=inert")
        assert code == 0
        assert "left out, 1 of the checkpoint: loss.scale" in out
        made, template = load_graph("g/graph.safetensors")
        assert all(torch.equal(x, state[n]) for n, x in template.tensors(made.edge_attr).items())

    def test_tied_tensors(self, graph, saved):
        state = saved("tied", changes={"2.weight": None})  # as files without the second name are
        args = (
            "checkpoint=a.safetensors",
            "arch={n}:tied",
            "input_shape=[5]",
            "out=g",
            "draw=false",
        )
        assert graph(*args)[0] == 0
        made, _ = load_graph("g/graph.safetensors")
        back = metanet.from_graph(
            made, metanet.trace(load_source(f"{graph.module}:tied"), torch.randn(2, 5))
        )
        assert torch.equal(back["2.weight"], state["0.weight"])
        saved("tied", changes={"2.weight": torch.ones(5, 5)})
        code, _, err = graph(*args, "overwrite=true")
        assert code == 1
        assert "2.weight and 0.weight have different values, but are one tensor" in err

    def test_buffers_that_are_missing_are_named(self, graph, saved):
        saved("normed", changes={"1.num_batches_tracked": None})
        code, out, _ = graph(
            "checkpoint=a.safetensors", "arch={n}:normed", "input_shape=[5]", "out=g", "draw=false"
        )
        assert code == 0
        assert (
            "absent    1 buffers of the network are not in the checkpoint: 1.num_batches_tracked"
            in out
        )


class TestExistingOutput:
    def test_is_refused_before_anything_is_done(self, graph, saved):
        saved("mlp")
        Path("g").mkdir()
        Path("g/graph.json").write_text("mine")
        args = (
            "checkpoint=a.safetensors",
            "arch={n}:mlp",
            "input_shape=[5]",
            "out=g",
            "draw=false",
        )
        code, out, err = graph(*args)
        assert code == 1
        assert "out=g has graph.json already: choose another folder, or overwrite=true" in err
        assert (
            "traced" not in out
            and files("g") == {"graph.json"}
            and Path("g/graph.json").read_text() == "mine"
        )

    def test_can_be_replaced(self, graph, saved):
        args = (
            "checkpoint=a.safetensors",
            "arch={n}:mlp",
            "input_shape=[5]",
            "out=g",
            "draw=false",
            "overwrite=true",
        )
        for fill in (1.0, 2.0):
            saved("mlp", changes={"2.weight": torch.full((6, 6), fill)})
            assert graph(*args)[0] == 0
        made, template = load_graph("g/graph.safetensors")
        (block,) = (b for b in template.blocks if b.tensor == "2.weight")
        assert (made.edge_attr[block.edges()] == 2).all()

    def test_other_files_in_the_folder_stay(self, graph, saved):
        saved("mlp")
        Path("g").mkdir()
        Path("g/notes.txt").write_text("mine")
        assert (
            graph(
                "checkpoint=a.safetensors", "arch={n}:mlp", "input_shape=[5]", "out=g", "draw=false"
            )[0]
            == 0
        )
        assert files("g") == {"graph.safetensors", "graph.json", "notes.txt"}


def test_a_graph_too_large_is_refused_with_numbers(graph, saved, monkeypatch):
    saved("mlp")
    monkeypatch.setattr(_memory, "available_memory", lambda: 5000)
    monkeypatch.setattr(_memory, "_SMALL", 0)
    code, _, err = graph("checkpoint=a.safetensors", "arch={n}:mlp", "input_shape=[5]", "out=g")
    assert code == 1
    assert "22 nodes and 92 edges: it takes some 10.1 kB of memory, and 5.0 kB are available" in err
    assert 'granularity="tensor"' in err and not Path("g").exists()


def test_what_the_system_says_of_its_memory():
    available = _memory.available_memory()
    assert available is None or 2**20 < available < 2**50


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["chekpoint=a.safetensors"], "did you mean checkpoint?"),
        (
            ["checkpoint=b.safetensors"],
            "checkpoint 'b.safetensors' does not exist; its folder has a.safetensors",
        ),
        (["checkpoint=a.safetensors", "arch={n}:mpl"], "has no mpl; did you mean mlp?"),
        (["checkpoint=a.safetensors", "input_shape=null"], "Give input_shape= of one sample"),
        (
            ["checkpoint=a.safetensors", "granularity=layer"],
            "granularity=layer: choose from neuron, tensor",
        ),
        (["checkpoint=a.safetensors", "format=npz"], "format=npz: choose from safetensors, pt"),
        (["checkpoint=a.safetensors", "extra=keep"], "extra=keep: choose from refuse, drop"),
        (
            ["checkpoint=a.safetensors", "max_edges=0"],
            "max_edges=0: give a whole number 1 or more\n",
        ),
        (
            ["checkpoint=a.safetensors", "max_edges=many", "max_neurons=-1", "html=3"],
            "html=3: give true or false\n- max_edges=many: give a whole number 1 or more\n"
            "- max_neurons=-1: give a whole number 1 or more, or null",
        ),
        (
            ["checkpoint=a.safetensors", "out=a.safetensors"],
            "out=a.safetensors is a file: give a folder",
        ),
        (["arch={n}:mlp"], "no value for checkpoint: give checkpoint=VALUE"),
    ],
)
def test_says_what_is_wrong(args, message, graph, saved):
    saved("mlp")
    given = {arg.partition("=")[0] for arg in args}
    code, _, err = graph(
        *args, *(d for d in ("arch={n}:mlp", "input_shape=[5]") if d.partition("=")[0] not in given)
    )
    assert code == 1
    assert message.casefold() in err.casefold(), err
    assert "Traceback" not in err
