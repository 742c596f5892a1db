"""merge: inputs of every form, options by name and depth, slices, dtypes, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.merging import METHODS

NAMES = (
    "embed.weight",
    *(f"layers.{k}.{part}.weight" for k in range(5) for part in ("attn", "mlp")),
    "norm.weight",
)


def weights(seed, dtype=torch.float32, names=NAMES, shape=(4, 3)):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name in names}


A, B, BASE = weights(1), weights(2), weights(3)


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


class TestInputs:
    def test_paths_folders_modules_and_mappings(self, tmp_path):
        one, other = nn.Linear(3, 2), nn.Linear(3, 2)
        save_file(one.state_dict(), tmp_path / "one.safetensors")
        (tmp_path / "folder").mkdir()
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in other.state_dict().items()}},
            tmp_path / "folder/x.ckpt",
        )
        expected = {k: (v + other.state_dict()[k]) / 2 for k, v in one.state_dict().items()}
        for pair in [
            (one, other),
            (tmp_path / "one.safetensors", tmp_path / "folder"),
            (one.state_dict(), other),
        ]:
            merged = metanet.merge(pair)
            assert set(merged) == set(expected)
            for name, value in expected.items():
                torch.testing.assert_close(merged[name], value)

    def test_the_result_loads_and_saves_like_any_checkpoint(self, tmp_path):
        one, other, out = (nn.Linear(3, 2) for _ in range(3))
        merged = metanet.merge([one, other])
        out.load_state_dict(merged)
        metanet.save_checkpoint(tmp_path / "m.safetensors", merged)
        assert equal(metanet.load_checkpoint(tmp_path / "m.safetensors"), dict(merged))
        assert torch.equal(out.weight, merged["weight"])

    def test_names_are_brought_together(self):
        wrapped = {f"model.{name}": tensor for name, tensor in B.items()}
        assert equal(metanet.merge([A, wrapped]), metanet.merge([A, B]))
        assert next(iter(metanet.merge([wrapped, A]))) == "model.embed.weight"

    def test_names_of_the_network_where_there_is_one(self):
        net = nn.Sequential(nn.Linear(2, 2))
        wrapped = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
        assert list(metanet.merge([wrapped, wrapped], model=net)) == ["0.weight", "0.bias"]

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({**A, "extra.weight": torch.ones(2)}, "unexpected  extra.weight"),
            ({k: v for k, v in A.items() if k != "norm.weight"}, "missing     norm.weight"),
            (
                {**A, "norm.weight": torch.ones(5, 3)},
                r"shape       norm.weight is \(5, 3\), expected \(4, 3\)",
            ),
            ({**A, "norm.weight": torch.ones(4, 3).int()}, "dtype       norm.weight"),
        ],
    )
    def test_other_architectures_are_refused(self, other, message):
        with pytest.raises(CheckpointError, match=f"not of one architecture(.|\n)*{message}"):
            metanet.merge([A, other])

    def test_other_vocabularies_are_explained(self):
        with pytest.raises(
            CheckpointError, match=r"vocabularies differ \(4 and 6 rows in embed.weight\): resize"
        ):
            metanet.merge([A, {**A, "embed.weight": torch.ones(6, 3)}])

    def test_what_one_model_has_alone_can_be_taken_from_it(self):
        one = {**A, "head.weight": torch.ones(2, 3)}
        other = {
            **B,
            "head.weight": torch.ones(5, 3, dtype=torch.float64),
            "head.bias": torch.ones(5),
        }
        with pytest.raises(CheckpointError, match="head.bias"):
            metanet.merge([one, other])
        merged = metanet.merge([one, other], overrides={"head.*": {"take": 1}})
        assert list(merged) == [*NAMES, "head.weight", "head.bias"]
        assert torch.equal(merged["head.weight"], other["head.weight"])
        assert merged.dtypes["head.weight"] is torch.float64
        assert merged.shapes["head.weight"] == (5, 3)
        torch.testing.assert_close(merged["norm.weight"], (A["norm.weight"] + B["norm.weight"]) / 2)
        assert list(metanet.merge([one, other], overrides={"head.*": {"take": 0}})) == [
            *NAMES,
            "head.weight",
        ]
        smaller = {**A, "embed.weight": torch.ones(6, 3)}
        merged = metanet.merge([A, smaller], overrides={"embed*": {"take": 1}})
        assert torch.equal(merged["embed.weight"], smaller["embed.weight"])

    def test_nan_is_found_and_its_checkpoint_named(self, tmp_path):
        save_file(
            {**B, "norm.weight": torch.full((4, 3), torch.nan)}, tmp_path / "broken.safetensors"
        )
        merged = metanet.merge([A, tmp_path / "broken.safetensors"])
        merged["embed.weight"]
        with pytest.raises(CheckpointError, match="broken.safetensors': norm.weight has NaN"):
            merged["norm.weight"]

    def test_nan_of_the_base(self):
        good, bad = {"w": torch.zeros(3)}, {"w": torch.full((3,), torch.nan)}
        with pytest.raises(CheckpointError, match="'the base': w has NaN"):
            metanet.merge([good, good], "task_arithmetic", base=bad)["w"]

    def test_mixed_dtypes_are_one_in_every_method(self):
        net = nn.Linear(3, 2)
        one, other = net.state_dict(), {k: v.double() * 1.1 for k, v in net.state_dict().items()}
        data = [(torch.randn(8, 3), torch.randint(2, (8,)))]
        for method, more in (
            ("greedy_soup", {}),
            ("bcwi", {"base": other}),
            ("fisher", {}),
            ("linear", {}),
        ):
            merged = metanet.merge(
                [one] if more else [one, other], method, model=net, data=data, **more
            )
            assert all(torch.isfinite(t).all() for t in merged.values())

    def test_large_values_are_no_infinite_ones(self):
        large = {"w": torch.full((4,), 3e38)}
        assert torch.equal(metanet.merge([large, large])["w"], large["w"])

    @pytest.mark.untyped
    @pytest.mark.parametrize("models", [A, "a.safetensors", [], nn.Linear(1, 1)])
    def test_a_list_is_asked_for(self, models):
        with pytest.raises(MetanetError, match=r"takes a list of models"):
            metanet.merge(models)

    def test_inputs_are_left_alone(self):
        before = {name: tensor.clone() for name, tensor in A.items()}
        dict(metanet.merge([A, B], weights=[0.0, 1.0]))
        assert equal(A, before)


HEAD = {"lm_head.weight": A["embed.weight"].clone()}


class TestHeads:
    def test_a_head_that_repeats_the_embedding_is_left_out_where_others_tie_it(self):
        for pair in ([{**A, **HEAD}, B], [B, {**A, **HEAD}]):
            merged = metanet.merge(pair)
            assert "lm_head.weight" not in merged
            assert any("lm_head.weight" in key for key in merged.report)

    def test_one_with_values_of_its_own_is_an_error(self):
        with pytest.raises(
            CheckpointError, match=r"Only one of them stores lm_head.weight, with values other than"
        ):
            metanet.merge([{**A, "lm_head.weight": torch.ones(4, 3)}, B])

    def test_tied_tensors_stay_equal_under_random_methods(self):
        both = [{**m, "lm_head.weight": m["embed.weight"].clone()} for m in (A, B, BASE)]
        merged = metanet.merge(both[:2], "dare_linear", base=both[2], density=0.5)
        assert torch.equal(merged["lm_head.weight"], merged["embed.weight"])
        net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
        net[1].weight = net[0].weight
        states = [
            {"0.weight": m["embed.weight"], "1.weight": m["embed.weight"]} for m in (A, B, BASE)
        ]
        merged = metanet.merge(states[:2], "dare_linear", base=states[2], density=0.5, model=net)
        assert torch.equal(merged["0.weight"], merged["1.weight"])
        assert not torch.equal(merged["0.weight"], metanet.merge([A, B], "linear")["embed.weight"])


class TestIntegers:
    def test_counters_are_the_first_ones_and_equal_tables_stay(self):
        table = torch.arange(6)
        one = {"w": torch.zeros(2), "table": table, "num_batches_tracked": torch.tensor(3)}
        other = {"w": torch.ones(2), "table": table, "num_batches_tracked": torch.tensor(5)}
        merged = metanet.merge([one, other])
        assert merged["num_batches_tracked"] == 3
        assert torch.equal(merged["table"], table)
        assert torch.equal(merged["w"], torch.full((2,), 0.5))

    def test_tables_that_differ_are_refused_and_may_be_taken(self):
        one, other = ({"w": torch.zeros(2), "q": torch.tensor([k, 2])} for k in (0, 1))
        with pytest.raises(CheckpointError, match=r"q holds integers .* quantised"):
            metanet.merge([one, other])["q"]
        assert torch.equal(
            metanet.merge([one, other], overrides={"q": {"take": 1}})["q"], other["q"]
        )

    def test_a_missing_table_is_no_error(self):
        one = {"w": torch.zeros(2), "position_ids": torch.arange(3)}
        assert list(metanet.merge([one, {"w": torch.ones(2)}])) == ["w", "position_ids"]
        assert list(metanet.merge([{"w": torch.ones(2)}, one])) == ["w"]


class TestStatistics:
    """Running statistics of BatchNorm are no weights: pruned or enlarged changes may make a
    variance negative."""

    def networks(self):
        nets = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(3)]
        generator = torch.Generator().manual_seed(0)
        for net in nets:
            net[1].running_var.copy_(torch.rand(4, generator=generator) ** 4)
        return [net.state_dict() for net in nets]

    @pytest.mark.parametrize(
        "method", ["task_arithmetic", "ties", "dare_linear", "della", "breadcrumbs", "model_stock"]
    )
    def test_are_averaged_by_methods_about_changes(self, method):
        base, one, other = self.networks()
        weighted = {"weights": [1.0, 3.0]} if "weights" in METHODS[method].options else {}
        merged = metanet.merge([one, other], method, base=base, **weighted)
        share = 0.75 if weighted else 0.5
        for name in ("1.running_var", "1.running_mean"):
            assert torch.equal(merged[name], torch.lerp(one[name], other[name], share))
        assert not torch.allclose(
            merged["0.weight"], torch.lerp(one["0.weight"], other["0.weight"], share)
        )

    def test_weights_that_are_no_shares_count_alike(self):
        base, one, other = self.networks()
        merged = metanet.merge([one, other], "task_arithmetic", base=base, weights=[1.0, -1.0])
        assert torch.equal(
            merged["1.running_var"], torch.lerp(one["1.running_var"], other["1.running_var"], 0.5)
        )


class TestDtypes:
    @pytest.mark.parametrize(
        "dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn], ids=str
    )
    def test_dtypes_stay_and_are_computed_wide(self, dtype):
        one, other = weights(1, dtype), weights(2, dtype)
        merged = metanet.merge([one, other], weights=[0.3, 0.7])
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        for name, tensor in merged.items():
            exact = torch.lerp(one[name].to(wide), other[name].to(wide), 0.7)
            assert tensor.dtype is dtype
            assert torch.equal(tensor.to(wide), exact.to(dtype).to(wide))

    def test_out_dtype_and_dtype(self):
        merged = metanet.merge(
            [A, {k: v.double() for k, v in B.items()}], out_dtype="bfloat16", dtype="float64"
        )
        exact = (A["norm.weight"].double() + B["norm.weight"].double()) / 2
        assert torch.equal(merged["norm.weight"], exact.bfloat16())
        assert merged.dtypes["norm.weight"] is torch.bfloat16
        third = metanet.merge(
            [A, B, BASE], weights=[1.0, 2.0, 4.0], dtype="float64", out_dtype="float64"
        )
        exact = (
            sum(w * m["norm.weight"].double() for w, m in zip((1, 2, 4), (A, B, BASE), strict=True))
            / 7
        )
        torch.testing.assert_close(third["norm.weight"], exact, atol=1e-15, rtol=1e-15)
        for wrong in ({"dtype": "bfloat16"}, {"out_dtype": "int8"}):
            with pytest.raises(MetanetError, match="give one of float"):
                metanet.merge([A, B], **wrong)

    def test_complex_tensors(self):
        one, other = torch.randn(3, dtype=torch.complex64), torch.randn(3, dtype=torch.complex64)
        torch.testing.assert_close(
            metanet.merge([{"w": one}, {"w": other}])["w"], (one + other) / 2
        )


class TestOptions:
    def test_unknown_ones_list_the_choices(self):
        choices = ", ".join(sorted(METHODS))
        message = rf"no merge method 'liner'; did you mean 'linear'\? Choices: {choices}"
        with pytest.raises(MetanetError, match=message):
            metanet.merge([A, B], "liner")
        with pytest.raises(
            MetanetError,
            match=r"'linear' has no option weight. Its options: weights=1.0, normalize",
        ):
            metanet.merge([A, B], weight=1.0)

    @pytest.mark.untyped
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"weights": [1.0]}, "weights has 1 values for 2 models"),
            ({"weights": "much"}, "weights='much': give a number"),
            ({"weights": {"gradient": [1]}}, "a gradient is a list of two or more numbers"),
            ({"overrides": {"*.mpl.*": {"weights": 1.0}}}, r"no tensor is called like '\*.mpl.\*'"),
            ({"overrides": {"*": {"weigths": 1.0}}}, "no option weigths"),
            ({"overrides": {"*": 1.0}}, "expected option: value, got 1.0"),
            ({"overrides": {"*": {"take": 2}}}, "take=2; give 0 to 1"),
            ({"overrides": {"*": {"take": "base"}}}, "take='base'; give 0 to 1"),
            ({"base": BASE}, "no use for a base"),
            ({"repair": "bn"}, "bn_reset"),
        ],
    )
    def test_impossible_ones(self, given, message):
        with pytest.raises(MetanetError, match=message):
            metanet.merge([A, B], **given)

    def test_a_base_that_is_missing(self):
        with pytest.raises(MetanetError, match="give base="):
            metanet.merge([A, B], "task_arithmetic")

    def test_by_name_pattern_the_last_one_counts(self):
        overrides = {
            "*.mlp.*": {"weights": [1.0, 0.0]},
            "layers.4.*": {"weights": [0.0, 1.0]},
            "norm*": {"take": 1},
        }
        merged = metanet.merge([A, B], overrides=overrides)
        assert torch.equal(merged["layers.0.mlp.weight"], A["layers.0.mlp.weight"])
        assert torch.equal(merged["layers.4.mlp.weight"], B["layers.4.mlp.weight"])
        assert torch.equal(merged["norm.weight"], B["norm.weight"])
        assert torch.equal(
            merged["layers.0.attn.weight"],
            torch.lerp(*(m["layers.0.attn.weight"] for m in (A, B)), 0.5),
        )

    def test_gradients_follow_depth(self):
        share = {"gradient": [0.0, 1.0, 0.0]}
        merged = metanet.merge([A, B], normalize=False, weights=[0.0, share])
        for name, expected in [
            ("embed", 0.0),
            ("layers.1.attn", 0.5),
            ("layers.2.mlp", 1.0),
            ("norm", 0.0),
        ]:
            name = f"{name}.weight"
            torch.testing.assert_close(merged[name], expected * B[name])

    def test_stages_follow_one_another(self):
        names = [f"layer{stage}.{block}.weight" for stage in (1, 2) for block in range(2)]
        one, other = weights(1, names=names), weights(2, names=names)
        merged = metanet.merge(
            [one, other], normalize=False, weights=[0.0, {"gradient": [0.0, 3.0]}]
        )
        for k, name in enumerate(names):
            torch.testing.assert_close(merged[name], k * other[name])


class TestSlices:
    def test_layers_of_several_models_one_after_another(self):
        merged = metanet.merge([A, B], "passthrough", slices=[{0: (0, 3)}, {1: (2, 5)}])
        assert list(merged) == [
            "embed.weight", *(f"layers.{k}.{part}.weight" for k in range(6) for part in ("attn", "mlp")),
            "norm.weight"
        ]  # fmt: skip
        for name, (model, there) in {
            "embed.weight": (A, "embed.weight"), "norm.weight": (B, "norm.weight"),
            "layers.2.mlp.weight": (A, "layers.2.mlp.weight"),
            "layers.3.mlp.weight": (B, "layers.2.mlp.weight"),
            "layers.5.attn.weight": (B, "layers.4.attn.weight"),
        }.items():  # fmt: skip
            assert torch.equal(merged[name], model[there])

    def test_models_of_one_slice_are_merged_with_their_own_options(self):
        merged = metanet.merge(
            [A, B], weights=[1.0, 3.0], slices=[{0: (0, 1), 1: (1, 2)}, {1: (0, 1)}]
        )
        torch.testing.assert_close(
            merged["layers.0.mlp.weight"],
            0.25 * A["layers.0.mlp.weight"] + 0.75 * B["layers.1.mlp.weight"],
        )
        assert torch.equal(merged["layers.1.mlp.weight"], B["layers.0.mlp.weight"])

    @pytest.mark.parametrize(
        ("slices", "message"),
        [
            ([{0: (0, 6)}], "there is no layer 5; layers. has the layers 0 to 4"),
            ([{0: (2, 2)}], "1 or more"),
            ([{0: (0, 2), 1: (0, 1)}], "as many layers|same number"),
            ([{2: (0, 1)}], "there is no model 2; give 0 to 1"),
            ([{0: 3}], r"give \[first, behind the last\]"),
            ([(0, 1)], "expected model: "),
        ],
    )
    @pytest.mark.untyped
    def test_impossible_ones(self, slices, message):
        with pytest.raises(MetanetError, match=message):
            metanet.merge([A, B], slices=slices)

    def test_networks_without_numbered_layers(self):
        with pytest.raises(MetanetError, match="no name has a numbered layer"):
            metanet.merge([{"w": torch.ones(2)}] * 2, slices=[{0: (0, 1)}])


class TestLaziness:
    def test_nothing_is_read_before_it_is_asked_for(self):
        read = []

        def reading(name):
            read.append(name)
            return A[name]

        shapes, dtypes = {n: t.shape for n, t in A.items()}, {n: t.dtype for n, t in A.items()}
        lazy = metanet.checkpoints.Checkpoint(Path("lazy"), reading, shapes, dtypes)
        merged = metanet.merge([lazy, B])
        assert read == []
        merged["norm.weight"]
        assert read == ["norm.weight"]


class TestGoals:
    """Repairs go by what is in the result, not by what was given."""

    def networks(self):
        torch.manual_seed(0)
        return [nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]

    def test_the_end_of_an_arc_stays(self):
        one, other, net = self.networks()
        more = {
            "model": net,
            "data": [(torch.randn(32, 5), torch.randint(3, (32,)))],
            "repair": "repair",
        }
        for t, end in ((0.0, one), (1.0, other)):
            merged = metanet.merge([one, other], "slerp", t=t, **more)
            assert all(
                torch.equal(merged[name], tensor) for name, tensor in end.state_dict().items()
            )
        middle = metanet.merge([one, other], "slerp", **more)
        assert any(
            not torch.equal(t, middle[n]) for n, t in metanet.merge([one, other], "slerp").items()
        )

    def test_a_soup_of_one_stays(self):
        *models, net = self.networks()
        inputs = torch.randn(64, 5)
        data = [(inputs, models[1](inputs).argmax(1))]
        merged = metanet.merge(models, "greedy_soup", model=net, data=data, repair="repair")
        assert merged.report["models in the soup"] == "1"
        assert all(
            torch.equal(merged[name], tensor) for name, tensor in models[1].state_dict().items()
        )

    def test_the_old_network_is_no_goal(self):
        one, old, net = self.networks()
        data = [(torch.randn(32, 5), torch.randint(3, (32,)))]
        with pytest.raises(MetanetError, match="give bn_reset"):
            metanet.merge(
                [one], "bcwi", base=old, alpha=0.5, model=net, data=data, repair="rescale"
            )
