"""metanet merge: what it writes, what it says, and what it refuses."""

import hashlib
import inspect
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import metanet
from metanet import Alignment, cli
from metanet._cli import networks
from metanet.merging import METHODS

ROOT = Path(__file__).parent.parent.parent
NETWORKS = """
import torch
from torch import nn

def mlp(width=6):
    first = [nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*first, nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))

def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(16, 5, generator=generator), torch.randint(2, (16,), generator=generator))
        for _ in range(3)
    ]

def others():
    return [(inputs * torch.tensor([3.0, 0.1, 1.0, 2.0, -1.0]), targets) for inputs, targets in batches()]
"""


def mlp(seed, width=6):
    torch.manual_seed(seed)
    hidden = nn.Sequential(
        nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.Tanh()
    )
    return nn.Sequential(*hidden, nn.Linear(width, 2)).eval()


@pytest.fixture
def merge(calls, capsys, tmp_path):
    """Run the command beside three checkpoints, a to c: ``merge("out=...", ...)`` -> exit code,
    stdout, stderr."""
    module = f"merge_{re.sub('[^a-z0-9]', '_', tmp_path.name)}"
    Path(f"{module}.py").write_text(NETWORKS)
    for seed, name in enumerate("abc"):
        metanet.save_checkpoint(f"{name}.safetensors", mlp(seed).state_dict())

    def run(*args, command="merge"):
        given = (
            {"models": "[a.safetensors,b.safetensors]", "out": "out"} if command == "merge" else {}
        )
        given.update(
            arg.replace("{n}", module).split("=", 1) for arg in args if not arg.startswith("~")
        )
        code = cli.main(
            [command, *(f"{key}={value}" for key, value in given.items() if f"~{key}" not in args)]
        )
        out, err = capsys.readouterr()
        return code, out, err

    return run


def floating(tensors):
    return {n: t for n, t in tensors.items() if t.is_floating_point()}


def average(*states, weights=None):
    weights = weights or [1 / len(states)] * len(states)
    return {
        n: sum(w * s[n].double() for w, s in zip(weights, states, strict=True))
        for n in floating(states[0])
    }


def front_matter(folder):
    card = (Path(folder) / "README.md").read_text()
    return yaml.safe_load(card.split("---\n")[1]), card


def test_averages_and_says_how(merge):
    code, out, err = merge("method.weights=[0.3,0.7]")
    assert code == 0, err
    a, b, found = (
        load_file("a.safetensors"),
        load_file("b.safetensors"),
        load_file("out/model.safetensors"),
    )
    assert found.keys() == a.keys()
    for name, expected in average(a, b, weights=[0.3, 0.7]).items():
        assert found[name].dtype is torch.float32
        torch.testing.assert_close(found[name].double(), expected, rtol=0, atol=1e-7)
    assert {p.name for p in Path("out").iterdir()} == {
        "model.safetensors",
        "README.md",
        "merge_config.yaml",
    }
    front, card = front_matter("out")
    assert front == {
        "base_model": ["a.safetensors", "b.safetensors"], "base_model_relation": "merge",
        "tags": ["merge", "metanet"]
    }  # fmt: skip
    for name in ("a.safetensors", "b.safetensors"):
        assert f"| {name} | `{hashlib.sha256(Path(name).read_bytes()).hexdigest()}` |" in card
    assert (
        "| `weights` | [0.3, 0.7] | how much of each model" in card
        and METHODS["linear"].reference in card
    )
    assert f"metanet {metanet.__version__}" in card
    assert (
        "metanet merge 'models=[a.safetensors,b.safetensors]' out=out 'method.weights=[0.3,0.7]'"
        in card
    )
    config = yaml.safe_load(Path("out/merge_config.yaml").read_text())
    assert config["method"] == {"name": "linear", "weights": [0.3, 0.7], "normalize": True}
    assert (config["models"], config["seed"]) == (["a.safetensors", "b.safetensors"], 0)
    numbers = json.loads(Path("outputs/merge/now/metrics.json").read_text())
    assert (numbers["tensors"], numbers["values"]) == (len(a), sum(t.numel() for t in a.values()))
    assert f"{len(a)} tensors" in out and out.rstrip().endswith(": out")
    assert not [p for p in Path().iterdir() if ".partial" in p.name]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_a_file_with_its_options(name):
    conf = yaml.safe_load((ROOT / "conf" / "method" / f"{name}.yaml").read_text())
    assert conf.pop("name") == name
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in METHODS[name].options.items()}
    assert conf == options
    assert all(type(conf[k]) is type(default) for k, default in options.items())
    functions = [METHODS[name].function, METHODS[name].prepare]
    parameters = [
        p for f in functions if f is not None for p in inspect.signature(f).parameters.values()
    ]
    assert list(conf) == list(dict.fromkeys(p.name for p in parameters if p.kind is p.KEYWORD_ONLY))


