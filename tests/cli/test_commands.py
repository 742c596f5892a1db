"""The console script: help, what a command gets, and what is said when it goes wrong."""

import errno
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

import metanet
from metanet import cli
from metanet._cli import preflight
from metanet.errors import CheckpointError

ROOT = Path(__file__).parent.parent.parent
MATCHERS = sorted((ROOT / "conf" / "matcher").glob("*.yaml"))
METHODS = sorted((ROOT / "conf" / "method").glob("*.yaml"))


class TestUsage:
    def test_help_lists_the_commands(self, capsys):
        assert cli.main(["--help"]) == 0
        out = capsys.readouterr().out
        assert all(name in out and command.summary in out for name, command in cli.COMMANDS.items())

    def test_no_command_and_an_unknown_one_are_wrong_usage(self, capsys):
        assert cli.main([]) == 2
        assert "train" in capsys.readouterr().err
        assert cli.main(["trian", "seed=1"]) == 2
        err = capsys.readouterr().err
        assert (
            "no command 'trian'; choose from train, predict, inspect, graph, align, barrier, merge, zoo. Did"
            in err
        )
        assert "Did you mean train?" in err

    def test_version(self, capsys):
        assert cli.main(["--version"]) == 0
        assert capsys.readouterr().out.strip() == metanet.__version__

    def test_cfg_prints_and_stops(self, calls, capsys):
        assert (
            cli.main(["train", "model=other", "trainer=ddp_cpu", "--cfg", "job", "--resolve"]) == 0
        )
        shown = yaml.safe_load(capsys.readouterr().out)
        assert shown["model"]["name"] == "other"
        assert (shown["trainer"]["accelerator"], shown["trainer"]["devices"]) == ("cpu", 2)
        assert calls == []
        assert list(Path().iterdir()) == []

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            (
                "metanet ",
                {"train", "predict", "inspect", "graph", "align", "barrier", "merge", "zoo"},
            ),
            ("metanet tr", {"train"}),
            ("metanet train model=", {"model=gmn", "model=other"}),
            ("metanet train model=gmn optim.optimizer.l", {"optim.optimizer.lr="}),
            ("metanet predict check", {"checkpoint="}),
            ("metanet nonsense mod", set()),
        ],
    )
    def test_tab_completion(self, line, words, calls, capsys, monkeypatch):
        monkeypatch.setenv("COMP_LINE", line)
        with suppress(SystemExit):  # of Hydra, or of ours where no command is complete yet
            cli.main(["-sc", "query=bash"])
        assert set(capsys.readouterr().out.split()) == words


