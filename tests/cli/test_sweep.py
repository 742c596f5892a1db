"""The table at the end of a sweep."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from metanet import cli
from metanet._cli.sweep import group, read_jobs, summarize


def job(sweep_dir, name, overrides, metrics=None, error=None):
    directory = sweep_dir / name
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if metrics is not None:
        (directory / "metrics.json").write_text(
            metrics if isinstance(metrics, str) else json.dumps(metrics)
        )
    if error is not None:
        (directory / "error.txt").write_text(f"{error}\n\nTraceback ...\n")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TestCommand:
    def test_one_row_for_every_setting_over_the_seeds(self, calls, capsys):
        assert cli.main(["train", "model=gmn,other", "-m", "seed=0,1,2"]) == 0
        assert len(calls) == 6
        out = capsys.readouterr().out
        assert "| model | runs | seen/tau    | width |" in out
        assert (
            "| gmn   | 3    | 0.25 ± 0.25 | 4 ± 0 |\n| other | 3    | 0.25 ± 0.25 | 4 ± 0 |" in out
        )
        rows = table(Path("outputs/sweeps/now/summary.csv"))
        assert [(row["model"], row["runs"], row["ended"]) for row in rows] == [
            ("gmn", "3", "3"),
            ("other", "3", "3"),
        ]
        assert [float(row["seen/tau mean"]) for row in rows] == [0.25, 0.25]
        assert [float(row["seen/tau std"]) for row in rows] == [0.25, 0.25]
        assert "0.25 ± 0.25" in Path("outputs/sweeps/now/summary.md").read_text()

    def test_a_failed_job_is_seen_and_the_others_count(self, calls, capsys):
        assert cli.main(["train", "-m", "seed=1,13,2"]) == 1
        captured = capsys.readouterr()
        assert "| 2 of 3 | 0.375 ± 0.18 |" in captured.out
        assert (
            "1 of 3 runs failed:\n- 1 (seed=13): CheckpointError: an unlucky file\n" in captured.out
        )
        assert "metanet train: an unlucky file" in captured.err
        assert "1 of 3 runs failed" in Path("outputs/sweeps/now/summary.md").read_text()

    def test_sweeps_of_the_same_second_do_not_mix(self, calls):
        for _ in range(2):
            assert cli.main(["train", "-m", "seed=1,2"]) == 0
        assert sorted(path.name for path in Path("outputs/sweeps").iterdir()) == ["now", "now_2"]
        assert {Path(cfg.paths.run_dir).parent.name for cfg in calls} == {"now", "now_2"}
        assert [row["runs"] for row in table(Path("outputs/sweeps/now/summary.csv"))] == ["2"]

    def test_a_directory_that_is_asked_for_is_taken(self, calls):
        assert cli.main(["train", "-m", "seed=1,2", "hydra.sweep.dir=a (1)"]) == 0
        assert Path("a (1)/summary.csv").is_file()

    def test_a_command_that_measures_nothing_has_no_table(self, calls, capsys):
        for path in ("a (1)", "b", "c"):
            Path(path).mkdir()
        assert (
            cli.main(
                ["predict", "-m", "run=a (1),b", "checkpoint=c", "arch=metanet.zoo.networks:mlp"]
            )
            == 0
        )
        assert [cfg.run for cfg in calls] == ["a (1)", "b"]
        assert "2 runs in outputs/sweeps/now" in capsys.readouterr().out
        assert not Path("outputs/sweeps/now/summary.csv").exists()

    def test_a_mistake_leaves_no_table(self, calls, capsys):
        assert cli.main(["train", "-m", "model=gmn,nope"]) == 1
        assert capsys.readouterr().out == ""


class TestSummary:
    def test_numbers_only_flat_or_nested(self, tmp_path):
        job(
            tmp_path,
            "0",
            [],
            {"a": 1, "b": {"c": {"d": 2.5}}, "text": "x", "flag": True, "none": None},
        )
        (read,) = read_jobs(tmp_path)
        assert read.metrics == {"a": 1.0, "b/c/d": 2.5}

    def test_jobs_come_in_the_order_of_their_numbers(self, tmp_path):
        for name in ("10", "9", "0"):
            job(tmp_path, name, [f"seed={name}"], {"m": 1})
        assert [each.name for each in read_jobs(tmp_path)] == ["0", "9", "10"]

    def test_paths_are_shown_as_they_were_typed(self, tmp_path):
        job(tmp_path, "0", [r"+path='it\'s (1)'"], {"m": 1})
        assert read_jobs(tmp_path)[0].overrides == {"path": "it's (1)"}

    def test_only_the_seed_is_averaged_over(self, tmp_path):
        for number, overrides in enumerate(
            [
                ["seed=0", "model=a"],
                ["model=a", "seed=1"],
                ["model=a", "seed=0", "+model.seed=3"],
                ["model=b"],
            ]
        ):
            job(tmp_path, str(number), overrides, {"m": number})
        rows = group(read_jobs(tmp_path))
        assert [(row.setting, row.values["m"]) for row in rows] == [
            ({"model": "a"}, [0.0, 1.0]),
            ({"model": "a", "model.seed": "3"}, [2.0]),
            ({"model": "b"}, [3.0]),
        ]

    def test_what_all_rows_share_is_in_the_csv_only(self, tmp_path):
        for number, model in enumerate("ab"):
            job(tmp_path, str(number), [f"model={model}", "trainer=big"], {"m": number})
        assert "big" not in summarize(tmp_path)
        assert {row["trainer"] for row in table(tmp_path / "summary.csv")} == {"big"}

    def test_seeds_are_named_where_they_were_swept(self, tmp_path):
        for number, overrides in enumerate((["model=a"], ["model=b"])):
            job(tmp_path, str(number), overrides, {"m": number})
        assert "over seeds" not in summarize(tmp_path)
        job(tmp_path, "2", ["model=b", "seed=1"], {"m": 3})
        assert summarize(tmp_path).endswith("mean ± standard deviation over seeds")

    def test_one_run_has_no_spread(self, tmp_path):
        job(tmp_path, "0", [], {"m": 2})
        assert "| 1    | 2 |" in summarize(tmp_path)
        assert table(tmp_path / "summary.csv")[0]["m std"] == ""

    def test_not_a_number_stays_visible(self, tmp_path):
        job(tmp_path, "0", ["seed=0"], {"m": math.nan})
        job(tmp_path, "1", ["seed=1"], {"m": 1.0})
        assert "nan ± nan" in summarize(tmp_path)

    def test_a_metric_that_some_runs_lack(self, tmp_path):
        job(tmp_path, "0", ["model=a"], {"m": 1})
        job(tmp_path, "1", ["model=b"], {"n": 2})
        text = summarize(tmp_path)
        assert "| a     | 1    | 1 | - |" in text
        assert "| b     | 1    | - | 2 |" in text

    def test_a_wide_table_is_turned(self, tmp_path):
        for number, model in enumerate("ab"):
            job(
                tmp_path,
                str(number),
                [f"model={model}"],
                {f"a_long_metric_{i}": i + number for i in range(12)},
            )
        printed = summarize(tmp_path).splitlines()
        assert printed[0].split() == ["|", "model", "|", "a", "|", "b", "|"]
        assert ["|", "a_long_metric_11", "|", "11", "|", "12", "|"] in [
            line.split() for line in printed
        ]
        assert max(map(len, printed)) < 120

    @pytest.mark.parametrize(
        ("metrics", "error", "reason"),
        [
            (None, None, "no metrics.json"),
            ('{"m": 1', None, "metrics.json is damaged"),
            ({"m": 1}, "ValueError: nan loss", "ValueError: nan loss"),
        ],
    )
    def test_failures_have_a_reason(self, metrics, error, reason, tmp_path):
        job(tmp_path, "0", ["seed=0"], {"m": 1})
        job(tmp_path, "1", ["seed=1"], metrics, error)
        text = summarize(tmp_path)
        assert "| 1 of 2 |" in text
        assert f"- 1 (seed=1): {reason}" in text

    def test_an_empty_sweep_has_none(self, tmp_path):
        assert summarize(tmp_path) is None