def test_every_file_is_of_a_method():
    assert {p.stem for p in (ROOT / "conf" / "method").iterdir()} == set(METHODS)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_runs(name, merge):
    found = METHODS[name]
    given = "abc"[: 1 if found.models[1] == 1 or name == "passthrough" else max(2, found.models[0])]
    args = [f"method={name}", f"models=[{','.join(f'{each}.safetensors' for each in given)}]"]
    args += ["base=c.safetensors"] if found.base == "required" else []
    args += ["arch={n}:mlp", "input_shape=[5]", "data={n}:batches"]
    code, _, err = merge(*args)
    assert code == 0, err
    assert set(load_file("out/model.safetensors")) == set(load_file("a.safetensors"))
    assert found.reference in front_matter("out")[1]


def test_options_by_name_and_depth(merge):
    a, b = load_file("a.safetensors"), load_file("b.safetensors")
    code, _, err = merge('overrides={"0.*": {take: 1}, 5.*: {weights: [0.9, 0.1]}}')
    assert code == 0, err
    found = load_file("out/model.safetensors")
    assert torch.equal(found["0.weight"], b["0.weight"])
    assert torch.allclose(found["5.weight"], 0.9 * a["5.weight"] + 0.1 * b["5.weight"], atol=1e-7)
    assert torch.allclose(found["3.weight"], (a["3.weight"] + b["3.weight"]) / 2, atol=1e-7)
    assert "tensors `5.*`" in front_matter("out")[1]
    Path("mine (1).yaml").write_text("'0.*': {take: 1}\n'5.*': {weights: [0.9, 0.1]}\n")
    code, _, err = merge("overrides=mine (1).yaml", "out=file")
    assert code == 0, err
    assert all(torch.equal(t, found[n]) for n, t in load_file("file/model.safetensors").items())
    code, _, err = merge("method.weights=[{gradient:[1,0]},{gradient:[0,1]}]", "out=gradient")
    assert code == 0, err
    found = load_file("gradient/model.safetensors")
    assert torch.equal(found["0.weight"], a["0.weight"]) and torch.equal(
        found["5.weight"], b["5.weight"]
    )


class TestNames:
    """What is written has the names of the file, whatever the network calls its tensors."""

    def test_a_prefix_and_what_is_not_of_the_network(self, merge):
        for name in "ab":
            state = load_file(f"{name}.safetensors")
            wrapped = {"loss.scale": torch.tensor(3.0), **{f"net.{n}": t for n, t in state.items()}}
            metanet.save_checkpoint(f"{name}.safetensors", wrapped)
        code, out, err = merge("arch={n}:mlp", "input_shape=[5]", "matcher=weight")
        assert code == 0, err
        a, found = load_file("a.safetensors"), load_file("out/model.safetensors")
        assert found.keys() == a.keys() and found["loss.scale"] == 3
        assert "1 tensors are none of the network's and stay as they are: loss.scale" in out
        assert not torch.equal(found["net.0.weight"], a["net.0.weight"])

    def test_other_names_than_the_first_ones(self, merge):
        state = load_file("b.safetensors")
        metanet.save_checkpoint("b.safetensors", {f"module.net.{n}": t for n, t in state.items()})
        code, _, err = merge()
        assert code == 0, err
        a, found = load_file("a.safetensors"), load_file("out/model.safetensors")
        assert found.keys() == a.keys()
        assert torch.allclose(found["5.bias"], (a["5.bias"] + state["5.bias"]) / 2)


