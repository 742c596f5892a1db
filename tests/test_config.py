"""metanet.config: only what is trusted is built, and every mistake is named."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from metanet import config
from metanet.config import build, conf_dir, plain
from metanet.errors import MetanetError

ROOT = Path(__file__).parent.parent
ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.5, "betas": [0.8, 0.9]}


@pytest.fixture
def parameters():
    return [torch.nn.Parameter(torch.zeros(2))]


class TestBuild:
    @pytest.mark.parametrize("wrap", [dict, OmegaConf.create])
    def test_builds_with_plain_values_and_untouched_arguments(self, wrap, parameters):
        optimizer = build(wrap(ADAMW), params=parameters, weight_decay=0.25)
        assert isinstance(optimizer, torch.optim.AdamW)
        assert optimizer.defaults["lr"] == 0.5
        assert optimizer.defaults["weight_decay"] == 0.25
        assert optimizer.param_groups[0]["params"][0] is parameters[0]

    @pytest.mark.parametrize("wrap", [dict, OmegaConf.create])
    def test_lists_and_dicts_arrive_as_python(self, wrap):
        node = {"_target_": "metanet.errors.MetanetError", "_args_": [[1, [2]], {"a": {"b": 3}}]}
        first, second = build(wrap(node)).args
        assert (type(first), type(first[1]), type(second), type(second["a"])) == (
            list,
            list,
            dict,
            dict,
        )
        assert (first, second) == ([1, [2]], {"a": {"b": 3}})

    def test_arguments_win_over_the_node(self, parameters):
        assert build(ADAMW, params=parameters, lr=0.125).defaults["lr"] == 0.125

    def test_builds_nested_nodes_first(self):
        node = {"_target_": "lightning.pytorch.callbacks.LambdaCallback"}
        outer = {"_target_": "metanet.errors.MetanetError", "_args_": [node, [node]]}
        inner, (second,) = build(outer).args
        assert type(inner).__name__ == type(second).__name__ == "LambdaCallback"

    def test_partial_waits_for_its_arguments(self, parameters):
        make = build({**ADAMW, "_partial_": True}, lr=0.25)
        assert make(params=parameters).defaults["lr"] == 0.25

    def test_interpolations_resolve_from_the_whole_configuration(self, parameters):
        cfg = OmegaConf.create({"rate": 0.75, "optimizer": {**ADAMW, "lr": "${rate}"}})
        assert build(cfg.optimizer, params=parameters).defaults["lr"] == 0.75

    def test_dataclasses_pass_through_as_they_are(self):
        @dataclasses.dataclass(frozen=True)
        class Thing:
            width: int

        thing = Thing(3)  # Hydra itself would take it for a configuration
        callback = build(
            {"_target_": "lightning.pytorch.callbacks.LambdaCallback"}, on_fit_start=thing
        )
        assert callback.on_fit_start is thing


# Every way in that we know of; none may run, import, or get as far as being called.
HOSTILE = [
    "os.system",
    "builtins.exec",
    "subprocess.run",
    "metanetevil.run",
    "metanet.config.os.system",
    "metanet._cli.sweep.read_jobs",
    "metanet.tasks._run.train",
    "torch.load",
    "metanet.sources.load_source",
    "metanet.checkpoints.save_checkpoint",
    "metanet.cli.main",
    "metanet.tasks.train",
    "metanet.errors.MetanetError.__init__",
    "metanet.zoo.Population.build",  # imports what its instance says
    "metanet.SymmetrySpec.save",  # writes where its argument says
    "metanet.zoo.open_zoo",
    "metanet.trust.remember",
    "torch.optim.swa_utils.get_ema_multi_avg_fn",
    "metanet",
    "",
    7,
]


class TestRefusals:
    @pytest.mark.parametrize("target", HOSTILE)
    @pytest.mark.parametrize("place", ["top", "dict", "list"])
    def test_refuses_what_is_not_trusted(self, target, place, monkeypatch, parameters):
        monkeypatch.setattr("os.system", lambda *args: pytest.fail("it ran"))
        inner = {"_target_": target, "command": "true"}
        node = {
            "top": inner,
            "dict": {**ADAMW, "lr": {"deep": inner}},
            "list": {**ADAMW, "betas": [0.9, [inner]]},
        }[place]
        with pytest.raises(MetanetError, match="refused to build"):
            build(node) if place == "top" else build(node, params=parameters)

    def test_the_message_names_the_target_its_place_and_what_is_allowed(self, parameters):
        node = {**ADAMW, "lr": {"deep": [{"_target_": "os.system"}]}}
        with pytest.raises(MetanetError) as caught:
            build(node, params=parameters)
        for part in ("'os.system'", "lr.deep[0]", "torch.optim.", "METANET_TRUSTED"):
            assert part in str(caught.value)

    def test_refuses_a_trusted_name_that_leads_elsewhere(self, monkeypatch):
        monkeypatch.setattr(config, "system", __import__("os").system, raising=False)
        monkeypatch.setattr(config, "REFUSED", ())
        with pytest.raises(MetanetError, match=r"leads to posix.system|leads to nt.system"):
            build({"_target_": "metanet.config.system", "command": "true"})

    @pytest.mark.parametrize(
        "value",
        [
            '${oc.create:"{_target_: os.system, command: true}"}',
            "\\${oc.create:'{_target_: os.system}'}",
        ],
    )
    def test_refuses_a_target_that_an_interpolation_brings_in(self, value, parameters):
        with pytest.raises(MetanetError, match="refused|interpolation"):
            build(OmegaConf.create({**ADAMW, "lr": value}), params=parameters)

    def test_a_method_is_refused_with_an_instance_that_brings_code(self, tmp_path):
        instance = {
            "_target_": "metanet.zoo.Population", "architecture": "a", "ref": "os:system", "input_shape": [1],
            "arch_args": {"command": f"touch {tmp_path}/canary"}, "state": {}, "rows": [],
        }  # fmt: skip
        with pytest.raises(
            MetanetError, match="it is a function or a method, and configurations name classes"
        ):
            build({"_target_": "metanet.zoo.Population.build", "self": instance})
        assert not (tmp_path / "canary").exists()

    def test_a_package_of_the_users_own_is_trusted_by_name(self, monkeypatch, tmp_path):
        (tmp_path / "mylab_things.py").write_text("class Thing:\n    pass\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(MetanetError, match="refused"):
            build({"_target_": "mylab_things.Thing"})
        monkeypatch.setenv("METANET_TRUSTED", "other, mylab_things")
        assert type(build({"_target_": "mylab_things.Thing"})).__name__ == "Thing"


class TestMistakes:
    @pytest.mark.parametrize(
        ("node", "message"),
        [
            ({**ADAMW, "learning_rate": 1}, r"no 'learning_rate'.*It takes \(params, lr=0.001"),
            ({**ADAMW, "beta": 1}, r"no 'beta' \(did you mean 'betas'\?\)"),
            (
                {"_target_": "torch.optim.AdamX"},
                r"'torch.optim.AdamX' does not exist; did you mean .*torch.optim.Adam",
            ),
            ({"_target_": "torch.optim.nowhere.AdamW"}, "does not exist"),
            ({"_target_": "torch.optim.adamw.torch.load"}, "does not exist|leads to"),
            ({"_target_": "torch.optim.adamw"}, "no class or function"),
            ({"lr": 1}, "expected a mapping with _target_, got the keys lr"),
            ([1], r"expected a mapping with _target_, got \[1\]"),
            (None, "got None"),
        ],
    )
    def test_says_what_is_wrong(self, node, message, parameters):
        with pytest.raises(MetanetError, match=message):
            build(node, params=parameters)

    def test_a_missing_argument_is_named(self):
        with pytest.raises(MetanetError, match="missing a required argument: 'params'"):
            build(ADAMW)

    def test_a_broken_module_keeps_its_own_error(self, monkeypatch, tmp_path):
        (tmp_path / "mylab_broken.py").write_text("import mylab_not_there\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("METANET_TRUSTED", "mylab_broken")
        with pytest.raises(ModuleNotFoundError, match="mylab_not_there"):
            build({"_target_": "mylab_broken.Thing"})

    def test_what_a_target_raises_passes_through(self, parameters):
        with pytest.raises(ValueError, match="Invalid learning rate"):
            build({**ADAMW, "lr": -1.0}, params=parameters)

    def test_what_a_nested_target_raises_passes_through_with_a_note(self):
        bad = {"_target_": "torch.optim.AdamW", "params": []}
        with pytest.raises(ValueError, match="empty parameter list") as caught:
            build({"_target_": "metanet.errors.MetanetError", "_args_": [bad]})
        assert "metanet.errors.MetanetError" in "".join(caught.value.__notes__)


class TestPlain:
    def test_resolves(self):
        assert plain(OmegaConf.create({"a": 1, "b": {"c": ["${a}"]}})) == {"a": 1, "b": {"c": [1]}}

    def test_names_everything_that_is_missing(self):
        with pytest.raises(MetanetError, match=r"no value for b\.c, d: give b\.c=VALUE d=VALUE"):
            plain(OmegaConf.create({"a": 1, "b": {"c": "???"}, "d": "???"}))

    def test_names_an_interpolation_that_leads_nowhere(self):
        with pytest.raises(MetanetError, match="'nowhere' not found"):
            plain(OmegaConf.create({"a": "${nowhere}"}))


class TestShippedConfiguration:
    def test_conf_dir_is_the_checkouts(self):
        assert conf_dir() == ROOT / "conf"

    def test_conf_dir_says_where_it_looked(self, monkeypatch, tmp_path):
        monkeypatch.setattr(config, "__file__", str(tmp_path / "metanet" / "config.py"))
        with pytest.raises(MetanetError, match="looked in .*metanet/conf and .*conf"):
            conf_dir()

    @pytest.mark.parametrize(
        "path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.stem
    )
    def test_every_file_parses_and_every_target_is_trusted(self, path):
        node = yaml.safe_load(path.read_text()) or {}
        assert isinstance(node, dict)
        node.pop("hydra", None)  # Hydra builds its own part itself
        for where, inner in config._targets(node):
            config._check_name(inner["_target_"], where)
