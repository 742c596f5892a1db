import warnings

import pytest
import torch
from torch import nn

import metanet
from alignment.networks import floating, random_state, traced
from metanet import Alignment, MetanetError, load_checkpoint, save_checkpoint
from metanet.alignment import MATCHERS, Match, Problem, matcher
from metanet.errors import CheckpointError
from metanet.evaluation import as_checkpoint


@pytest.fixture
def planted():
    """Architecture, a network, and the same one relabelled."""
    arch, _ = traced("resnet18")
    a = random_state("resnet18", 1)
    return arch, a, arch.spec.sample(torch.Generator().manual_seed(1))(a)


def same(x, y):
    return x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x)


def test_a_module_is_as_good_as_its_state_dict():
    arch, example = traced("mlp")
    example.model.load_state_dict(random_state("mlp", 1))
    b = arch.spec.sample(torch.Generator().manual_seed(1))(random_state("mlp", 1))
    al = metanet.align(b, to=example.model, arch=arch)
    assert same(al(b), dict(example.model.state_dict()))
    back = metanet.align(example.model, to=b, arch=arch)
    assert same(back(example.model), b)


def test_it_applies_to_averages_and_moments_of_the_same_run(planted):
    arch, a, b = planted
    al = metanet.align(b, to=a, arch=arch)
    t = al.transform.inverse()
    moments = {
        n: torch.randn_like(x) for n, x in a.items() if x.is_floating_point() and "running" not in n
    }
    assert same(al(t(moments)), moments)  # no statistics, and nothing is missed
    assert al({**b, "extra": torch.ones(2)})["extra"].tolist() == [1, 1]
    assert al(b)["stem.1.num_batches_tracked"] is b["stem.1.num_batches_tracked"]
    with pytest.raises(
        CheckpointError, match="none of the 1 names.*exp_avg.*fc.bias|none of the 1 names"
    ):
        al({"exp_avg": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"fc.weight is \(2, 2\), expected \(3, 8\)"):
        al({"fc.weight": torch.ones(2, 2)})


def test_it_is_saved_and_loaded(planted, tmp_path):
    arch, a, b = planted
    al = metanet.align(b, to=a, arch=arch, seed=3, restarts=2)
    al.save(tmp_path / "al.safetensors")
    again = Alignment.load(tmp_path / "al.safetensors")
    assert same(again(b), al(b))
    for field in ("objective", "identity", "seconds", "method", "options", "seed"):
        assert getattr(again, field) == getattr(al, field)
    assert again.options["restarts"] == 2
    assert again.seed == 3
    assert str(again) == str(al)
    save_checkpoint(tmp_path / "other.safetensors", {"x": torch.ones(1)})
    with pytest.raises(CheckpointError, match="not a saved alignment"):
        Alignment.load(tmp_path / "other.safetensors")


KEYS = ("spec", "objective", "identity", "seconds", "method", "options", "seed")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("damage", ["missing", "another kind"])
def test_a_file_damaged_in_any_key_is_said_to_be_none(tmp_path, key, damage):
    spec = traced("mlp")[0].spec
    path = tmp_path / "al.safetensors"
    Alignment(spec.sample(), (0.0, 1.0), {}, 0.5, "weight").save(path)
    file = load_checkpoint(path, unwrap=False)
    metadata = {**file.metadata, key: [None]}
    if damage == "missing":
        del metadata[key]
    save_checkpoint(path, dict(file), metadata=metadata)
    with pytest.raises(CheckpointError, match="(?s)not a saved alignment.*" + key):
        Alignment.load(path)


def test_a_moved_checkpoint_is_lazy(planted, tmp_path):
    arch, a, b = planted
    al = metanet.align(b, to=a, arch=arch)
    save_checkpoint(tmp_path / "b.safetensors", {**b, "extra": torch.ones(2)})
    moved = al.moved(load_checkpoint(tmp_path / "b.safetensors"))
    assert same({n: moved[n] for n in a}, al(b)) and moved["extra"].tolist() == [1, 1]
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(CheckpointError):
        moved["fc.weight"]  # read only now
    with pytest.raises(CheckpointError, match="alignment is of another network"):
        al.moved(as_checkpoint({"x": torch.ones(1)}, "x"))


def test_checkpoints_may_be_lazy_and_of_any_floating_dtype(planted, tmp_path):
    arch, a, b = planted
    for name, state, dtype in (("a", a, torch.bfloat16), ("b", b, torch.float16)):
        save_checkpoint(
            tmp_path / f"{name}.safetensors", {n: x.to(dtype) for n, x in floating(state).items()}
        )
    lazy = [load_checkpoint(tmp_path / f"{n}.safetensors") for n in "ab"]
    al = metanet.align(lazy[1], to=lazy[0], arch=arch, memory=0.0)
    moved = al(lazy[1])
    assert all(x.dtype == torch.float16 for x in moved.values())
    assert all(torch.equal(moved[n], x.half()) for n, x in floating(a).items())


def test_many_checkpoints_are_aligned_one_by_one(planted):
    arch, a, b = planted
    c = arch.spec.sample(torch.Generator().manual_seed(2))(a)
    als = metanet.align([b, c], to=a, arch=arch)
    assert same(als[0](b), a)
    assert same(als[1](c), a)


def test_the_same_seed_gives_the_same_alignment():
    arch, _ = traced("resnet18")
    a, b = random_state("resnet18", 1), random_state("resnet18", 2)
    results = [metanet.align(b, to=a, arch=arch, seed=s) for s in (0, 0, 1)]
    assert same(results[0](b), results[1](b))
    assert results[0].objective == results[1].objective
    assert results[0].objective != results[2].objective


@pytest.mark.parametrize("name", ["mlp", "vgg16", "resnet18", "vit", "gpt2"])
def test_weights_are_matched_alike_however_neurons_happen_to_stand(name):
    arch, _ = traced(name)
    a, b = random_state(name, 1), random_state(name, 2)
    other = arch.spec.sample(torch.Generator().manual_seed(3))(b)
    first, second = (metanet.align(x, to=a, arch=arch)(x) for x in (b, other))
    assert same(floating(first), floating(second))


def test_restarts_and_random_starts_are_never_worse():
    arch, _ = traced("resnet18")
    better = []
    for seed in (1, 3, 5):
        a, b = random_state("resnet18", seed), random_state("resnet18", seed + 1)
        one, more, random = (
            metanet.align(b, to=a, arch=arch, **options).objective
            for options in ({}, {"restarts": 6}, {"restarts": 6, "random_start": True})
        )
        assert one[-1] <= more[-1]
        assert one[-1] <= random[-1]
        assert random[0] == one[0]
        better.append(one[-1] < more[-1])
    assert sum(better) >= 2  # the first ascent may be the best of all
    assert list(random) == sorted(random)


def test_balanced_matching_sees_through_scaled_neurons():
    """ReLU neurons scaled by 1e3 and back: the plain objective is led astray, the balanced one is
    not."""
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    arch = metanet.trace(net, torch.randn(4, 6))
    a = {n: t.detach().clone() for n, t in net.state_dict().items()}
    b = {n: t + 0.3 * t.std() * torch.randn_like(t) for n, t in a.items()}
    for before, after in (("0", "2"), ("2", "4")):
        scale = 10 ** (4 * torch.rand(16) - 2)
        b[f"{before}.weight"] = b[f"{before}.weight"] * scale[:, None]
        b[f"{before}.bias"] = b[f"{before}.bias"] * scale
        b[f"{after}.weight"] = b[f"{after}.weight"] / scale
    planted = arch.spec.sample(torch.Generator().manual_seed(0))
    found = {}
    for balance in (False, True):
        together = metanet.align(planted(b), to=a, arch=arch, balance=balance).transform @ planted
        still = torch.arange(16)
        found[balance] = sum(
            int((together.element(g.name) == still).sum()) for g in arch.spec.groups
        )
    assert found[True] == 32
    assert found[False] < 32


def test_statistics_follow_but_do_not_count(planted):
    arch, a, b = planted
    misleading = dict(b)
    for name in b:
        if "running" in name:
            misleading[name] = 1e4 * torch.rand_like(b[name])
    al = metanet.align(misleading, to=a, arch=arch)
    assert same(al(b), a)


def test_groups_that_nothing_is_known_of_are_named():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))
    arch = metanet.trace(net, torch.randn(3, 4))
    a, b = ({n: torch.randn(t.shape) for n, t in net.state_dict().items()} for _ in range(2))
    for name in ("0.weight", "0.bias", "2.weight"):
        a[name] = torch.ones_like(a[name])
    with pytest.warns(
        UserWarning, match=r"1 groups stay.*\n  0: all its neurons have equal weights"
    ):
        al = metanet.align(b, to=a, arch=arch)
    assert "equal weights" in al.identity["0"]
    assert "2" not in al.identity
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        still = metanet.align(b, to=b, arch=arch)
    assert still.identity == dict.fromkeys(("0", "2"), "no relabelling that was found fits better")
    assert "0 groups moved" in str(still)