class TestAlignment:
    @pytest.fixture
    def relabelled(self):
        """b is a with its neurons in another order."""
        arch = metanet.trace(mlp(0), torch.randn(3, 5))
        a = load_file("a.safetensors")
        metanet.save_checkpoint(
            "b.safetensors", arch.spec.sample(torch.Generator().manual_seed(2))(a)
        )
        return a

    def test_a_relabelling_of_itself_returns_the_model(self, merge, relabelled):
        code, out, err = merge("arch={n}:mlp", "input_shape=[5]", "matcher=weight")
        assert code == 0, err
        found = load_file("out/model.safetensors")
        assert all(torch.equal(t, relabelled[n]) for n, t in found.items())
        assert "model 1: Alignment by weight: 2 groups moved" in out
        assert (
            "- 1: neurons moved by the matcher `weight` (seed 0): 2 of 2 groups"
            in front_matter("out")[1]
        )
        saved = Alignment.load("outputs/merge/now/alignment-1.safetensors")
        assert all(
            torch.equal(t, relabelled[n]) for n, t in saved(load_file("b.safetensors")).items()
        )
        numbers = json.loads(Path("outputs/merge/now/metrics.json").read_text())
        assert numbers["objective/1/after"] > numbers["objective/1/before"]

    @pytest.mark.parametrize("form", ["al (1)", "al (1)/alignment.safetensors", "[null,al (1)]"])
    def test_one_that_was_saved(self, merge, relabelled, form):
        pair = [
            "a=a.safetensors",
            "b=b.safetensors",
            "arch={n}:mlp",
            "input_shape=[5]",
            "out=al (1)",
        ]
        assert merge(*pair, command="align")[0] == 0
        code, _, err = merge(f"alignment={form}")
        assert code == 0, err
        assert all(
            torch.equal(t, relabelled[n]) for n, t in load_file("out/model.safetensors").items()
        )
        assert not list(Path("outputs/merge/now").glob("*.safetensors"))

    def test_one_of_another_network(self, merge):
        net = nn.ModuleDict({"x": nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))})
        net.forward = net["x"].forward
        state, spec = net.state_dict(), metanet.trace(net, torch.randn(2, 3)).spec
        metanet.align(spec.sample()(state), to=state, arch=spec).save("other.safetensors")
        code, _, err = merge("alignment=other.safetensors")
        assert (
            code == 1
            and "is of another network: it moves x.0.weight" in err
            and "; give arch=" in err
        )
        assert not Path("out").exists()

    def test_a_large_network_is_never_made_with_values(self, merge, relabelled, monkeypatch):
        made = []
        real = networks.seeded_network
        monkeypatch.setattr(
            networks, "seeded_network", lambda *args: made.append(real(*args)) or made[-1]
        )
        monkeypatch.setattr(networks, "_LARGE", 10)
        code, _, err = merge("arch={n}:mlp", "input_shape=[5]", "matcher=weight")
        assert code == 0, err
        assert all(p.is_meta for p in made[0].parameters())
        assert all(
            torch.equal(t, relabelled[n]) for n, t in load_file("out/model.safetensors").items()
        )


def test_statistics_are_measured_anew(merge):
    args = ["arch={n}:mlp", "input_shape=[5]", "data={n}:batches"]
    assert merge("out=kept")[0] == 0
    code, _, err = merge(*args, "repair=bn_reset", "repair_passes=2")
    assert code == 0, err
    kept, found = load_file("kept/model.safetensors"), load_file("out/model.safetensors")
    assert torch.equal(found["0.weight"], kept["0.weight"])
    hidden = [x @ found["0.weight"].T + found["0.bias"] for x, _ in batches()]
    assert torch.allclose(found["1.running_mean"], torch.cat(hidden).mean(0), atol=1e-5)
    assert not torch.allclose(kept["1.running_mean"], found["1.running_mean"], atol=1e-3)
    assert "- statistics: bn_reset" in front_matter("out")[1]


def batches():
    scope = {}
    exec(NETWORKS, scope)
    return scope["batches"]()


