"""Whole runs: what they leave behind, the relabelling check, prediction, resuming after SIGKILL,
two processes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import metanet
from metanet import cli
from metanet.errors import MetanetError
from metanet.sources import load_factory
from metanet.tasks._last import load_last
from metanet.zoo import open_zoo

from .conftest import command

REF = "metanet.zoo.networks:mlp"
SMALL = ("model=gmn", "model.width=8", "model.layers=1")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_behind(run):
    folder, metrics = run(*SMALL, "logger=wandb", "logger.mode=offline")
    assert {
        "test/tau",
        "test/r2",
        "test/mae",
        "unseen/tau",
        "relabelled/test/tau",
        "parameters",
    } <= metrics.keys()
    assert metrics["relabelled/largest_change"] < 1e-4
    assert metrics["relabelled/test/tau"] == pytest.approx(metrics["test/tau"])
    assert (folder / "scatter.png").stat().st_size > 1000
    assert "| test, relabelled |" in (folder / "results.md").read_text()
    assert (
        len(rows(folder / "predictions.csv")) == 3 + 8
    )  # a fifth of 16 networks, and the unseen architecture
    logged = rows(folder / "csv/version_0/metrics.csv")
    assert {"train/loss", "val/tau", "val/loss", "lr"} <= logged[0].keys()
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    meta = json.loads((folder / "model/model.json").read_text())
    assert meta["meta"]["config"]["seed"] == 0
    assert "torch" in meta["meta"]["versions"]


@pytest.mark.parametrize("model", ["stat", "deep_sets"])
def test_baselines_run_under_the_same_task(run, model):
    _, metrics = run(f"model={model}")
    assert metrics["relabelled/largest_change"] < 1e-4
    assert "unseen/r2" in metrics


def test_a_model_that_ignores_the_symmetry_is_found_out(run):
    """The sensitivity twin of the relabelling check in test_a_run_leaves_everything_behind."""
    only = ("task.architectures=[mlp2_tanh]", "task.unseen=[]", "task.val=0.25", "task.test=0.25")
    _, metrics = run("model=flat_mlp", *only)
    assert metrics["relabelled/largest_change"] > 0.1


def test_logging_online_without_a_login_is_explained(run, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(MetanetError, match="run `wandb login`, or keep the default, offline"):
        run(*SMALL, "logger=wandb", "logger.mode=online")


def test_flat_mlp_needs_one_architecture(run):
    with pytest.raises(MetanetError, match="one architecture"):
        run("model=flat_mlp")


def test_probes_run_the_networks(run):
    _, metrics = run("model=probed_gmn", "model.probes=4", "model.gmn={width: 8, layers: 1}")
    assert metrics["relabelled/largest_change"] < 1e-4


def test_prediction_for_one_checkpoint(run, tiny_data, tmp_path, monkeypatch, capsys):
    folder, _ = run("model=probed_gmn", "model.probes=4", "model.gmn={width: 8, layers: 1}")
    path = next(p for p in tiny_data.iterdir() if p.is_dir())  # beside it lies a lock
    population = open_zoo(path).populations["mlp2_tanh"]
    wanted = {r["id"]: float(r["prediction"]) for r in rows(folder / "predictions.csv")}
    table = open_zoo(path).table["id"]
    index, row = next((i, r) for i, r in enumerate(population.rows.tolist()) if table[r] in wanted)
    metanet.save_checkpoint(tmp_path / "one=1 (a).safetensors", population.state_dict(index))
    done = command(
        "predict", f"run={folder}", f"checkpoint={tmp_path}/one=1 (a).safetensors", f"arch={population.ref}",
        *(f"+arch_args.{k}={v}".replace(" ", "") for k, v in population.arch_args.items()),
        cwd=tmp_path, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = float(done.stdout.strip().split(": ")[-1])
    assert said == pytest.approx(wanted[table[row]], abs=1e-3)
    metanet.save_checkpoint(tmp_path / "adapter.safetensors", {"0.lora_A.weight": torch.ones(2, 4)})
    arguments = [f"+arch_args.{k}={v}".replace(" ", "") for k, v in population.arch_args.items()]
    given = [
        f"run={folder}",
        f"checkpoint={tmp_path}/adapter.safetensors",
        f"arch={population.ref}",
    ]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", *given, *arguments]) == 1
    assert "is an adapter (0.lora_A.weight, ...: LoRA)" in capsys.readouterr().err


def test_a_zoo_of_ones_own(run, tmp_path):
    """Torch files in sub-folders, a table with a run of two checkpoints each, a label column of
    another name."""
    lines = ["path,run,quality"]
    for i in range(24):
        torch.manual_seed(i)
        path = tmp_path / "own" / f"run{i // 2}" / f"{i}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": load_factory(REF)(widths=[5]).state_dict()}, path)
        lines.append(f"run{i // 2}/{i}.pt,run{i // 2},{i / 24}")
    (tmp_path / "own/table.csv").write_text("\n".join(lines))
    own = ["zoo.table=table.csv", "zoo.label=quality", "zoo.input_shape=[1,8,8]", f"zoo.arch={REF}"]
    folder, _ = run(
        *SMALL, f"zoo.path={tmp_path}/own", *own, "+zoo.arch_args.widths=[5]", zoo="folder"
    )
    tested = {r["id"] for r in rows(folder / "predictions.csv")}
    assert len(tested) == 4, "two runs of two"
    assert len({t.split("/")[0] for t in tested}) == 2


def train_process(folder: Path, data: Path, *overrides: str) -> subprocess.Popen:
    args = [
        "train",
        "zoo=digits_tiny",
        "logger=none",
        "device=cpu",
        "task.batch_size=8",
        *SMALL,
        *overrides,
    ]
    env = {**os.environ, "METANET_DATA": str(data), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "metanet.cli", *args, f"hydra.run.dir={folder}"],
        cwd=folder.parent, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_law_6_a_killed_run_resumes_and_ends_as_an_undisturbed_one(tiny_data, tmp_path):
    whole = train_process(tmp_path / "whole", tiny_data, "trainer.max_epochs=12")
    killed = train_process(tmp_path / "killed", tiny_data, "trainer.max_epochs=12")
    last, deadline = tmp_path / "killed/last.ckpt", time.monotonic() + 120
    while not last.is_file() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert last.is_file()
    assert not (tmp_path / "killed/metrics.json").exists(), "killed too late to show anything"
    epoch = load_last(last)["epoch"]
    assert whole.wait(timeout=240) == 0
    env = {**os.environ, "METANET_DATA": str(tiny_data), "OMP_NUM_THREADS": "1"}
    resumed = command("train", f"resume={tmp_path / 'killed'}", cwd=tmp_path, env=env)
    assert resumed.returncode == 0, resumed.stderr
    a, b = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "killed")
    )
    for key in a:
        if key.split("/")[0] in ("test", "unseen"):
            assert a[key] == pytest.approx(b[key], abs=1e-6), key
    logged = rows(tmp_path / "killed/csv/version_1/metrics.csv")
    assert int(logged[0]["epoch"]) == epoch + 1, "it went on after the last finished epoch"


def test_two_processes_train_one_model(tiny_data, tmp_path):
    env = {**os.environ, "METANET_DATA": str(tiny_data), "OMP_NUM_THREADS": "1"}
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "metanet.cli",
    ]
    given = [
        "zoo=digits_tiny",
        "logger=none",
        "trainer=ddp_cpu",
        "trainer.max_epochs=2",
        "task.batch_size=8",
    ]
    done = subprocess.run(
        [*launch, "train", *given, *SMALL],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "outputs/accuracy_prediction").iterdir()
    assert "test/tau" in json.loads((folder / "metrics.json").read_text())