class TestRun:
    def test_train_gets_the_composed_configuration(self, calls, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["metanet", "train", "as typed"])
        seen = []
        monkeypatch.setattr(
            sys.modules["metanet.tasks"], "train", lambda cfg: seen.append((cfg, list(sys.argv)))
        )
        assert cli.main(["train", "experiment=wide", "model=other", "device=cpu"]) == 0
        ((cfg, argv),) = seen
        assert (cfg.seed, cfg.model.name, cfg.model.width, cfg.trainer.accelerator) == (
            7,
            "other",
            64,
            "cpu",
        )
        assert (
            argv == sys.argv == ["metanet", "train", "as typed"]
        )  # by which Lightning starts other ranks
        assert cfg.resume is None

    def test_the_run_directory_is_absolute_and_keeps_the_configuration(self, calls):
        assert cli.main(["train", "seed=3"]) == 0
        run_dir = Path(calls[0].paths.run_dir)
        assert run_dir == Path.cwd() / "outputs" / "accuracy_prediction" / "now"
        assert calls[0].trainer.default_root_dir == str(run_dir)
        assert yaml.safe_load((run_dir / ".hydra" / "config.yaml").read_text())["seed"] == 3
        assert (run_dir / "train.log").is_file()

    def test_runs_of_the_same_second_get_directories_of_their_own(self, calls):
        for _ in range(3):
            assert cli.main(["train"]) == 0
        assert [Path(cfg.paths.run_dir).name for cfg in calls] == ["now", "now_2", "now_3"]

    def test_a_directory_that_is_asked_for_is_taken(self, calls):
        for _ in range(2):
            assert cli.main(["train", "hydra.run.dir=runs/odd (1)"]) == 0
        assert {cfg.paths.run_dir for cfg in calls} == {str(Path.cwd() / "runs" / "odd (1)")}

    def test_debug_fast_wins_over_an_experiment(self, calls):
        assert cli.main(["train", "debug=fast", "experiment=wide"]) == 0
        (cfg,) = calls
        assert (cfg.zoo.name, cfg.logger.name, cfg.seed) == ("digits_tiny", "none", 7)
        assert cfg.trainer.max_epochs <= 2

    def test_modules_of_the_current_folder_can_be_imported(self, calls, monkeypatch):
        Path("own_networks_here.py").write_text("VALUE = 5\n")
        monkeypatch.setattr(
            sys.modules["metanet.tasks"], "train", lambda cfg: __import__("own_networks_here")
        )
        assert cli.main(["train"]) == 0

    def test_zoo_builds_loads_and_prints(self, calls, tmp_path, monkeypatch, capsys):
        (tmp_path / "stub_zoos.py").write_text(
            "class Pair:\n    def __init__(self, size): self.size, self.loaded = size, False\n"
            "    def load(self, progress): self.loaded = progress; return self\n"
            "    def __repr__(self): return f'Pair(size={self.size}, loaded={self.loaded})'\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("METANET_TRUSTED", "stub_zoos")
        assert cli.main(["zoo", "zoo=pair", "zoo.size=5"]) == 0
        assert "Pair(size=5, loaded=True)" in capsys.readouterr().out


class TestErrors:
    def test_an_expected_error_is_a_message(self, calls, capsys):
        assert cli.main(["train", "seed=13"]) == 1
        err = capsys.readouterr().err
        assert "metanet train: an unlucky file\nand a second line\n" in err
        assert "Traceback" not in err
        kept = (Path(calls[0].paths.run_dir) / "error.txt").read_text()
        assert kept.startswith("CheckpointError: an unlucky file")
        assert "Traceback" in kept

    def test_full_error_keeps_the_traceback(self, calls, monkeypatch):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        with pytest.raises(CheckpointError):
            cli.main(["train", "seed=13"])
        assert os.environ["HYDRA_FULL_ERROR"] == "1"

    def test_a_bug_keeps_its_traceback_without_hydras_frames(self, calls, monkeypatch):
        monkeypatch.setattr(sys.modules["metanet.tasks"], "train", lambda cfg: 1 / 0)
        with pytest.raises(ZeroDivisionError) as caught:
            cli.main(["train"])
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert frames[-1].name == "<lambda>"
        assert not any("hydra" in Path(frame.filename).parts for frame in frames)
        assert "HYDRA_FULL_ERROR" not in os.environ

    def test_an_interrupted_run_says_how_to_go_on(self, calls, monkeypatch, capsys):
        def train(cfg):
            raise KeyboardInterrupt

        monkeypatch.setattr(sys.modules["metanet.tasks"], "train", train)
        assert cli.main(["train", "hydra.run.dir=odd (1)"]) == 130
        assert f"metanet train resume='{Path.cwd()}/odd (1)'" in capsys.readouterr().err

    def test_what_a_run_before_claimed_is_forgotten(self, calls, capsys, monkeypatch):
        assert cli.main(["train", "-m", "seed=1,2", "hydra.sweep.dir=earlier"]) == 0
        assert "2 runs in earlier" in capsys.readouterr().out

        def full(*args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the system names no file

        monkeypatch.setattr(preflight, "mistakes", full)
        assert cli.main(["train"]) == 1
        out, err = capsys.readouterr()
        assert f"can't write {Path.cwd()}: No space left on device" in err
        assert "earlier" not in out + err

    def test_a_full_disk_is_a_message(self, calls, capsys, monkeypatch):
        def train(cfg):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")

        monkeypatch.setattr(sys.modules["metanet.tasks"], "train", train)
        assert cli.main(["train"]) == 1
        message = capsys.readouterr().err
        assert f"can't write {Path('metrics.csv').absolute()}: No space left on device" in message
        assert "make room or choose another folder" in message and "[Errno" not in message

    @pytest.mark.parametrize(
        ("args", "parts"),
        [
            (
                ["modle=gmn"],
                ["unknown key 'modle' in modle=gmn", "experiment, ", "did you mean model?"],
            ),
            (
                ["optim.optimizer.lrr=1"],
                [
                    "optim.optimizer has: _target_, lr, weight_decay",
                    "mean optim.optimizer.lr?",
                    "plus: +optim",
                ],
            ),
            (
                ["sed=1", "optm.lr=1"],
                ["2 mistakes", "unknown key 'sed'", "unknown key 'optm.lr'", "optim.optimizer.lr"],
            ),
            (["-m", "sed=1,2"], ["unknown key 'sed'", "did you mean seed?"]),
            (["model=nope"], ["model=nope: choose from gmn, other"]),
            (["seed=1,2"], ["seed=1,2: choices with commas are for a sweep: add -m", "[1,2]"]),
            (["seed=[1"], ["seed=[1: the opening [ is not closed"]),
            (["seed=${nowhere}"], ["'nowhere' not found"]),
        ],
    )
    def test_mistakes_name_what_there_is(self, args, parts, calls, capsys):
        assert cli.main(["train", *args]) == 1
        err = capsys.readouterr().err
        assert all(part in err for part in parts), err
        assert "Traceback" not in err
        assert calls == []

    def test_missing_values_are_named_at_once(self, calls, capsys):
        assert cli.main(["predict", "arch=x"]) == 1
        assert (
            "no value for checkpoint, run: give checkpoint=VALUE run=VALUE"
            in capsys.readouterr().err
        )


class TestShipped:
    """The real configuration, every experiment included."""

    @pytest.mark.parametrize(
        "args",
        [
            ["train"],
            ["train", "debug=fast"],
            ["train", "trainer=ddp_cpu"],
            ["zoo"],
            ["predict", "run=r", "checkpoint=c", "arch=a:b"],
            ["inspect", "arch=a:b"],
            *(
                ["align", "a=a", "b=b", "arch=a:b", "out=o", f"matcher={each.stem}"]
                for each in MATCHERS
            ),
            *(
                ["barrier", "a=a", "b=b", "arch=a:b", "data=d", f"matcher={each.stem}"]
                for each in MATCHERS
            ),
            ["barrier", "a=a", "b=b", "arch=a:b", "data=d"],
            *(["merge", "models=[a,b]", "out=o", f"method={each.stem}"] for each in METHODS),
            ["merge", "models=[a,b]", "out=o", "arch=a:b", "matcher=weight"],
            *(
                ["train", f"experiment={path.stem}"]
                for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
            ),
        ],
        ids=" ".join,
    )
    def test_composes(self, args, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert cli.main([*args, "--cfg", "job", "--resolve"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["device"] == "auto"
