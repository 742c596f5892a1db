"""Two at one place, inputs as outputs, and kills: nothing is lost, and whoever is refused is told
why."""

import csv
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import metanet
from metanet import cli
from metanet._cli.folders import keep_inputs
from metanet.checkpoints import hold
from metanet.errors import MetanetError

ROOT = Path(__file__).parents[2]


@contextmanager
def somebody_at(path):
    """Another thread holds a place, as another process would."""
    there, done = threading.Event(), threading.Event()

    def work():
        with hold(path):
            there.set()
            done.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert there.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestTwoAtOnePlace:
    def test_two_trainings_in_one_run_directory(self, calls, capsys):
        assert cli.main(["train", "hydra.run.dir=here", "seed=3"]) == 0
        before = content(Path("here"))
        for args in (["hydra.run.dir=here", "seed=4"], ["resume=here", "seed=4"]):
            with somebody_at("here"):
                assert cli.main(["train", *args]) == 1
            message = capsys.readouterr().err
            assert f"{Path('here').absolute()} is being written by another process" in message
            assert f"process {os.getpid()} on" in message
            assert content(Path("here")) == before, "what the first one recorded stays"
        assert len(calls) == 1
        assert cli.main(["train", "resume=here", "seed=4"]) == 0
        assert calls[-1].seed == 4

    def test_a_resumed_run_records_what_it_was_asked_for(self, calls):
        assert cli.main(["train", "hydra.run.dir=here", "seed=3", "model.width=5"]) == 0
        assert cli.main(["train", "resume=here", "seed=4"]) == 0
        assert cli.main(["train", "resume=here"]) == 0
        assert (calls[-1].seed, calls[-1].model.width) == (4, 5)
        assert sorted(path.name for path in Path("here/.hydra").iterdir()) == [
            "config.yaml", "hydra.yaml", "overrides.yaml",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "command",
        [
            ["merge", "models=[a.safetensors,b.safetensors]"],
            ["align", "a=a.safetensors", "b=b.safetensors", "arch=never_called:mlp"],
            ["graph", "checkpoint=a.safetensors", "arch=never_called:mlp"],
        ],
        ids=lambda words: words[0],
    )
    def test_two_of_a_command_to_one_out(self, command, calls, capsys):
        """At once: before the network is made."""
        Path("never_called.py").write_text("def mlp(): raise SystemExit('it is made')\n")
        for name in "ab":
            metanet.save_checkpoint(f"{name}.safetensors", {"w": torch.ones(2)})
        with somebody_at("out"):
            assert cli.main([*command, "out=out"]) == 1
        assert (
            f"{Path('out').absolute()} is being written by another process"
            in capsys.readouterr().err
        )
        assert not Path("out").exists()
        assert not [path for path in Path().iterdir() if path.name.startswith(".out")]

    @pytest.mark.parametrize(
        "command", ["merge models=[a.safetensors]", "align a=a.safetensors b=a.safetensors"]
    )
    def test_the_lock_of_who_was_killed_when_all_was_done(self, command, calls, capsys):
        """It lies beside a finished output, which no later command will hold; that of a living
        process stays."""
        metanet.save_checkpoint("a.safetensors", {"w": torch.ones(2)})
        metanet.save_checkpoint("out", {"w": torch.ones(2)})
        with somebody_at("out"):
            assert cli.main([*command.split(), "out=out"]) == 1
            assert Path(".out.lock").exists()
        Path(".out.lock").touch()
        assert cli.main([*command.split(), "out=out"]) == 1
        assert "out=out is not empty" in capsys.readouterr().err
        assert sorted(path.name for path in Path().iterdir()) == ["a.safetensors", "out"]

    def test_saving_a_merge(self, tmp_path):
        merged = metanet.merge([{"w": torch.zeros(2)}, {"w": torch.ones(2)}])
        with (
            somebody_at(tmp_path / "out"),
            pytest.raises(MetanetError, match="is being written by another process"),
        ):
            metanet.merging.save_merged(tmp_path / "out", merged, recipe=merged.recipe)


