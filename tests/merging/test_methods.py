"""Laws of every registered merge method; a new one is tested here by itself."""

import dataclasses
import functools
import inspect
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import metanet
from metanet.errors import MetanetError
from metanet.merging import METHODS
from metanet.merging._registry import explanations

CONF = Path(__file__).parents[2] / "conf" / "method"
COUNTS = {"passthrough": 1}  # of models; three, or as many as a method takes
NEEDS = {
    "bcwi": ("model", "data")
}  # besides what is registered: it takes them unless an option says what to do
FREE = sorted(name for name, method in METHODS.items() if not method.needs and name not in NEEDS)
AVERAGES = sorted(
    set(METHODS) - {"ifm"}
)  # iterative feature merging makes one network of one: a narrower one
NOT_TO_THE_BIT = {"regmean": 1e-5}  # it solves linear equations
EVERY = pytest.mark.parametrize("name", sorted(METHODS))


def network(seed):
    """A small MLP; one of its biases is zero, as biases are before training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    nn.init.zeros_(net[2].bias)
    return net


def count(name):
    least, most = METHODS[name].models
    return COUNTS.get(name, max(least, 3 if most is None else min(most, 3)))


def given(name, dtype=torch.float32, equal=False, base=None):
    """What merge takes for a method: models, and by keyword all that it needs.

    Numbers in float64 have more places than float32 has.

    Args:
        base: whether to give one; if there may be one, when left out.
    """
    method = METHODS[name]
    states = [
        network(0 if equal else seed).double().state_dict() for seed in range(count(name) + 1)
    ]
    states = [{n: (t * (1 + 1e-10)).to(dtype) for n, t in state.items()} for state in states]
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(16, 4, generator=generator), torch.randint(3, (16,), generator=generator)
    needs = {"model": network(9), "data": [batch]}
    wanted = {
        *method.needs,
        *NEEDS.get(name, ()),
        *(("model", "data") if "arch" in method.needs else ()),
    }
    more = {need: needs[need] for need in sorted(wanted) if need in needs}
    if method.base != "none" if base is None else base:
        more["base"] = states[-1]
    return states[:-1], more


def merged(name, dtype=torch.float32, equal=False, base=None, **options):
    models, more = given(name, dtype, equal, base)
    return metanet.merge(models, name, **more, **options)


class TestResults:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    @pytest.mark.parametrize(
        ("name", "base"),
        [
            (n, b)
            for n in AVERAGES
            for b in {"none": (False,), "required": (True,)}.get(METHODS[n].base, (False, True))
        ],
    )
    def test_equal_models_give_the_model(self, name, base, dtype):
        models, _ = given(name, dtype, equal=True)
        result = merged(name, dtype, equal=True, base=base)
        assert list(result) == list(models[0])
        for key, tensor in models[0].items():
            if name in NOT_TO_THE_BIT:
                torch.testing.assert_close(
                    result[key], tensor, rtol=NOT_TO_THE_BIT[name], atol=NOT_TO_THE_BIT[name]
                )
            else:
                assert torch.equal(result[key], tensor), key

    @EVERY
    def test_the_same_again_in_whatever_order_tensors_are_asked_for(self, name):
        first, again = merged(name), merged(name)
        there, back = {n: first[n] for n in first}, {n: again[n] for n in reversed(list(again))}
        assert all(torch.equal(there[n], back[n]) for n in there)

    @EVERY
    def test_inputs_are_left_alone(self, name):
        models, more = given(name)
        states = [*models, *([more["base"]] if "base" in more else [])]
        before = [{n: t.clone() for n, t in state.items()} for state in states]
        network_before = (
            {n: t.clone() for n, t in more["model"].state_dict().items()} if "model" in more else {}
        )
        dict(metanet.merge(models, name, **more))
        for state, copy in zip(states, before, strict=True):
            assert all(torch.equal(state[n], copy[n]) for n in copy)
        assert all(torch.equal(more["model"].state_dict()[n], t) for n, t in network_before.items())

    @EVERY
    def test_float64_is_computed_in_float64(self, name):
        result, narrow = merged(name, torch.float64), merged(name, torch.float32)
        for key in ("0.weight", "4.weight"):
            assert result[key].dtype is torch.float64
            assert (result[key] != result[key].float().double()).any()
            torch.testing.assert_close(result[key].float(), narrow[key], rtol=1e-4, atol=1e-5)

    @EVERY
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_narrow_dtypes_are_computed_in_float32_and_rounded_once(self, name, dtype):
        models, more = given(name, dtype)
        wide = [{n: t.float() for n, t in state.items()} for state in models]
        more_wide = {
            k: {n: t.float() for n, t in v.items()} if k == "base" else v for k, v in more.items()
        }
        result, exact = metanet.merge(models, name, **more), metanet.merge(wide, name, **more_wide)
        for key, tensor in result.items():
            assert tensor.dtype is dtype
            assert torch.equal(tensor, exact[key].to(dtype)), key

    @pytest.mark.parametrize("name", FREE)
    def test_tensors_of_every_shape_and_layout(self, name):
        generator = torch.Generator().manual_seed(0)
        shapes = {
            "scalar": (),
            "one": (1,),
            "empty": (0, 3),
            "column": (4, 1),
            "kernel": (3, 2, 2, 5),
        }
        states = [
            {k: torch.randn(s, generator=generator) for k,
                s in shapes.items()} for _ in range(count(name) + 1)
        ]  # fmt: skip
        turned = [
            {k: t.mT.contiguous().mT if t.ndim > 1 else t for k, t in state.items()}
            for state in states
        ]
        assert not turned[0]["kernel"].is_contiguous()
        results = [
            metanet.merge(
                s[:-1],
                name,
                **({} if METHODS[name].base == "none" else {"base": s[-1]}),
                **_random(name),
            )
            for s in (states, turned)
        ]
        for key, shape in shapes.items():
            one, other = (result[key] for result in results)
            assert one.shape == shape
            assert one.isfinite().all()
            torch.testing.assert_close(one, other)


def _random(name):
    """Options for methods that leave everything as it is unless asked."""
    return {"density": 0.5} if "density" in METHODS[name].options else {}


class TestOptions:
    @EVERY
    def test_all_are_explained(self, name):
        method = METHODS[name]
        told = explanations(method.function) | (
            explanations(method.prepare) if method.prepare else {}
        )
        assert set(told) == set(method.options)
        assert all(len(text) > 5 for text in told.values())
        assert method.reference.startswith("https://")
        assert inspect.getdoc(method.function).splitlines()[0].endswith((".", ":"))
        assert all(f"  {option}=" in method.describe() for option in method.options)

    @EVERY
    def test_every_method_has_a_file_with_its_options(self, name):
        conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
        assert conf.pop("name") == name
        assert conf == METHODS[name].options
        assert list(conf) == list(METHODS[name].options)
        assert all(
            type(conf[option]) is type(default) for option, default in METHODS[name].options.items()
        )

    def test_every_file_is_of_a_method(self):
        assert {path.stem for path in CONF.iterdir()} == set(METHODS)

    @EVERY
    def test_they_vary_with_depth_and_by_name(self, name, monkeypatch):
        method, seen = METHODS[name], {}

        @functools.wraps(method.function)
        def spy(part, **options):
            seen[part.name] = options
            defaults = {o: method.options[o] for o in options}
            plural = {
                o: [d] * len(part.tensors) for o, d in defaults.items() if o in method.per_model
            }
            return method.function(part, **defaults | plural)

        monkeypatch.setitem(METHODS._entries, name, dataclasses.replace(method, function=spy))
        numbers = [o for o in method.taken if isinstance(method.options[o], float)]
        ramps = {o: {"gradient": [k + 0.25, k + 0.75]} for k, o in enumerate(numbers)}
        other = {o: k + 0.125 for k, o in enumerate(numbers)}
        dict(merged(name, overrides={"2.weight": other}, **ramps))
        assert list(seen) == list(network(0).state_dict())
        for k, option in enumerate(numbers):
            for key, value in {
                "0.weight": 0.25,
                "2.bias": 0.5,
                "2.weight": 0.125,
                "4.bias": 0.75,
            }.items():
                expected = [k + value] * count(name) if option in method.per_model else k + value
                assert seen[key][option] == expected

    @pytest.mark.parametrize(
        "name", sorted(name for name, method in METHODS.items() if method.shape is None)
    )
    def test_a_tensor_can_be_taken_as_it_is(self, name):
        models, more = given(name)
        result = metanet.merge(models, name, overrides={"2.*": {"take": 0}}, **more)
        assert all(
            torch.equal(result[f"2.{which}"], models[0][f"2.{which}"])
            for which in ("weight", "bias")
        )


class TestRefusals:
    @EVERY
    def test_too_few_or_too_many_models(self, name):
        models, more = given(name)
        least, most = METHODS[name].models
        wrong = [
            *([models[: least - 1]] if least > 1 else []),
            *([[*models, *models, *models]] if most else []),
        ]
        for each in wrong:
            with pytest.raises(MetanetError, match=f"'{name}' merges .* got {len(each)}"):
                metanet.merge(each, name, **more)

    @EVERY
    def test_what_is_missing_is_said(self, name):
        models, more = given(name)
        if METHODS[name].base == "required":
            without = {k: v for k, v in more.items() if k != "base"}
            with pytest.raises(MetanetError, match=f"'{name}' .*: give base="):
                metanet.merge(models, name, **without)
        for need in METHODS[name].needs:
            without = {
                k: v for k, v in more.items() if k != need and not (need == "arch" and k == "model")
            }
            with pytest.raises(MetanetError, match=f"'{name}' needs .*{need}="):
                metanet.merge(models, name, **without)

    @EVERY
    def test_unknown_options_list_the_choices(self, name):
        with pytest.raises(MetanetError, match=f"'{name}' has no option nonsense. Its options: "):
            merged(name, nonsense=1)


@pytest.mark.gpu
@EVERY
def test_on_a_graphics_card(name):
    found, expected = merged(name, device="cuda"), merged(name)
    for key, tensor in expected.items():
        assert found[key].device.type == "cpu"
        torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-5)