class TestOut:
    def test_what_is_there_stays(self, merge):
        Path("out").mkdir()
        Path("out/mine.txt").write_text("mine")
        code, _, err = merge()
        assert code == 1
        assert "out=out is not empty: give a folder that does not exist yet" in err
        assert [p.name for p in Path("out").iterdir()] == ["mine.txt"]
        Path("file").write_text("")
        assert "out=file is a file" in merge("out=file")[2]
        assert "out=x.safetensors: give a folder" in merge("out=x.safetensors")[2]

    def test_an_empty_folder_and_an_odd_name_will_do(self, merge):
        Path("odd (1)=x.y").mkdir()
        code, _, err = merge("out=odd (1)=x.y")
        assert code == 0, err
        assert Path("odd (1)=x.y/model.safetensors").is_file()

    def test_the_folder_of_an_input(self, merge):
        metanet.save_checkpoint("folder", load_file("a.safetensors"), max_shard_size="1GB")
        before = sorted(Path("folder").iterdir())
        for out, where in (
            ("folder", "is"),
            ("folder/deeper/out", "lies in"),
            ("other/../folder/x", "lies in"),
        ):
            code, _, err = merge("models=[folder,b.safetensors]", f"out={out}")
            assert code == 1
            assert f"out={out} {where} the folder of an input, folder" in err
        assert (
            "lies in the folder of an input, folder"
            in merge("base=folder", "method=linear", "out=folder/x")[2]
        )
        assert sorted(Path("folder").iterdir()) == before

    def test_a_full_disk(self, merge, monkeypatch):
        from metanet.checkpoints import _writing

        def full(*args):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(_writing, "_write", full)
            code, _, err = merge("out=new/out")
        assert code == 1
        assert "No space left on device" in err and "/new/" in err and "Traceback" not in err
        assert not Path("new/out").exists()
        assert not Path("outputs/merge/now/metrics.json").exists()
        code, _, err = merge("out=new/out")  # there is room now
        assert code == 0, err
        assert [p.name for p in Path("new").iterdir()] == ["out"]

    def test_a_full_disk_at_the_last_moment(self, merge, monkeypatch):
        from metanet.merging.writing import _saving

        def full(work, files, plan):
            (work / "README.md").write_text("half")
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(_saving, "_write_files", full)
            code, _, err = merge()
        assert (
            code == 1
            and "No space left on device" in err
            and "1 of 1 shards are finished and wait in " in err
        )
        assert not Path("out").exists()
        assert merge()[0] == 0
        assert front_matter("out")[0]["tags"] == ["merge", "metanet"]
        assert not [p for p in Path().iterdir() if ".partial" in p.name]

    def test_a_sweep_into_folders_by_method(self, merge):
        args = [
            "-m",
            "method=linear,slerp",
            "models=[a.safetensors,b.safetensors]",
            "out=merged-${method.name}",
        ]
        assert cli.main(["merge", *args]) == 0
        assert (
            Path("merged-linear/model.safetensors").is_file()
            and Path("merged-slerp/model.safetensors").is_file()
        )


