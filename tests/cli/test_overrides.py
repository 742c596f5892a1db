"""Paths in Hydra's grammar, and resume=RUN_DIR."""

from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from metanet import cli
from metanet._cli.overrides import prepare, quote, resumed, typed, unquote

ODD = "it's (a) run, epoch=3-step=100 [x]"  # a file name with what Hydra's grammar gives a meaning


class TestPaths:
    @given(
        st.text(alphabet="ab '\"\\=()[]{},:;$%+~#&é\n\t|*?@.-/0", max_size=12).filter(
            lambda text: "${" not in text
        )
    )
    def test_any_text_survives_hydras_grammar(self, text):
        assert unquote(quote(text)) == text
        assert OverridesParser.create().parse_override(f"checkpoint={quote(text)}").value() == text

    @pytest.mark.parametrize(
        ("typed", "value"),
        [
            ("checkpoint=runs/epoch=3-step=100 (1).ckpt", "runs/epoch=3-step=100 (1).ckpt"),
            (f"run={ODD}", ODD),
            ("arch=my.networks:make", "my.networks:make"),
            ("out=123", "123"),
            ("data=true", "true"),
            ("a='already quoted'", "already quoted"),
            ("resume=null", None),
            ("path=", ""),
            ("+table=a,b.csv", "a,b.csv"),
            ("zoo.path=a (1)", "a (1)"),
            ("hydra.run.dir=a (1)", "a (1)"),
            ("models=[A (1).pt,b=2.pt]", ["A (1).pt", "b=2.pt"]),
            ("models=['a,b', it's.pt]", ["a,b", "it's.pt"]),
            ("models=[]", []),
            ("models=a (1).pt", "a (1).pt"),
            ("alignment=[null,al (1)]", [None, "al (1)"]),
            ("alignment=al (1)", "al (1)"),
            (
                'overrides={"*mlp*": {density: 0.5}, h.0.w: {take: base}}',
                {"*mlp*": {"density": 0.5}, "h.0.w": {"take": "base"}},
            ),
            ("overrides={'[ab]?.w, x':{take:0}}", {"[ab]?.w, x": {"take": 0}}),
            ('overrides={*:{"t": {"gradient":[0.1, 1]}}}', {"*": {"t": {"gradient": [0.1, 1]}}}),
            ("overrides=my (1).yaml", "my (1).yaml"),
            ("overrides=null", None),
            ('slices=[{0: [0,8], "1": [0,8]},{1: [8,16]}]', [{0: [0, 8], 1: [0, 8]}, {1: [8, 16]}]),
            ("seed=3", 3),
            ("model.a=0.5", 0.5),
            ("arch_args.num_classes=10", 10),
        ],
    )
    def test_what_is_typed_arrives(self, typed, value):
        (prepared,) = prepare([typed])
        assert OverridesParser.create().parse_override(prepared).value() == value

    def test_commas_separate_in_a_sweep(self):
        assert (
            prepare(["-m", "checkpoint=a (1).pt, b.pt,'c,d'"])[1]
            == "checkpoint='a (1).pt','b.pt','c,d'"
        )
        assert prepare(["-m", "models=[a (1),b], [c,d]"])[1] == "models=['a (1)','b'],['c','d']"

    def test_flags_and_other_values_are_left_alone(self):
        args = ["--cfg", "job", "model=gmn", "~debug", "optim.optimizer.betas=[0.9,0.99]", "-m"]
        assert prepare(args) == args

    @pytest.mark.parametrize(
        "arg",
        [
            "models=[a (1).pt,b=2.pt]", "out=it's (1)", "alignment=[null,al (1)]", "method.weights=[0.3,0.7]",
            "overrides={*mlp*: {density: 0.5}}", "arch_args.width=3", "base=null", "out='null'", "seed=1",
            "~debug",
        ],
    )  # fmt: skip
    def test_what_is_prepared_can_be_shown_as_it_was_typed(self, arg):
        assert typed(*prepare([arg])) == arg

    def test_short_keys_stand_for_long_ones(self):
        args = ["zoo=folder", "path=a (1)", "label=test accuracy", "+table=t.csv", "model.path=x"]
        assert prepare(args, cli.COMMANDS["train"].short) == [
            "zoo=folder",
            "zoo.path='a (1)'",
            "zoo.label='test accuracy'",
            "zoo.table='t.csv'",  # the key is there: nothing is added
            "model.path=x",
        ]

    def test_paths_reach_the_command(self, calls):
        Path(ODD).mkdir()
        Path(f"{ODD}.ckpt").touch()
        Path("nets.py").write_text("def make(width): ...")
        args = [
            "predict",
            f"run={ODD}",
            f"checkpoint={ODD}.ckpt",
            "arch=nets:make",
            "arch_args.width=8",
        ]
        assert cli.main(args) == 0
        (cfg,) = calls
        assert (cfg.run, cfg.checkpoint, cfg.arch, cfg.arch_args.width) == (
            ODD,
            f"{ODD}.ckpt",
            "nets:make",
            8,
        )


