"""One run directory for all ranks, whoever started them."""

import sys
from pathlib import Path

import pytest

from metanet import cli
from metanet._cli.directories import follow_main_rank, is_main_rank


class TestRanks:
    @pytest.mark.parametrize(
        ("environment", "main"),
        [
            ({}, True),
            ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, True),
            ({"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, False),
            ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, False),  # started by Lightning
            ({"NODE_RANK": "1"}, False),
            ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, False),
            ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, True),
        ],
    )
    def test_who_is_rank_0(self, environment, main, calls, monkeypatch):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert is_main_rank() is main
        assert follow_main_rank(["seed=1", "hydra.run.dir=x"])[:2] == ["seed=1", "hydra.run.dir=x"]
        assert ("hydra.output_subdir=null" in follow_main_rank(["hydra.run.dir=x"])) is not main

    def test_other_ranks_leave_no_files(self, calls, monkeypatch):
        monkeypatch.setenv("LOCAL_RANK", "1")
        tasks = sys.modules["metanet.tasks"]
        monkeypatch.setattr(tasks, "train", tasks.predict)  # which writes nothing itself
        assert cli.main(["train", "hydra.run.dir=shared"]) == 0
        assert calls[0].paths.run_dir == str(Path("shared").absolute())
        assert list(Path("shared").iterdir()) == []

    def test_without_torchrun_the_directory_must_be_given(self, calls, monkeypatch, capsys):
        monkeypatch.setenv("SLURM_PROCID", "1")
        monkeypatch.setenv("SLURM_NTASKS", "2")
        assert cli.main(["train"]) == 1
        assert "hydra.run.dir=outputs/$SLURM_JOB_ID" in capsys.readouterr().err

    def test_no_sweep_over_several_processes(self, calls, monkeypatch, capsys):
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert cli.main(["train", "-m", "seed=1,2"]) == 1
        assert "start one run at a time" in capsys.readouterr().err


class TestProcesses:
    def test_the_ranks_of_torchrun_share_one_directory(self, launch, tmp_path):
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = launch([*torchrun, "program.py", "train", "seed=3"])
        assert done.returncode == 0, done.stderr
        (run_dir,) = (tmp_path / "outputs" / "accuracy_prediction").iterdir()
        assert {path.name: path.read_text() for path in tmp_path.glob("rank-*")} == {
            "rank-0": f"3 {run_dir}",
            "rank-1": f"3 {run_dir}",
        }
        assert sorted(path.name for path in run_dir.iterdir()) == [".hydra", "train.log"]

    @pytest.mark.slow
    def test_the_processes_that_lightning_starts_share_it_too(self, launch, tmp_path):
        body = """
            import torch
            from lightning.pytorch.demos.boring_classes import BoringModel

            trainer = config.build(cfg.trainer, logger=False)
            trainer.fit(BoringModel())
            Path(f"trained-{trainer.global_rank}-of-{trainer.world_size}").touch()
        """
        args = [
            "program.py",
            "train",
            "trainer=ddp_cpu",
            "+trainer.max_steps=2",
            "hydra.run.dir=odd (1)",
        ]
        done = launch(args, body)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in tmp_path.glob("trained-*")) == [
            "trained-0-of-2",
            "trained-1-of-2",
        ]
        assert {path.read_text() for path in tmp_path.glob("rank-*")} == {
            f"0 {tmp_path / 'odd (1)'}"
        }
        assert not (tmp_path / "outputs").exists()
