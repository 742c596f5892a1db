"""recipe=FILE: the same merge again, from data alone."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import metanet
from metanet import cli

NETWORKS = """
from pathlib import Path
from torch import nn

def net():
    Path("ran").touch()
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
"""


def weights(seed):
    generator = torch.Generator().manual_seed(seed)
    names = {"0.weight": (6, 5), "0.bias": (6,), "2.weight": (2, 6), "2.bias": (2,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in names.items()}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``run("merge", "key=value", ...)`` in a folder with checkpoints a to d -> exit code, stdout,
    stderr."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("abcd"):
        metanet.save_checkpoint(f"{name} (1).safetensors", weights(seed))

    def run(*args):
        code = cli.main(list(args))
        return (code, *capsys.readouterr())

    return run


PAIR = "models=[a (1).safetensors,b (1).safetensors]"
MERGES = {
    "linear": [PAIR, "method.weights=[0.3,1e-05]"],
    "random": [PAIR, "base=c (1).safetensors", "method=dare_ties", "method.density=0.4", "seed=3"],
    "overrides": [PAIR, 'overrides={"0.*": {take: 1}, "2.w*": {weights: {gradient: [0.0, 1.0]}}}'],
    "dtypes": [PAIR, "dtype=float64", "out_dtype=float16", "overflow=clip", "max_shard_size=100"],
    "slices": [PAIR, "method=passthrough", "slices=[{0: [0,1]}, {1: [2,3]}]"],
}


def written(folder):
    return dict(metanet.load_checkpoint(folder).items())


@pytest.mark.parametrize("given", MERGES.values(), ids=MERGES)
@pytest.mark.parametrize("kind", ["merge_config.yaml", "README.md", ""])
def test_the_same_bits(given, kind, run):
    assert run("merge", *given, "out=one")[0] == 0
    code, _, err = run("merge", f"recipe={Path('one', kind)}", "out=two")
    assert code == 0, err
    one, two = written("one"), written("two")
    assert list(one) == list(two) and all(
        torch.equal(one[n], two[n]) and one[n].dtype is two[n].dtype for n in one
    )
    first, second = (
        yaml.safe_load(Path(each, "merge_config.yaml").read_text()) for each in ("one", "two")
    )
    assert first | {"out": "two"} == second
    assert run("merge", "recipe=two", "out=three")[0] == 0  # what was replayed can be replayed


@pytest.mark.parametrize("flags_first", [True, False])
def test_hydra_shows_what_a_recipe_would_do(flags_first, run):
    assert run("merge", *MERGES["linear"], "out=one")[0] == 0
    flags = ["--cfg", "job"]
    words = ["recipe=one", "out=two"]
    code, out, err = run("merge", *(flags + words if flags_first else words + flags))
    assert code == 0, err
    assert "out: two" in out and "a (1).safetensors" in out
    assert not Path("two").exists()


def test_what_is_typed_wins(run):
    assert run("merge", PAIR, "method=slerp", "method.t=0.25", "out=one")[0] == 0
    assert run("merge", "recipe=one", "method.t=0.5", "out=other_option")[0] == 0
    assert run("merge", PAIR, "method=slerp", "method.t=0.5", "out=wanted")[0] == 0
    assert torch.equal(written("other_option")["0.weight"], written("wanted")["0.weight"])
    assert run("merge", "recipe=one", "method=linear", "out=other_method")[0] == 0
    assert torch.equal(
        written("other_method")["0.bias"], metanet.merge([weights(0), weights(1)])["0.bias"]
    )
    assert (
        run(
            "merge",
            "recipe=one",
            "models=[c (1).safetensors,d (1).safetensors]",
            "out=other_models",
        )[0]
        == 0
    )
    assert torch.equal(
        written("other_models")["0.bias"],
        metanet.merge([weights(2), weights(3)], "slerp", t=0.25)["0.bias"],
    )


@pytest.mark.parametrize("kind", ["merge_config.yaml", "README.md"])
def test_an_input_that_was_changed_is_named(kind, run):
    assert run("merge", PAIR, "base=c (1).safetensors", "method=ties", "out=one")[0] == 0
    metanet.save_checkpoint("c (1).safetensors", weights(9))
    code, _, err = run("merge", f"recipe=one/{kind}", "out=two")
    assert code == 1 and "c (1).safetensors is not the file that it was made with" in err
    assert not Path("two").exists()
    assert (
        run("merge", "recipe=one", "base=c (1).safetensors", "out=two")[0] == 0
    )  # asked for by name


def test_alignment_and_network(run):
    Path("recipe_networks.py").write_text(NETWORKS)
    network = ["arch=recipe_networks:net", "input_shape=[5]"]
    code, _, err = run("merge", PAIR, "matcher=weight", "matcher.restarts=2", *network, "out=one")
    assert code == 0, err
    Path("ran").unlink()
    code, _, err = run("merge", "recipe=one", "out=two")
    assert (
        code == 1 and "refers to code, arch=recipe_networks:net" in err and not Path("ran").exists()
    )
    code, _, err = run("merge", "recipe=one", network[0], "out=two")
    assert code == 0, err
    assert torch.equal(written("one")["0.weight"], written("two")["0.weight"])


HOSTILE = {
    "an interpolation": ({"seed": "${oc.env:HOME}"}, "is to be filled in by Hydra"),
    "code as data": ({"data": ["os:system"]}, "refers to code, data=os:system"),
    "code as loss": ({"loss": "os:system"}, "refers to code, loss=os:system"),
    "code as arch": ({"arch": "my.module:make"}, "refers to code, arch=my.module:make"),
    "a target": (
        {"method": {"name": "linear", "_target_": "os.system"}},
        "method linear has no option _target_",
    ),
    "an unknown option": (
        {"method": {"name": "linear", "speed": 2}},
        "has no option speed; its options are weights",
    ),
    "an unknown method": ({"method": {"name": "nosuch"}}, "nosuch"),
    "another group": ({"hydra": {"run": {"dir": "x"}}}, "a merge has no hydra"),
    "an override as a name": (
        {"method": {"name": "linear hydra.run.dir=x"}},
        "method needs a name",
    ),
    "no list of models": ({"models": "a"}, "models must be a list of paths"),
    "a date": ({"seed": "DATE"}, "no plain value"),
    "digests of another form": ({"digests": [1]}, "digests must be"),
}


@pytest.mark.parametrize(("changes", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_recipe_is_data(changes, message, run):
    recipe = {
        "models": ["a (1).safetensors", "b (1).safetensors"],
        "method": {"name": "linear"},
        **changes,
    }
    Path("r.yaml").write_text(yaml.safe_dump(recipe).replace("DATE", "2026-01-01"))
    code, _, err = run("merge", "recipe=r.yaml", "out=out")
    assert code == 1 and message in err, err
    assert "Traceback" not in err and len(err) < 2500 and not Path("out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("models: [", "is no YAML"),
        ("- 1", "is no recipe of a merge"),
        ("seed: 3", "it has no models"),
        ("a: &x [1]\nmodels: *x", "has aliases or is nested too deep"),
        ("models: " + "[" * 40 + "]" * 40, "has aliases or is nested too deep"),
        ("models: !!python/object/apply:os.system [touch ran]", "is no YAML"),
        ("models: !!timestamp soon", "is no YAML"),
        ("models: !!int ''", "is no YAML"),
        ("models: !!float {}", "is no YAML"),
        (f"models: [{'a,' * 200_000}]", "400,010 characters of YAML"),
        (b"\xff\xfe", "can't be read"),
    ],
)
def test_files_that_are_none(content, message, run):
    Path("r.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    code, _, err = run("merge", "recipe=r.yaml", "out=out")
    assert code == 1 and message in err and "Traceback" not in err
    assert not Path("ran").exists()


def test_places_without_a_recipe(run):
    assert "there is no such file" in run("merge", "recipe=nowhere.yaml", "out=out")[2]
    Path("README.md").write_text("# A model\n")
    assert "has no recipe in it" in run("merge", "recipe=README.md", "out=out")[2]
    Path("README.md").write_text(
        "```yaml\n" * 100_000
    )  # hours, were each looked for an end of its own
    assert "has no recipe in it" in run("merge", "recipe=README.md", "out=out")[2]


@pytest.mark.parametrize("flag", ["--config-name=merge_config", "-cn=merge_config"])
def test_as_a_primary_config_it_is_refused_before_anything_is_written(flag, run):
    assert run("merge", PAIR, "out=one")[0] == 0
    before = sorted(Path().rglob("*"))
    code, _, err = run("merge", "--config-dir=one", flag, "out=two")
    assert code == 1 and "give recipe=FOLDER/merge_config.yaml and a new out=" in err
    assert sorted(Path().rglob("*")) == before


class TestPatternsOfNames:
    def test_stand_for_the_files_that_match_sorted(self, run):
        assert run("merge", "models=[*.safetensors]", "out=all")[0] == 0
        given = yaml.safe_load(Path("all/merge_config.yaml").read_text())["models"]
        assert given == [f"{name} (1).safetensors" for name in "abcd"]
        assert run("merge", "models=[[ab]*.safetensors]", "out=some")[0] == 0
        assert run("merge", "models=[c (1).safetensors,[ab] *]", "out=mixed")[0] == 0
        given = yaml.safe_load(Path("mixed/merge_config.yaml").read_text())["models"]
        assert given == [f"{name} (1).safetensors" for name in "cab"]

    def test_that_match_nothing_are_named(self, run):
        code, _, err = run("merge", "models=[x*.pt]", "out=out")
        assert code == 1 and "models=x*.pt: no file or folder is called like that" in err

    def test_names_that_only_look_like_patterns(self, run):
        metanet.save_checkpoint("e[1].safetensors", weights(5))
        assert run("merge", "models=[e[1].safetensors,a (1).safetensors]", "out=out")[0] == 0


def test_overflow_is_refused_and_counted(run):
    for name, dtype in (("x", torch.float16), ("y", torch.bfloat16)):
        state = {"w": torch.full((4,), 49152.0 if name == "x" else 1e5).to(dtype)}
        metanet.save_checkpoint(f"{name}.safetensors", state)
    given = ["models=[x.safetensors,y.safetensors]", "out=out"]
    code, _, err = run("merge", *given)
    assert code == 1 and "w: 4 of 4 values beyond torch.float16" in err and not Path("out").exists()
    code, out, _ = run("merge", *given, "overflow=clip")
    assert code == 0 and "overflow/w: 4 of 4 values beyond torch.float16" in out
    assert "overflow/w: 4 of 4" in Path("out/README.md").read_text()
    assert written("out")["w"].tolist() == [65504.0] * 4
    numbers = [json.loads(path.read_text()) for path in Path("outputs").rglob("metrics.json")]
    assert any("overflow/w" in each for each in numbers)


def test_names_that_the_grammar_has_no_words_for_are_refused(run):
    recipe = {
        "models": ["a (1).safetensors"],
        "method": {"name": "linear"},
        "overrides": {"": 1, "w*": {" ": 2}},
    }
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    code, _, err = run("merge", "recipe=r.yaml", "out=out")
    assert code == 1 and "overrides can't be taken from there" in err and "Traceback" not in err
