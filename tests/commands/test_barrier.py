"""metanet barrier: networks trained for seconds, tables, pictures, logs, and what is refused."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import metanet
from metanet import cli

NETWORKS = """
import torch
from torch import nn

def mlp(width=64):
    layers = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)]
    return nn.Sequential(*layers)

def nothing():
    return []

def negative_accuracy(outputs, target):
    return -(outputs.argmax(-1) == target).float().mean()
"""


def trained(seed, x, y, width=64, steps=150):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (256,))
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.state_dict()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two networks of different seeds, and the digits that they were not trained on."""
    folder = tmp_path_factory.mktemp("digits")
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:]
    for seed, name in enumerate("ab"):
        metanet.save_checkpoint(folder / f"{name}.safetensors", trained(seed, x[train], y[train]))
    metanet.save_checkpoint(
        folder / "train (1).safetensors", {"inputs": x[train], "targets": y[train]}
    )
    metanet.save_checkpoint(folder / "test.safetensors", {"inputs": x[test], "targets": y[test]})
    return folder


@pytest.fixture
def barrier(calls, capsys, tmp_path, digits):
    """Run the command on the digits: ``barrier("matcher=weight", ...)`` -> exit code, stdout,
    stderr."""
    module = f"barrier_{re.sub('[^a-z0-9]', '_', tmp_path.name)}"
    Path(f"{module}.py").write_text(NETWORKS)

    def run(*args):
        given = {
            "a": digits / "a.safetensors",
            "b": digits / "b.safetensors",
            "data": digits / "test.safetensors",
        }
        given.update({"arch": f"{module}:mlp", "logger": "none"})
        given.update(
            arg.replace("{n}", module).split("=", 1) for arg in args if not arg.startswith("-")
        )
        flags = [arg for arg in args if arg == "-m"]
        code = cli.main(
            ["barrier", *flags, *(f"{k}={v}" for k, v in given.items() if f"-{k}" not in args)]
        )
        out, err = capsys.readouterr()
        return code, out, err

    return run


def results(run_dir="outputs/barrier/now"):
    rows = list(csv.DictReader((Path(run_dir) / "barrier.csv").read_text().splitlines()))
    return json.loads((Path(run_dir) / "metrics.json").read_text()), rows


def test_trained_networks_before_and_after_alignment(barrier, digits):
    code, out, err = barrier("matcher=activation", f"train_data={digits / 'train (1).safetensors'}")
    assert code == 0, err
    numbers, rows = results()
    assert numbers["accuracy/a"] > 0.9 and numbers["accuracy/b"] > 0.9
    assert numbers["unaligned/accuracy/barrier"] > 0.05
    assert numbers["accuracy/barrier"] < numbers["unaligned/accuracy/barrier"] / 2
    assert numbers["loss/barrier"] < numbers["unaligned/loss/barrier"] / 2
    assert numbers["unaligned/calibrated_loss/barrier"] < numbers["unaligned/loss/barrier"]
    assert (numbers["samples"], numbers["points"], numbers["matcher"]) == (597, 25, "activation")
    assert len(rows) == 25 and [float(rows[n]["lambda"]) for n in (0, 12, 24)] == [0, 0.5, 1]
    assert float(rows[0]["loss"]) == float(rows[0]["unaligned_loss"])
    assert float(rows[24]["loss"]) == pytest.approx(float(rows[24]["unaligned_loss"]), abs=1e-5)
    assert (Path("outputs/barrier/now") / "barrier.png").read_bytes().startswith(b"\x89PNG")
    assert "Alignment by activation: 2 groups moved" in out
    assert re.search(
        r"barrier as they are: loss \S+, accuracy \S+, calibrated loss \S+\nbarrier aligned by activ",
        out,
    )
    assert "10 batches of 597 samples" in out


def test_without_a_matcher_only_the_baseline(barrier):
    code, out, err = barrier(
        "points=3", "metrics=[accuracy]", "data_args.limit=100", "data_args.batch_size=50"
    )
    assert code == 0, err
    numbers, rows = results()
    assert list(rows[0]) == ["lambda", "loss", "accuracy"]
    assert "matcher" not in numbers and numbers["samples"] == 100
    assert "aligned" not in out and "2 batches of 100 samples" in out


def test_an_alignment_that_was_saved(barrier, digits):
    paths = [f"a={digits / 'a.safetensors'}", f"b={digits / 'b.safetensors'}"]
    module = next(Path().glob("barrier_*.py")).stem
    args = [
        *paths,
        f"arch={module}:mlp",
        f"data={digits / 'test.safetensors'}",
        "matcher=activation",
        "out=al (1)",
    ]
    assert cli.main(["align", *args]) == 0
    for given in ("alignment=al (1)", "alignment=al (1)/alignment.safetensors"):
        code, _, err = barrier(given, "points=5", "hydra.run.dir=one")
        assert code == 0, err
        assert results("one")[0]["matcher"] == "activation"
    saved = results("one")[1]
    barrier("matcher=activation", "points=5", "hydra.run.dir=two")
    assert saved == results("two")[1]
    code, _, err = barrier("b=al (1)", "points=5", "hydra.run.dir=three")
    assert code == 0, err
    assert [float(r["loss"]) for r in results("three")[1]] == [float(r["loss"]) for r in saved]