class TestInputs:
    @pytest.mark.parametrize("name", ["itself", "hard link", "symbolic link", "in a folder"])
    def test_a_graph_never_replaces_what_it_is_made_of(self, name, calls, capsys):
        Path("my_mlp.py").write_text("from torch import nn\ndef mlp(): return nn.Linear(2, 3)\n")
        weights = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
        metanet.save_checkpoint("out/graph.safetensors", weights)
        given = Path("out/graph.safetensors")
        if name == "hard link":
            given = Path("w.safetensors")
            given.hardlink_to("out/graph.safetensors")
        elif name == "symbolic link":
            given = Path("w.safetensors")
            given.symlink_to("out/graph.safetensors")
        elif name == "in a folder":
            given = Path("out")
        code = cli.main(
            [
                "graph",
                f"checkpoint={given}",
                "arch=my_mlp:mlp",
                "input_shape=[2]",
                "out=out",
                "overwrite=true",
            ]
        )
        assert code == 1
        assert (
            "out/graph.safetensors would be overwritten, and it is read as"
            in capsys.readouterr().err
        )
        assert torch.equal(
            metanet.load_checkpoint("out/graph.safetensors")["weight"], weights["weight"]
        )

    def test_inspect_never_replaces_a_configuration(self, calls, capsys):
        Path("net").mkdir()
        Path("net/config.json").write_text("{}")
        assert cli.main(["inspect", "arch=hf:net", "out=net/config.json"]) == 1
        assert (
            "net/config.json would be overwritten, and it is read as hf:net"
            in capsys.readouterr().err
        )
        assert Path("net/config.json").read_text() == "{}"

    def test_the_shards_of_an_index_are_inputs_and_other_texts_are_none(self, tmp_path):
        state = {f"{i}": torch.ones(25) for i in range(3)}
        metanet.save_checkpoint(tmp_path / "in", state, max_shard_size=100)
        index, shard = (
            tmp_path / "in/model.safetensors.index.json",
            tmp_path / "in/model-00002-of-00003.safetensors",
        )
        with pytest.raises(MetanetError, match="00002-of-00003.safetensors would be overwritten"):
            keep_inputs({"models": [str(index)]}, [shard])
        keep_inputs(
            {"models": ["x" * 5000, "\0", 3, None], "out": str(index)}, [shard, tmp_path / "new"]
        )

    def test_what_a_run_leaves(self, calls, capsys):
        assert cli.main(["train", "hydra.run.dir=here"]) == 0
        before = content(Path("here"))["here/metrics.json"]
        Path("other").mkdir()
        args = ["run=other", "checkpoint=here/metrics.json", "arch=a:b", "hydra.run.dir=here"]
        assert cli.main(["predict", *args]) == 1
        assert "would be overwritten" in capsys.readouterr().err
        assert Path("here/metrics.json").read_bytes() == before


FEW = ("merge, in shards", "save_graph")
MORE = ("graph, overwrite", "train", "train, resume=", "predict", "zoo", "nn.save")


@pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="needs a C compiler"
)
@pytest.mark.parametrize(
    "only", [FEW, pytest.param(MORE, marks=pytest.mark.slow)], ids=["few", "more"]
)
def test_kills_lose_nothing(only, tmp_path):
    """A few of the kills that benchmarks/kills.py does by the thousand."""
    args = [
        "--only",
        *only,
        "--at-most",
        "3",
        "--random",
        str(len(only)),
        "--out",
        str(tmp_path / "kills.csv"),
    ]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/kills.py", *args], capture_output=True, text=True, timeout=400,
        cwd=ROOT, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with open(tmp_path / "kills.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["killed"]) for row in rows if row["kills"] == "before events") == 3 * len(
        only
    )
    assert {(row["losses"], row["leftovers"]) for row in rows} == {("0", "0")}
    assert all(int(row["events"]) > 10 for row in rows), "the kills see what is done to files"
