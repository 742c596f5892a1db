"""Methods that see tensors as vectors, and those that choose elements: closed forms, and the pieces
they share."""

import math

import pytest
import torch

import metanet
from metanet.errors import MetanetError
from metanet.merging.methods import _sphere
from metanet.merging.methods._select import largest

A, B, C, BASE = (
    torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(4)
)  # fmt: skip
E1, E2, E3 = torch.eye(3, dtype=torch.float64)


def merged(method, *tensors, base=None, **options):
    base = None if base is None else {"w": base}
    return metanet.merge([{"w": t} for t in tensors], method, base=base, **options)["w"]


class TestPieces:
    @pytest.mark.parametrize("chunk", [1, 4, 35, 1000])
    def test_inner_products(self, chunk, monkeypatch):
        monkeypatch.setattr(_sphere, "_CHUNK", chunk)
        found = _sphere.gram([A, B, C])
        rows = _sphere.gram_of_rows([A, B, C])
        for i, x in enumerate((A, B, C)):
            for j, y in enumerate((A, B, C)):
                torch.testing.assert_close(found[i, j], (x * y).sum())
                torch.testing.assert_close(rows[:, i, j], (x * y).sum(1))

    def test_long_float32_tensors_are_summed_in_float64(self):
        x = torch.full((3_000_000,), 0.1)
        exact = 3_000_000 * float(x[0]) ** 2
        assert abs(float(_sphere.gram([x])) / exact - 1) < 1e-12

    @pytest.mark.parametrize("count", range(9))
    def test_exactly_as_many_as_wanted_the_first_of_equals(self, count):
        values = torch.tensor([[3.0, 1.0, 2.0, 2.0], [2.0, 0.0, 2.0, 5.0]])
        order = [7, 0, 2, 3, 4, 6, 1, 5]  # by size, then by place
        assert largest(values, count).flatten().nonzero().flatten().tolist() == sorted(
            order[:count]
        )


class TestArcs:
    def test_slerp_turns_evenly_and_keeps_the_length(self):
        for t in (0.0, 0.2, 0.5, 1.0):
            expected = math.cos(t * math.pi / 2) * E1 + math.sin(t * math.pi / 2) * E2
            torch.testing.assert_close(merged("slerp", E1, E2, t=t), expected)

    def test_slerp_of_nearly_parallel_tensors_is_straight(self):
        near = A + 0.001 * B
        assert torch.equal(merged("slerp", A, near, t=0.25), A + 0.25 * (near - A))
        assert torch.equal(merged("slerp", A, -A, t=0.5), torch.zeros_like(A))

    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_nuslerp_by_vectors_is_slerp_of_each(self, dim):
        whole = merged("nuslerp", A, B, weights=[0.75, 0.25], flatten=False, dim=dim)
        for found, a, b in zip(*(t.movedim(dim, 0).unbind(1) for t in (whole, A, B)), strict=True):
            torch.testing.assert_close(found, merged("slerp", a, b, t=0.25))

    def test_nuslerp_of_changes(self):
        found = merged("nuslerp", A, B, base=BASE, weights=[1.0, 3.0])
        torch.testing.assert_close(found, BASE + merged("slerp", A - BASE, B - BASE, t=0.75))

    def test_equal_rows_stay(self):
        other = torch.cat([A[:3], B[3:]])
        assert torch.equal(merged("nuslerp", A, other, flatten=False)[:3], A[:3])

    def test_two_models_on_a_sphere(self):
        """All three agree there, halfway."""
        a, b = A / A.norm(), B / B.norm()
        for method in ("karcher", "multislerp", "nuslerp"):
            torch.testing.assert_close(merged(method, a, b), merged("slerp", a, b))

    def test_karcher_is_where_the_arcs_to_all_models_balance(self):
        weights = [0.5, 0.3, 0.9]
        mean = merged("karcher", A, B, C, weights=weights, max_iter=100, tol=1e-12)
        length = sum(w * t.norm() for w, t in zip(weights, (A, B, C), strict=True)) / sum(weights)
        torch.testing.assert_close(mean.norm(), length)
        mean = mean / mean.norm()
        pull = 0
        for weight, tensor in zip(weights, (A, B, C), strict=True):
            unit = tensor / tensor.norm()
            cosine = (unit * mean).sum()
            across = unit - cosine * mean
            pull = pull + weight * cosine.acos() * across / across.norm()
        assert pull.norm() < 1e-9

    def test_karcher_by_weights_is_slerp_for_two(self):
        a, b = A / A.norm(), B / B.norm()
        mean = merged("karcher", a, b, weights=[0.7, 0.3], max_iter=100, tol=1e-12)
        torch.testing.assert_close(mean, merged("slerp", a, b, t=0.3))

    def test_directions_that_cancel_out(self):
        assert torch.equal(merged("multislerp", A, -A), torch.zeros_like(A))
        around = [E1, -0.5 * E1 + math.sqrt(0.75) * E2, -0.5 * E1 - math.sqrt(0.75) * E2]
        with pytest.raises(MetanetError, match="w: the directions of the models cancel out"):
            merged("multislerp", *around)

    @pytest.mark.parametrize("method", ["multislerp", "karcher", "nuslerp"])
    def test_weights_that_cancel_out(self, method):
        with pytest.raises(
            MetanetError, match=rf"'{method}': the weights \[1.0, -1.0\] have the sum 0"
        ):
            merged(method, A, B, weights=[1.0, -1.0])

    def test_an_axis_that_is_not_there(self):
        with pytest.raises(MetanetError, match="there is no axis dim=2 in a tensor of 2 axes"):
            merged("nuslerp", A, B, flatten=False, dim=2)


