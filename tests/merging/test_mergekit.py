"""metanet.merge gives the numbers of mergekit 0.1.5, for every method that both have.

The numbers are stored; benchmarks/merge_outputs.py makes them again. Its docstring has the table of
what mergekit gets wrong, or leaves to chance: these are not compared, and the tests at the end of
this file say what happens instead.
"""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import metanet
from metanet.merging import METHODS

STORED = Path(__file__).parent / "mergekit.safetensors"


@cache
def stored():
    """Tensors, and the settings of the cases."""
    with safe_open(STORED, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(  # noqa: SIM118
            file.metadata()["cases"]
        )


CASES = stored()[1]


def given(dtype, who, names):
    return {name: stored()[0][f"{dtype}.{who}.{name}"] for name in names}


def labelled(number, case):
    return f"{number}-{case['method']}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[labelled(*each) for each in enumerate(CASES)]
)
def test_the_numbers_are_those_of_mergekit(number, dtype):
    """float32: to 1e-6. bfloat16: to one unit in the last place of a computation in float32."""
    case = CASES[number]
    models = [given(dtype, f"model{k}", case["names"]) for k in range(case["models"])]
    base = given(dtype, "base", case["names"]) if case["base"] else None
    merged = metanet.merge(models, case["method"], base=base, **case["options"])
    expected = dict(
        zip(case["names"], _split(stored()[0][f"{dtype}.case{number}"], models[0]), strict=True)
    )
    for name, tensor in expected.items():
        assert merged[name].dtype == tensor.dtype
        apart = (merged[name].double() - tensor.double()).abs()
        assert (apart <= (1e-6 if dtype == "float32" else _unit(tensor))).all(), (
            f"{name}: {apart.max()}"
        )


def _split(vector, like):
    parts = vector.split([tensor.numel() for tensor in like.values()])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, like.values(), strict=True)]


def _unit(tensor):
    """In the last of the 8 binary places of bfloat16; of 0, what rounding in float32 may leave of
    terms of size 0.1."""
    return torch.where(tensor == 0, 1e-8, 2.0 ** (tensor.double().frexp().exponent - 8).double())


def test_every_method_that_both_have_is_compared():
    """mergekit 0.1.5 registers these; all are in metanet."""
    theirs = {
        "linear", "slerp", "nuslerp", "multislerp", "karcher", "task_arithmetic", "ties", "dare_ties",
        "dare_linear", "breadcrumbs", "breadcrumbs_ties", "model_stock", "nearswap", "della",
        "della_linear", "sce", "passthrough", "arcee_fusion", "ram", "ramplus_tl",
    }  # fmt: skip
    assert {case["method"] for case in CASES} == theirs
    assert theirs <= set(METHODS)


def test_the_cases_tell_wrong_options_apart():
    """What is stored differs between the settings of a method, so that an option without effect
    would be seen."""
    by_method = {}
    for number, case in enumerate(CASES):
        same = case["method"], case["models"], case["base"], *case["names"]
        by_method.setdefault(same, []).append(stored()[0][f"float32.case{number}"])
    pairs = [(a, b) for found in by_method.values() for k, a in enumerate(found) for b in found[:k]]
    assert len(pairs) > 80
    assert all((a - b).abs().max() > 1e-4 for a, b in pairs)


class TestWhereMergekitIsWrong:
    """The rows of the table in benchmarks/merge_outputs.py that a small tensor can show."""

    SMALL = 1e-5  # the size of changes in a fine-tune of a few steps, and of biases

    def changes(self, count, shape=(8, 6)):
        generator = torch.Generator().manual_seed(0)
        return [
            self.SMALL * torch.randn(shape, generator=generator, dtype=torch.float64)
            for _ in range(count)
        ]

    @pytest.mark.parametrize("method", ["sce", "model_stock"])
    def test_small_changes_are_merged_like_large_ones(self, method):
        small = self.changes(3)
        small[0] *= 3
        base = torch.zeros_like(small[0])
        merged = {}
        for factor in (1.0, 1e6):
            models = [{"w": each * factor} for each in small]
            merged[factor] = metanet.merge(models, method, base={"w": base})["w"] / factor
        assert torch.allclose(merged[1.0], merged[1e6], rtol=1e-9, atol=0)

    @pytest.mark.parametrize("method", ["slerp", "karcher", "multislerp"])
    def test_small_tensors_are_merged_like_large_ones(self, method):
        models = self.changes(2)
        small, large = (
            metanet.merge([{"w": m * f} for m in models], method)["w"] / f for f in (1e-6, 1.0)
        )
        assert torch.allclose(small, large, rtol=1e-9, atol=0)

    @pytest.mark.parametrize("method", ["slerp", "nuslerp", "multislerp", "karcher", "linear"])
    def test_zeros_stay_zeros(self, method):
        count = 2 if METHODS[method].models[1] == 2 else 3
        zeros = {"w": torch.zeros(4)}
        assert torch.equal(metanet.merge([zeros] * count, method)["w"], zeros["w"])

    def test_an_unchanged_tensor_is_the_base(self):
        base = {"w": torch.randn(4, generator=torch.Generator().manual_seed(0))}
        assert torch.equal(metanet.merge([base] * 3, "multislerp", base=base)["w"], base["w"])

    def test_filters_of_kernels_are_output_channels(self):
        """Each channel is merged as if it were alone."""
        models, base = self.changes(3, (2, 3, 3, 3)), torch.zeros(2, 3, 3, 3, dtype=torch.float64)
        whole = metanet.merge(
            [{"w": m} for m in models], "model_stock", base={"w": base}, filter_wise=True
        )["w"]
        for k in range(2):
            alone = metanet.merge(
                [{"w": m[k]} for m in models], "model_stock", base={"w": base[k]}
            )["w"]
            assert torch.allclose(whole[k], alone, rtol=1e-9, atol=0)

    @pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
    def test_what_is_dropped_is_a_matter_of_seed_and_name(self, method):
        """Not of the other tensors, nor of the order they are asked for."""
        a, b, c, d = ({"w": m, "v": m * 2} for m in self.changes(4))
        both = metanet.merge([a, b, c], method, base=d, density=0.5)
        first = both["v"], both["w"]
        alone = metanet.merge(
            [{"w": m["w"]} for m in (a, b, c)], method, base={"w": d["w"]}, density=0.5
        )
        assert torch.equal(alone["w"], first[1])
        assert torch.equal(both["v"], first[0])
        other = metanet.merge([a, b, c], method, base=d, density=0.5, seed=1)
        assert not torch.equal(other["w"], first[1])

    def test_equal_variances_are_selected_from_the_front(self):
        models = [{"w": torch.full((10,), sign)} for sign in (1.0, 3.0)]
        merged = metanet.merge(models, "sce", base={"w": torch.zeros(10)}, select_topk=0.3)["w"]
        assert merged.tolist() == pytest.approx([2.8] * 3 + [0.0] * 7)