def test_one_file_twice(merge):
    code, _, err = merge("models=[a.safetensors,a.safetensors]")
    assert code == 0, err
    a = load_file("a.safetensors")
    assert all(torch.equal(t, a[n]) for n, t in load_file("out/model.safetensors").items())
    assert front_matter("out")[0]["base_model"] == ["a.safetensors"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["~models"], "no value for models: give models=VALUE"),
        (["~out"], "no value for out: give out=VALUE"),
        (
            ["models=a.safetensors"],
            "models=a.safetensors: give a list of checkpoints, models=[a.safetensors,B]",
        ),
        (["models=[]"], "models=[]: give a list of checkpoints, models=[A,B]"),
        (["models=[a.safetensors,null]"], "give a list of checkpoints"),
        (["models=[a.safetensors]"], "method 'linear' merges 2 or more models, got 1"),
        (
            ["models=[a.safetensors,d.safetensors]"],
            "checkpoint 'd.safetensors' does not exist; its folder has a.safe",
        ),
        (
            ["models=[a.safetensors,wide.safetensors]"],
            "shape       0.weight is (7, 5), expected (6, 5)",
        ),
        (
            ["models=[a.safetensors,typo.safetensors]"],
            "missing     5.weight (2, 6); near: 5.weihgt (2, 6)",
        ),
        (
            ["models=[a.safetensors,nan.safetensors]"],
            "'nan.safetensors': 5.weight has NaN or infinite values",
        ),
        (
            ["models=[a.safetensors,int.safetensors]"],
            "5.weight is torch.int8, expected torch.float32",
        ),
        (
            ["models=[t1.safetensors,t2.safetensors]"],
            "table holds integers (torch.int64) that differ in",
        ),
        (["arch=timm:test_resnet"], "does not fit the network"),
        (["arch={n}:mlp", "arch_args.width=7"], "0.weight is (6, 5), expected (7, 5)"),
        (["method=tis"], "did you mean method=ties?"),
        (["method.density=0.5"], "unknown key 'method.density'"),
        (["method.weight=1"], "did you mean method.weights?"),
        (["method.weights=[1,2,3]"], "weights has 3 values for 2 models"),
        (["method.weights=[1,-1]"], "the weights [1, -1] have the sum 0; give normalize=false"),
        (["method.weights=much"], "method.weights=much: give a number"),
        (["method=sce"], "merges what models changed of a base: give base="),
        (["base=c.safetensors"], "method 'linear' has no use for a base"),
        (["overrides={0.*: {density: 1}}"], "method 'linear' has no option density"),
        (["overrides={nowhere.*: {take: 0}}"], "no tensor is called like 'nowhere.*'"),
        (["overrides=nowhere.yaml"], "overrides=nowhere.yaml: there is no such file"),
        (["overrides=broken.yaml"], "is damaged or no YAML"),
        (["overrides=[1]"], "give {PATTERN: {OPTION: NUMBER}}"),
        (["slices={0: [0,1]}"], "give [{MODEL: [FIRST, BEHIND_THE_LAST]}, ...]"),
        (["matcher=weight"], "matcher=weight needs the network: give arch="),
        (
            ["matcher=activation", "arch={n}:mlp", "input_shape=[5]"],
            "matcher=activation runs the networks: give data=",
        ),
        (["matcher=weight", "alignment=a.safetensors"], "give either matcher=NAME"),
        (["alignment=a.safetensors"], "not a saved alignment"),
        (["data={n}:batches"], "data= needs the network: give arch="),
        (["arch={n}:mlp", "data_args.limit=3"], "data_args.limit needs data="),
        (["repair=bn_reset"], "repair=bn_reset needs the network: give arch="),
        (["repair=bn_reset", "arch={n}:mlp"], "repair=bn_reset runs the networks: give data="),
        (["repair=reset", "arch={n}:mlp", "data={n}:batches"], "bn_reset"),
        (["dtype=bfloat16"], "dtype=bfloat16: choose from float32, float64"),
        (["out_dtype=int8"], "out_dtype=int8: choose from float64, float32, bfloat16"),
        (["max_shard_size=large"], "max_shard_size='large': give bytes"),
        (["device=nowhere"], "device=nowhere can't be used"),
        (
            ["models=[quantised,a.safetensors]"],
            "is quantised (fp8, says its config.json), which averages",
        ),
    ],
)
def test_says_what_is_wrong(args, message, merge):
    state = load_file("b.safetensors")
    metanet.save_checkpoint("wide.safetensors", mlp(1, 7).state_dict())
    metanet.save_checkpoint(
        "typo.safetensors", {n.replace("5.weight", "5.weihgt"): t for n, t in state.items()}
    )
    metanet.save_checkpoint(
        "nan.safetensors", {**state, "5.weight": torch.full((2, 6), float("nan"))}
    )
    metanet.save_checkpoint(
        "int.safetensors", {**state, "5.weight": torch.ones(2, 6, dtype=torch.int8)}
    )
    for n in (1, 2):
        metanet.save_checkpoint(f"t{n}.safetensors", {**state, "table": torch.arange(3) * n})
    metanet.save_checkpoint("quantised", state, max_shard_size="1GB")
    Path("quantised/config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
    Path("broken.yaml").write_text("{")
    before = {p: p.read_bytes() for p in Path().rglob("*.safetensors")}
    code, _, err = merge(*args)
    assert code == 1
    assert message in err
    assert "Traceback" not in err
    assert not Path("out").exists()
    assert {
        p: p.read_bytes() for p in Path().rglob("*.safetensors") if ".partial" not in str(p)
    } == before
    assert not [p for p in Path().iterdir() if ".partial" in p.name]


def test_every_model_may_have_data_of_its_own(merge):
    code, _, err = merge("method=regmean", "arch={n}:mlp", "data=[{n}:batches,{n}:others]")
    assert code == 0, err
    code, _, err = merge("method=regmean", "arch={n}:mlp", "data={n}:batches", "out=shared")
    assert code == 0, err
    own, shared = (load_file(f"{folder}/model.safetensors") for folder in ("out", "shared"))
    assert not torch.allclose(own["0.weight"], shared["0.weight"])
    code, _, err = merge("method=regmean", "arch={n}:mlp", "data=[{n}:batches]", "out=third")
    assert code == 1 and "data of 1 models, but 2 are merged" in err
    assert not Path("third").exists()


def test_names_are_fitted_once(merge, monkeypatch):
    fitted = []
    fit = metanet.checkpoints.Checkpoint.fit
    monkeypatch.setattr(
        metanet.checkpoints.Checkpoint,
        "fit",
        lambda self, *args, **kw: fitted.append(self.path.name) or fit(self, *args, **kw),
    )
    code, _, err = merge("arch={n}:mlp", "input_shape=[5]", "matcher=weight")
    assert code == 0, err
    assert fitted.count("b.safetensors") == 1


OWN_METHOD = """
from metanet.merging import Part, method

@method("measured", needs=("data",))
def measured(part: Part):
    return part.models[0]
"""


def test_a_method_of_ones_own_says_what_it_needs(merge, monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))  # gone again afterwards
    Path("own").mkdir()
    Path("own/measured.py").write_text(OWN_METHOD)
    code, _, err = merge("method=own.measured")
    assert code == 1
    assert "needs the network: give arch=timm:NAME, hf:FOLDER, package.module:factory" in err
    code, _, err = merge("method=own.measured", "arch={n}:mlp")
    assert code == 1
    assert "method=own.measured runs the networks: give data=" in err
    assert not Path("out").exists()