class TestBases:
    @pytest.mark.parametrize("count", [2, 3, 4])
    def test_model_stock_of_changes_at_equal_angles(self, count):
        """Noise around a common centre: the formula gives the point nearest to it."""
        units = torch.eye(count + 1, dtype=torch.float64)
        models = [units[0] + units[k + 1] for k in range(count)]  # every two at 60 degrees
        expected = (count / (count + 1)) * sum(models) / count
        torch.testing.assert_close(
            merged("model_stock", *models, base=torch.zeros_like(models[0])), expected
        )

    def test_model_stock_of_unrelated_changes_is_the_base(self):
        models = [BASE[:3, :3] + torch.outer(E1, e) for e in (E1, E2, E3)]
        assert torch.equal(merged("model_stock", *models, base=BASE[:3, :3]), BASE[:3, :3])
        opposed = [BASE + A, BASE - A]
        torch.testing.assert_close(merged("model_stock", *opposed, base=BASE), BASE)

    def test_sce_by_hand(self):
        zero = torch.zeros(4)
        one, other = torch.tensor([1.0, 2.0, -1.0, 0.0]), torch.tensor([3.0, -1.0, -1.0, 0.5])
        # Squares 6 and 11.25; the second element elects +, where the other model disagrees.
        share, rest = 6 / 17.25, 11.25 / 17.25
        found = merged("sce", one, other, base=zero)
        torch.testing.assert_close(found, torch.tensor([share + 3 * rest, 2.0, -1.0, 0.5]))
        # Variances 1, 2.25, 0, 1/16: half of the three that vary is one.
        torch.testing.assert_close(
            merged("sce", one, other, base=zero, select_topk=0.5), torch.tensor([0, 2.0, 0, 0])
        )

    def test_nearswap_by_hand(self):
        base, model = torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([0.3, 0.05, -2.0, 1.1])
        assert merged("nearswap", model, base=base, t=0.1).tolist() == pytest.approx(
            [0.1, 0.05, -0.1, 1.1]
        )

    def test_arcee_fusion_keeps_what_stands_out(self):
        model = BASE.clone()
        model[2, 3] += 1.0
        model[4] += 1e-6
        found = merged("arcee_fusion", model, base=BASE)
        assert found[2, 3] == model[2, 3]
        assert torch.equal(found[4], BASE[4])
        assert (found != BASE).sum() == 1

    def test_ram_by_hand(self):
        base, one, other = (
            torch.ones(3),
            torch.tensor([2.0, 3.0, 1.0]),
            torch.tensor([4.0, 1.0, 1.0]),
        )
        assert merged("ram", one, other, base=base).tolist() == [3.0, 3.0, 1.0]
        # The first model shares one change and has one alone: 1 + 0.5 * min(1, 0.2).
        found = merged("ramplus_tl", one, other, base=base, r=0.5, alpha=0.2)
        assert found.tolist() == pytest.approx([3.0, 1 + 2 * 1.1, 1.0])

    def test_passthrough_scales_each_model(self):
        assert torch.equal(merged("passthrough", A, scale=0.5), A / 2)
        with pytest.raises(
            MetanetError,
            match=r"w: method 'passthrough' takes a tensor from one model, 2 take part",
        ):
            merged("passthrough", A, B)