def refused(b, a, arch, error=CheckpointError, **options):
    with pytest.raises(error) as info:
        metanet.align(b, to=a, arch=arch, **options)
    return str(info.value)


@pytest.mark.untyped
def test_checkpoints_that_do_not_fit_are_refused(planted):
    arch, a, b = planted
    other = random_state("mlp", 1)
    assert "checkpoint to be aligned is of another architecture: it lacks" in refused(
        other, a, arch
    )
    assert "checkpoint to align to is of another architecture" in refused(b, other, arch)
    assert "has others (0.weight" in refused(other, a, arch)
    wide = {**b, "fc.weight": torch.ones(3, 9)}
    assert "fc.weight is (3, 9), expected (3, 8)" in refused(wide, a, arch)
    adapter = {
        "fc.lora_A.default.weight": torch.ones(2, 8),
        "fc.lora_B.default.weight": torch.ones(3, 2),
    }
    assert "is an adapter (fc.lora_A.default.weight" in refused(adapter, a, arch)
    integers = {**b, "fc.weight": torch.ones(3, 8, dtype=torch.int8)}
    assert "is quantised (fc.weight is torch.int8)" in refused(integers, a, arch)
    packed = {
        **{n: t for n, t in b.items() if n != "fc.weight"},
        "fc.qweight": torch.ones(3, 1, dtype=torch.int32),
    }
    assert "is quantised (it has fc.qweight: GPTQ or AWQ)" in refused(packed, a, arch)
    for name in ("fc.weight", "stem.1.running_var"):
        broken = {
            **b,
            name: b[name] * torch.where(torch.arange(b[name].shape[-1]) == 1, float("nan"), 1.0),
        }
        assert f"{name} are NaN or infinite" in refused(broken, a, arch)
        assert "checkpoint to align to" in refused(a, broken, arch)
    assert "got Tensor" in refused([torch.ones(2)], a, arch)


