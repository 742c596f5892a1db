"""metanet align: what it writes, what it says, and what it refuses."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import metanet
from metanet import Alignment, cli
from metanet._cli import networks
from metanet.alignment import MATCHERS
from metanet.sources import load_source

ROOT = Path(__file__).parent.parent.parent
NETWORKS = """
import torch
from torch import nn

def mlp(width=6):
    layers = [nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)]
    return nn.Sequential(*layers)

def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(16, 5, generator=generator), torch.randint(2, (16,), generator=generator))
        for _ in range(3)
    ]

def hinge(outputs, target):
    return (1 - outputs.gather(1, target[:, None])).relu().mean()
"""


def mlp(seed, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
    )


@pytest.fixture
def align(calls, capsys, tmp_path):
    """Run the command beside two checkpoints, b being a relabelled: ``align("out=...", ...)`` ->
    code, out, err."""
    module = f"align_{re.sub('[^a-z0-9]', '_', tmp_path.name)}"
    Path(f"{module}.py").write_text(NETWORKS)
    arch = metanet.trace(mlp(1), torch.randn(3, 5))
    a = mlp(1).state_dict()
    metanet.save_checkpoint("a.safetensors", a)
    metanet.save_checkpoint("b.safetensors", arch.spec.sample(torch.Generator().manual_seed(2))(a))

    def run(*args):
        given = {"a": "a.safetensors", "b": "b.safetensors", "arch": f"{module}:mlp", "out": "out"}
        given.update(
            arg.replace("{n}", module).split("=", 1) for arg in args if not arg.startswith("~")
        )
        given.setdefault("input_shape", "[5]")
        args = [f"{key}={value}" for key, value in given.items() if f"~{key}" not in args]
        code = cli.main(["align", *args])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_moves_b_onto_a(align):
    code, out, err = align()
    assert code == 0, err
    assert {p.name for p in Path("out").iterdir()} == {
        "model.safetensors",
        "alignment.safetensors",
        "metrics.json",
    }
    a, moved = load_file("a.safetensors"), load_file("out/model.safetensors")
    assert a.keys() == moved.keys() and all(torch.equal(a[n], moved[n]) for n in a)
    al = Alignment.load("out/alignment.safetensors")
    assert all(torch.equal(x, a[n]) for n, x in al(load_file("b.safetensors")).items())
    assert re.search(
        r"Alignment by weight: 2 groups moved, objective \S+ -> \S+ in \d+ steps, \d+\.\d\d s", out
    )
    assert re.search(r"distance of a and b: [1-9]\S* -> 0\n", out) and "b moved onto a: out" in out
    numbers = json.loads(Path("out/metrics.json").read_text())
    assert numbers["objective/after"] > numbers["objective/before"] and numbers["identity"] == {}
    assert (numbers["groups/moved"], numbers["groups/left"], numbers["distance/after"]) == (2, 0, 0)
    assert json.loads(Path("outputs/align/now/metrics.json").read_text())["groups/moved"] == 2
    assert not [p for p in Path().iterdir() if ".partial." in p.name]


@pytest.mark.parametrize("name", sorted(MATCHERS))
def test_every_matcher_has_a_file_with_its_options(name):
    conf = yaml.safe_load((ROOT / "conf" / "matcher" / f"{name}.yaml").read_text())
    assert conf.pop("name") == name
    assert conf == MATCHERS[name].options
    assert all(type(conf[o]) is type(default) for o, default in MATCHERS[name].options.items())
    parameters = inspect.signature(MATCHERS[name].function).parameters
    assert list(conf) == list(parameters)[1:]


def test_every_file_is_of_a_matcher():
    assert {p.stem for p in (ROOT / "conf" / "matcher").iterdir()} == set(MATCHERS)


@pytest.mark.parametrize("name", sorted(MATCHERS))
def test_every_matcher_runs(name, align):
    fast = {"sinkhorn": ["matcher.steps=3"], "straight_through": ["matcher.epochs=1"]}.get(name, [])
    code, out, err = align(f"matcher={name}", "data={n}:batches", *fast)
    assert code == 0, err
    assert f"Alignment by {name}: " in out
    numbers = json.loads(Path("out/metrics.json").read_text())
    assert numbers["objective/after"] >= numbers["objective/before"]
    if name in ("weight", "activation", "combined", "universe"):
        assert numbers["distance/after"] < 1e-6 < numbers["distance/before"]


def test_a_home_folder_is_found(align, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    code, _, err = align("a=~/a.safetensors", "out=~/moved")
    assert code == 0, err
    assert Path("moved/model.safetensors").is_file() and not Path("~").exists()


def test_options_and_losses_reach_the_matcher(align):
    code, _, err = align(
        "matcher=straight_through",
        "matcher.epochs=1",
        "data={n}:batches",
        "loss={n}:hinge",
        "seed=3",
    )
    assert code == 0, err
    al = Alignment.load("out/alignment.safetensors")
    assert (al.options["epochs"], al.seed, al.method) == (1, 3, "straight_through")
    numbers = json.loads(Path("out/metrics.json").read_text())
    code, _, _ = align(
        "matcher=straight_through", "matcher.epochs=1", "data={n}:batches", "seed=3", "out=other"
    )
    assert (
        numbers["objective/before"]
        != json.loads(Path("other/metrics.json").read_text())["objective/before"]
    )


def test_all_else_of_b_stays_as_it_was(align):
    state = load_file("b.safetensors")
    metanet.save_checkpoint(
        "wrapped", {"counter": torch.tensor(3), **{f"net.{n}": t.half() for n, t in state.items()}},
        metadata={"epoch": 7}, max_shard_size=100,
    )  # fmt: skip
    Path("wrapped/config.json").write_text('{"kind": "mine"}')
    Path("wrapped/training_args.bin").write_bytes(b"\0")
    code, _, err = align("b=wrapped")
    assert code == 0, err
    names = {p.name for p in Path("out").iterdir()}
    assert (
        "model.safetensors.index.json" in names
        and "config.json" in names
        and "training_args.bin" not in names
    )
    assert len([n for n in names if n.startswith("model-0000")]) > 1
    moved, a = metanet.load_checkpoint("out"), load_file("a.safetensors")
    assert set(moved) == {"counter", *(f"net.{n}" for n in state)}
    assert moved.metadata == {"epoch": 7, "config": {"kind": "mine"}}
    assert moved["counter"] == 3
    assert all(torch.equal(moved[f"net.{n}"], a[n].half()) for n in a)


def test_a_network_of_timm(align, tmp_path):
    model = load_source("timm:test_resnet", num_classes=4)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand(tensor.shape) + 0.5
                if name.endswith("running_var")
                else torch.randn(tensor.shape)
            )
    a = model.state_dict()
    metanet.save_checkpoint("a.safetensors", a)
    metanet.save_checkpoint(
        "b.safetensors", metanet.trace(model).spec.sample(torch.Generator().manual_seed(2))(a)
    )
    code, out, err = align("arch=timm:test_resnet", "arch_args.num_classes=4", "input_shape=null")
    assert code == 0, err
    moved = load_file("out/model.safetensors")
    assert all(torch.equal(a[n], moved[n]) for n in a)
    assert "distance of a and b: " in out


def test_a_large_network_is_never_made_with_values(align, monkeypatch):
    made = []
    real = networks.seeded_network
    monkeypatch.setattr(
        networks, "seeded_network", lambda *args: made.append(real(*args)) or made[-1]
    )
    monkeypatch.setattr(networks, "_LARGE", 10)
    code, _, err = align()
    assert code == 0, err
    assert all(p.is_meta for p in made[0].parameters())
    assert json.loads(Path("out/metrics.json").read_text())["distance/after"] == 0
    code, _, err = align("matcher=activation", "data={n}:batches", "out=run")  # which has to run it
    assert code == 0, err
    assert not any(p.is_meta for p in made[1].parameters())


def test_groups_that_nothing_tells_apart_are_named(align):
    metanet.save_checkpoint(
        "b.safetensors", {n: torch.ones_like(t) for n, t in load_file("a.safetensors").items()}
    )
    code, out, err = align()
    assert code == 0, err
    why = "all its neurons have equal weights in one of the checkpoints"
    assert len(re.findall(rf"  \S+ left as it is: {why}", out)) == 2
    numbers = json.loads(Path("out/metrics.json").read_text())
    assert numbers["groups/left"] == 2 and set(numbers["identity"].values()) == {why}


class TestOut:
    def test_what_is_there_stays(self, align):
        Path("out").mkdir()
        Path("out/mine.txt").write_text("mine")
        code, _, err = align()
        assert code == 1
        assert "out=out is not empty: give a folder that does not exist yet" in err
        assert [p.name for p in Path("out").iterdir()] == ["mine.txt"]
        Path("file").write_text("")
        assert "out=file is a file" in align("out=file")[2]
        assert "out=x.safetensors: give a folder" in align("out=x.safetensors")[2]

    def test_an_empty_folder_and_an_odd_name_will_do(self, align):
        Path("odd (1)=x.y").mkdir()
        code, _, err = align("out=odd (1)=x.y")
        assert code == 0, err
        assert Path("odd (1)=x.y/model.safetensors").is_file()

    def test_nothing_half_written(self, align, monkeypatch):
        def full(self, path):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Alignment, "save", full)
        code, _, err = align("out=new/out")
        assert code == 1
        assert f"can't write {Path('new/out').absolute()}: No space left on device" in err
        assert "make room or choose another folder" in err
        assert not Path("new").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["arch_args.width=7"], r"0.weight is (6, 5), expected (7, 5)"),
        (["arch=timm:test_resnet", "input_shape=null"], "does not fit the network"),
        (
            ["b=c.safetensors"],
            "checkpoint 'c.safetensors' does not exist; its folder has a.safetensors, b.safetensors",
        ),
        (["b=typo.safetensors"], "missing     4.weight (2, 6); near: 4.weihgt (2, 6)"),
        (["b=nan.safetensors"], "values of 4.weight are NaN or infinite"),
        (["matcher=activation"], "matcher=activation runs the networks: give data="),
        (
            ["matcher=sinkhorn", "matcher.on=midpoint"],
            "matcher=sinkhorn runs the networks: give data=",
        ),
        (["matcher=wait"], "matcher=wait: choose from activation, combined, merge_many"),
        (["matcher.restart=2"], "did you mean matcher.restarts?"),
        (["data=nowhere"], "data=nowhere: there is no such folder or file"),
        (["data_args.limit=3"], "data_args.limit needs data="),
        (["device=nowhere"], "device=nowhere can't be used"),
        (["loss=hinge"], "there is no loss 'hinge'"),
        (["~out"], "no value for out: give out=VALUE"),
        (["~a", "~b"], "no value for a, b: give a=VALUE b=VALUE"),
    ],
)
def test_says_what_is_wrong(args, message, align):
    state = load_file("b.safetensors")
    metanet.save_checkpoint(
        "typo.safetensors", {n.replace("4.weight", "4.weihgt"): t for n, t in state.items()}
    )
    broken = {**state, "4.weight": torch.full((2, 6), float("nan"))}
    if "b=nan.safetensors" in args:
        metanet.save_checkpoint("nan.safetensors", broken)
    code, _, err = align(*args)
    assert code == 1
    assert message in err
    assert "Traceback" not in err
    assert not Path("out").exists()
