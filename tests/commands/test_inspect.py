"""metanet inspect: what it prints, what it leaves, and when it fails."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import metanet
from metanet import cli
from metanet._cli import tracing
from metanet.commands import inspect as command
from metanet.verification import Verification

NETWORKS = """
import torch
from torch import nn

def mlp(width=6):
    layers = [nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)]
    return nn.Sequential(*layers)

def cnn():
    convolution = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

def words():
    made = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    made.example_inputs = (torch.tensor([[1, 2, 3], [4, 5, 6]]),)
    return made

def text():
    return nn.Embedding(7, 4)

def random():
    return nn.Sequential(nn.Linear(5, 6), Noisy(), nn.Linear(6, 2))

def ordered():
    return nn.Sequential(nn.Linear(5, 6), Ordered(), nn.Linear(6, 2))

class Ordered(nn.Module):
    def forward(self, x):
        return x.cumsum(-1)

class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)
"""


@pytest.fixture
def inspect(calls, capsys, monkeypatch):
    """Run the command in a folder with networks: ``inspect("arch=...", ...)`` -> exit code, stdout,
    stderr."""
    module = f"networks_{re.sub('[^a-z0-9]', '_', Path.cwd().parent.name)}"
    Path(f"{module}.py").write_text(NETWORKS)

    def run(*args):
        code = cli.main(["inspect", *(arg.replace("{n}", module) for arg in args)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_prints_the_table_and_both_reports(inspect):
    code, out, _ = inspect("arch={n}:mlp", "input_shape=[5]")
    assert code == 0
    assert "2 groups" in out and re.search(r"0\.weight +0\[6\]  5", out)
    assert re.search(r"traced in \d+\.\d s with input \[2, 5\]", out)
    first, second = re.findall(
        r"verified with input \[(\d), 5\]\n  ok: legal change \S+, \d+% moved, (\d) axes", out
    )
    assert (first, second) == (("2", "6"), ("3", "6"))


def test_what_a_sweep_shows_is_measured(inspect):
    code, out, _ = inspect(
        "arch={n}:mlp", "input_shape=[5]", "-m", "arch_args.width=3,4", "seed=0,1"
    )
    assert code == 0
    assert re.search(r"\| arch_args.width +\| runs \| groups +\|", out)
    metrics = json.loads(Path("outputs/sweeps/now/0/metrics.json").read_text())
    assert (metrics["groups"], metrics["warnings"], metrics["unseen"]) == (2, 0, 0)
    assert metrics["moved"] > 0.5
    assert metrics["change"] < 1e-10


def test_convolutions_and_other_devices(inspect):
    code, out, _ = inspect("arch={n}:cnn", "input_shape=[1,8,8]", "device=cpu", "axes=2")
    assert code == 0
    assert "conv" not in out and re.search(r"0\.weight +0\[4\]  1  3  3", out)
    assert len(re.findall(r"2 of \d axes checked", out)) == 2


def test_a_module_may_say_what_it_takes(inspect):
    code, out, _ = inspect("arch={n}:words")
    assert code == 0
    assert "traced in" in out and "with input [2, 3]" in out
    assert out.count("verified with") == 1  # it gives no check_inputs


def test_saves_the_architecture(inspect):
    code, out, _ = inspect("arch={n}:mlp", "input_shape=[5]", "verify=false", "out=odd (1)=a.json")
    assert code == 0
    assert "saved as odd (1)=a.json" in out and "verified" not in out
    saved = metanet.Architecture.load("odd (1)=a.json")
    assert set(saved.spec.tensors) == {
        f"{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")
    }
    assert [each.name for each in Path().iterdir() if each.suffix == ".json"] == ["odd (1)=a.json"]


def test_explains_a_tensor(inspect):
    code, out, _ = inspect("arch={n}:mlp", "input_shape=[5]", "verify=false", "explain=4.weight")
    assert code == 0
    assert "4.weight (2, 6) float32" in out and "2 fixed: axis of the network's output" in out
    code, _, err = inspect("arch={n}:mlp", "input_shape=[5]", "explain=5.weight")
    assert code == 1 and "no tensor '5.weight'" in err


def test_the_same_seed_gives_the_same_report(inspect):
    def report(*args):
        return re.findall("legal change .*", inspect("arch={n}:mlp", "input_shape=[5]", *args)[1])

    assert report("seed=3") == report("seed=3") != report("seed=4")


def test_the_meta_device_is_not_verified(inspect):
    code, out, _ = inspect("arch={n}:mlp", "input_shape=[5]", "device=meta")
    assert code == 0
    assert (
        "2 groups" in out
        and "not verified: the meta device has no values; device=cpu verifies" in out
    )


class TestVerificationFails:
    def test_a_wrong_spec_is_an_error_with_numbers(self, inspect, monkeypatch):
        lookalike = nn.Sequential(
            nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)
        )  # whose hidden neurons can be exchanged
        monkeypatch.setattr(
            tracing, "trace", lambda *args, **kwargs: metanet.trace(lookalike, torch.rand(2, 5))
        )
        code, out, err = inspect("arch={n}:ordered", "input_shape=[5]")
        assert code == 1
        assert out.count("FAILED: legal change") == 2
        change = re.search(
            r"the verification of \S+:ordered failed: legal relabellings changed .* by (\S+) of",
            err,
        )
        assert float(change[1]) > 1e-3
        assert (
            json.loads(next(Path("outputs/inspect").glob("*/metrics.json")).read_text())["change"]
            > 1e-3
        )

    def test_an_axis_that_nobody_can_explain_is_one_too(self, inspect, monkeypatch):
        blind = Verification(
            change=0.0, moved=1.0, sensitivity={("0.bias", 0): 0.0, ("0.weight", 0): 0.5}, movable=2
        )
        monkeypatch.setattr(command, "verify", lambda *args, **kwargs: blind)
        code, _, err = inspect("arch={n}:mlp", "input_shape=[5]")
        assert code == 1
        assert (
            "1 illegal relabellings changed nothing, for no reason that was found: 0.bias axis 0\n"
            in err
        )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["arch={n}:mpl", "input_shape=[5]"], "has no mpl; did you mean mlp?"),
        (["arch={n}:mlp"], "nothing says what Sequential takes. Give input_shape= of one sample"),
        (["arch={n}:mlp", "input_shape=[4]"], "The forward pass of Sequential raised"),
        (
            ["arch={n}:mlp", "input_shape=5"],
            "input_shape=5: give the shape of one sample, e.g. [1,28,28] or [16]",
        ),
        (["arch={n}:mlp", "input_shape=[0]"], "input_shape=[0]: give the shape of one sample"),
        (
            ["arch={n}:text", "input_shape=[3]"],
            "take integers, or several inputs? Then set an attribute",
        ),
        (["arch={n}:random", "input_shape=[5]"], "not deterministic"),
        (["arch={n}:mlp", "input_shape=[5]", "device=nowhere"], "device=nowhere can't be used"),
        (["arch={n}:mlp", "input_shape=[5]", "width=3"], "unknown key 'width'"),
        ([], "no value for arch: give arch=VALUE"),
    ],
)
def test_says_what_is_wrong(args, message, inspect):
    code, _, err = inspect(*args)
    assert code == 1
    assert message.casefold() in err.casefold(), err
    assert "Traceback" not in err