def test_calls_that_make_no_sense_are_refused(planted):
    arch, a, b = planted
    assert "there is no matcher 'wait'; did you mean 'weight'? Choices:" in refused(
        b, a, arch, MetanetError, method="wait"
    )
    assert "has no option speed. Its options: restarts=1" in refused(
        b, a, arch, MetanetError, speed=2
    )
    assert "to=..." in refused(b, None, arch, MetanetError)
    assert "the list is empty" in refused([], a, arch, MetanetError)
    fixed = metanet.trace(nn.Linear(3, 3), torch.randn(2, 3))
    state = nn.Linear(3, 3).state_dict()
    assert "nothing to align" in refused(state, state, fixed, MetanetError)


def test_a_spec_is_enough_for_matching_weights(planted, tmp_path):
    arch, a, b = planted
    assert same(metanet.align(b, to=a, arch=arch.spec)(b), a)
    arch.save(tmp_path / "arch.json")
    assert same(
        metanet.align(b, to=a, arch=metanet.Architecture.load(tmp_path / "arch.json"))(b), a
    )


def test_tied_names_may_be_missing():
    arch, _ = traced("llama_one_key")
    a = random_state("llama_one_key", 1)
    b = arch.spec.sample(torch.Generator().manual_seed(1))(a)
    for gone in ("lm_head.weight", "model.embed_tokens.weight"):
        less = {n: t for n, t in b.items() if n != gone}
        assert same(metanet.align(less, to=a, arch=arch)(b), a)


def test_a_matcher_of_ones_own(planted):
    arch, a, b = planted

    @matcher("backwards", needs=("data",))
    def backwards(problem, *, strength: float = 1.0):
        return Match(problem.spec.identity(), (0.0, strength))

    try:
        assert MATCHERS["backwards"].options == {"strength": 1.0}
        assert "needs data=..." in refused(b, a, arch, MetanetError, method="backwards")
        al = metanet.align(b, to=a, arch=arch, method="backwards", data=[1], strength=2.0)
        assert al.objective == (0.0, 2.0)
        with pytest.raises(MetanetError, match="two matchers named 'backwards'"):
            matcher("backwards")(lambda problem: None)
    finally:
        MATCHERS.remove("backwards")


@pytest.mark.gpu
def test_on_cuda(planted):
    arch, a, b = planted
    assert same(metanet.align(b, to=a, arch=arch, device="cuda")(b), a)
    c = random_state("resnet18", 2)
    objectives = [
        metanet.align(c, to=a, arch=arch, device=d).objective[-1] for d in ("cpu", "cuda")
    ]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-2)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda spec: Match(spec.identity(), ()),
            "a Match without an objective: give its value at",
        ),
        (
            lambda spec: spec.identity(),
            "returned Transform; it must return a metanet.alignment.Match",
        ),
    ],
)
def test_what_a_matcher_returns_is_checked(monkeypatch, returned, message):
    monkeypatch.setattr(MATCHERS, "_entries", dict(MATCHERS))  # gone again afterwards

    @matcher("careless")
    def careless(problem: Problem) -> Match:
        return returned(problem.spec)

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    arch = metanet.trace(net, torch.randn(2, 3))
    with pytest.raises(MetanetError, match=f"matcher 'careless' in .*test_align.py.*{message}"):
        metanet.align(net, to=net, arch=arch, method="careless")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda match: match, "returned Match; it takes many checkpoints"),
        (lambda match: [match], "returned 1 matches for 2 checkpoints; give one each"),
        (lambda match: [match] * 3, "returned 3 matches for 2 checkpoints"),
        (lambda match: [match, None], "returned NoneType; it must return .* for each checkpoint"),
    ],
)
def test_what_a_matcher_of_many_returns_is_checked(monkeypatch, returned, message):
    monkeypatch.setattr(MATCHERS, "_entries", dict(MATCHERS))  # gone again afterwards

    @matcher("careless", many=True)
    def careless(problem: Problem) -> list[Match]:
        return returned(Match(problem.spec.identity(), (0.0,)))

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    arch = metanet.trace(net, torch.randn(2, 3))
    with pytest.raises(MetanetError, match=f"matcher 'careless' in .*test_align.py.*{message}"):
        metanet.align([net, net], to=net, arch=arch, method="careless")