class TestResume:
    def run(self, *args):
        assert cli.main(["train", f"hydra.run.dir={ODD}", *args]) == 0
        return Path(ODD).absolute()

    def test_gets_the_runs_own_overrides_and_directory(self, calls, monkeypatch, tmp_path):
        run_dir = self.run("model=other", "seed=3", "+note='a b'")
        monkeypatch.chdir(tmp_path)
        for _ in range(2):  # a resumed run can be resumed again
            assert cli.main(["train", f"resume={run_dir}"]) == 0
            cfg = calls[-1]
            assert (cfg.model.name, cfg.seed, cfg.note) == ("other", 3, "a b")
            assert cfg.resume == cfg.paths.run_dir == str(run_dir)

    def test_what_is_given_now_wins(self, calls):
        run_dir = self.run("model=other", "seed=3", "optim.optimizer.lr=0.5", "+note=old")
        assert cli.main(["train", f"resume={ODD}", "model=gmn", "seed=4", "+note=new"]) == 0
        cfg = calls[-1]
        assert (cfg.model.name, cfg.seed, cfg.optim.optimizer.lr, cfg.note) == (
            "gmn",
            4,
            0.5,
            "new",
        )
        assert cli.main(["train", f"resume={ODD}"]) == 0  # the record holds each key once
        assert yaml.safe_load((run_dir / ".hydra" / "overrides.yaml").read_text()) == [
            "optim.optimizer.lr=0.5",
            "model=gmn",
            "seed=4",
            "+note=new",
            f"resume={quote(str(run_dir))}",
        ]

    def test_a_failed_run_starts_clean(self, calls):
        cli.main(["train", f"hydra.run.dir={ODD}", "seed=13"])
        assert (Path(ODD) / "error.txt").is_file()
        assert cli.main(["train", f"resume={ODD}", "seed=1"]) == 0
        assert not (Path(ODD) / "error.txt").exists()

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["resume=nowhere (1)"], "can't resume nowhere (1): there is no such folder"),
            (["resume=."], "it is no run: .hydra/overrides.yaml is missing"),
            (["resume={odd}/train.log"], "it is a file; give the run's folder"),
            (["resume={odd}", "-m"], "can't be swept"),
            (["resume={odd}", "hydra.run.dir=elsewhere"], "remove hydra.run.dir=elsewhere"),
        ],
    )
    def test_says_why_it_cannot(self, args, message, calls, capsys):
        self.run()
        assert cli.main(["train", *(arg.format(odd=ODD) for arg in args)]) == 1
        assert message in capsys.readouterr().err
        assert len(calls) == 1

    def test_a_damaged_record_is_named(self, calls, capsys):
        record = self.run() / ".hydra" / "overrides.yaml"
        for text in ("{", "a: 1"):
            record.write_text(text)
            assert cli.main(["train", f"resume={ODD}"]) == 1
            assert "overrides.yaml" in capsys.readouterr().err

    def test_resume_null_is_a_new_run(self):
        assert resumed(["resume=null", "seed=1"]) == ["resume=null", "seed=1"]


def test_options_need_no_plus_and_paths_no_quotes(calls, capsys):
    args = [
        "barrier",
        "a=x",
        "b=y",
        "arch=m:f",
        "data=odd (1)=d",
        "data_args.window=7",
        "data_args.tokenizer=a b(c)",
    ]
    assert cli.main([*args, "alignment=out/al (2)", "--cfg", "job"]) == 0
    out = capsys.readouterr().out
    assert "data: odd (1)=d" in out and "window: 7" in out and "tokenizer: a b(c)" in out
    assert "alignment: out/al (2)" in out
    assert list(Path().iterdir()) == []