def test_a_sweep_over_matchers_ends_with_a_table(barrier):
    code, out, err = barrier("-m", "matcher=weight,activation", "points=3")
    assert code == 0, err
    rows = list(csv.DictReader(Path("outputs/sweeps/now/summary.csv").read_text().splitlines()))
    assert [row["matcher"] for row in rows] == ["weight", "activation"]
    assert all(
        float(row["loss/barrier mean"]) < float(row["unaligned/loss/barrier mean"]) for row in rows
    )
    assert "loss/barrier" in out


@pytest.mark.usefixtures("timm_pair")
def test_a_network_of_timm_and_its_relabelling(barrier, tmp_path):
    from PIL import Image

    for n in range(12):
        path = tmp_path / "images" / "abc"[n % 3] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(torch.randint(256, (40, 48, 3), dtype=torch.uint8).numpy()).save(path)
    args = [
        "a=a.safetensors", "b=b.safetensors", "arch=timm:test_resnet", "arch_args.num_classes=3",
        "matcher=weight", f"data={tmp_path / 'images'}", "points=5", "data_args.size=64",
        "data_args.batch_size=6",
    ]  # fmt: skip
    code, _, err = barrier(*args)
    assert code == 0, err
    numbers, rows = results()
    assert numbers["loss/barrier"] < 1e-6 * abs(numbers["loss/a"])
    assert float(rows[2]["unaligned_loss"]) != pytest.approx(numbers["loss/a"], rel=1e-3)
    code, _, err = barrier(*args, "statistics=reset", "hydra.run.dir=reset")
    assert code == 0, err
    reset, again = results("reset")
    assert reset["loss/a"] == numbers["loss/a"]
    assert (
        again[2]["loss"] != rows[2]["loss"]
        and again[2]["unaligned_loss"] != rows[2]["unaligned_loss"]
    )


def test_losses_by_name_and_of_ones_own(barrier):
    code, _, err = barrier("loss={n}:negative_accuracy", "points=3")
    assert code == 0, err
    numbers, _ = results()
    assert numbers["loss/a"] == pytest.approx(-numbers["accuracy/a"], abs=1e-6)


def test_weights_and_biases_gets_curve_numbers_and_picture(barrier, monkeypatch):
    import wandb

    logged, summary, ended = [], {}, []

    class Run:
        def __init__(self):
            self.summary = summary

        def log(self, values):
            logged.append(values)

        def finish(self):
            ended.append(True)

    monkeypatch.setattr(
        wandb, "init", lambda **kwargs: summary.update(config=kwargs["config"]) or Run()
    )
    assert barrier("logger=wandb", "logger.mode=offline", "points=3")[0] == 0
    numbers, rows = results()
    assert [step["loss"] for step in logged[:3]] == [float(row["loss"]) for row in rows]
    assert isinstance(logged[3]["barrier"], wandb.Image)
    assert summary["loss/barrier"] == numbers["loss/barrier"] and summary["config"]["points"] == 3
    assert ended == [True]
    ended.clear()
    assert barrier("logger=wandb", "logger.mode=disabled", "points=3", "hydra.run.dir=off")[0] == 0
    assert ended == []


def test_a_login_is_asked_for_before_anything_is_read(barrier, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(type(wandb.api), "api_key", None, raising=False)
    code, _, err = barrier("logger=wandb", "logger.mode=online", "a=nowhere")
    assert code == 1 and "logger.mode=online needs a W&B login" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-data"], "no value for data: give data=VALUE"),
        (["data=null"], "no value for data: give data=VALUE"),
        (["data={n}:nothing"], "the data yielded no batch"),
        (["arch_args.width=32"], "0.weight is (64, 64), expected (32, 64)"),
        (["a=typo.safetensors"], "missing     4.bias (10,); near: 4.bais (10,)"),
        (["a=nan.safetensors"], "1 of 10 values of 4.bias are NaN or infinite"),
        (["matcher=weight", "alignment=x.safetensors"], "give either matcher=NAME"),
        (["alignment=x.safetensors"], "checkpoint 'x.safetensors' does not exist"),
        (["alignment=typo.safetensors"], "not a saved alignment"),
        (["points=1"], "points=1: a path has both ends"),
        (["statistics=reset"], "has no running statistics"),
        (["metrics=[f1]"], "no metric 'f1'"),
        (["device=meta"], "device=meta has no values"),
        (["matchr=weight"], "did you mean matcher?"),
    ],
)
def test_says_what_is_wrong(args, message, barrier, digits):
    state = dict(metanet.load_checkpoint(digits / "a.safetensors"))
    renamed = {n.replace("4.bias", "4.bais"): t for n, t in state.items()}
    metanet.save_checkpoint("typo.safetensors", renamed)
    state["4.bias"][3] = float("nan")
    metanet.save_checkpoint("nan.safetensors", state)
    code, _, err = barrier(*args)
    assert code == 1
    assert message in err
    assert "Traceback" not in err
    assert not list(Path().glob("outputs/barrier/*/*.[cpj]*"))
