"""Methods on task vectors: each against a plain reference, and the properties that make it what it
is."""

import numpy as np
import pytest
import torch

import metanet
from metanet.errors import MetanetError
from metanet.merging import METHODS, Part
from metanet.merging.task_vectors import _ranking, _vector

SUMMED = ("task_arithmetic", "dare_linear", "della_linear", "breadcrumbs")
ELECTED = ("ties", "dare_ties", "della", "breadcrumbs_ties")
RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
SHAPES = [(), (1,), (0,), (5,), (0, 3), (12, 7), (6, 4, 3, 3)]


def make_part(shape, models=3, seed=0, dtype=torch.float32, name="w"):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=dtype)
    moved = [
        base + 0.1 * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(models)
    ]
    return Part(name, tuple(moved), base, seed=seed)


def run(method, part, **options):
    """A method's function, options as the engine gives them: a list where models have their own."""
    found = METHODS[method]
    given = {**found.options, **options}
    models = len(part.tensors)
    lists = {
        k: v if isinstance(v, list) else [v] * models
        for k, v in given.items()
        if k in found.per_model
    }
    return found.function(part, **{**given, **lists})


def trimmed(delta, first, last):
    """The entries from rank ``first`` to before ``last`` by falling magnitude, equal ones in their
    order."""
    order = torch.sort(delta.flatten().abs(), descending=True, stable=True).indices[first:last]
    out = torch.zeros_like(delta).flatten()
    out[order] = delta.flatten()[order]
    return out.view_as(delta)


def merged(base, deltas, weights, elect=None, normalize=False, scale=1.0):
    """Sum or election, entry by entry as the paper tells it."""
    shares = torch.tensor(weights, dtype=base.dtype).view(-1, *[1] * base.ndim)
    moved = torch.stack(deltas) * shares
    wins = torch.ones_like(moved, dtype=torch.bool)
    if elect is not None:
        votes = (moved if elect == "sum" else moved.sign()).sum(0)
        wins = moved.sign() == torch.where(votes >= 0, 1.0, -1.0)
    total = (shares * wins).sum(0)
    divisor = torch.where(total.abs() < 1e-8, torch.ones_like(total), total) if normalize else 1.0
    return base + scale * (moved * wins).sum(0) / divisor


def expected(method, part, weights, density, gamma, normalize, scale, elect):
    deltas = []
    for delta, share, outliers in zip(part.deltas, density, gamma, strict=True):
        size = delta.numel()
        if method == "ties":
            delta = trimmed(delta, 0, max(1, int(share * size)))
        elif method.startswith("breadcrumbs"):
            top = min(int(outliers * size), size - int(share * size))
            delta = trimmed(delta, top, top + int(share * size))
        deltas.append(delta)
    return merged(part.base, deltas, weights, elect, normalize, scale)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties"])
def test_methods_without_chance_equal_the_plain_reference(method, shape, monkeypatch):
    monkeypatch.setattr(_vector, "CHUNK", 64)
    weights, density, gamma = [0.5, 1.0, 0.8], [0.6, 0.3, 1.0], [0.05, 0.2, 0.1]
    options = {
        name: value
        for name, value in {"density": density, "gamma": gamma}.items()
        if name in METHODS[method].options
    }
    for elect in ("sum", "count") if method in ELECTED else (None,):
        for normalize in (True, False):
            for scale in (1.0, 0.7):
                part = make_part(shape)
                more = options if elect is None else {**options, "consensus": elect}
                got = run(method, part, weights=weights, normalize=normalize, scale=scale, **more)
                want = expected(method, part, weights, density, gamma, normalize, scale, elect)
                torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.untyped
@pytest.mark.parametrize("method", [*SUMMED, *ELECTED])
def test_options_of_bad_values(method):
    part = make_part((4, 4))
    with pytest.raises(MetanetError, match="no base"):
        run(method, Part("w", part.tensors))
    if "density" in METHODS[method].options:
        for density in (-0.1, 1.1):
            with pytest.raises(
                MetanetError, match=f"density={density}: give a share of the entries, 0 to 1"
            ):
                run(method, part, density=density)
        with pytest.raises(MetanetError, match="rescale='l2': give true, false"):
            run(method, part, density=0.5, rescale="l2")
    if method in ELECTED:
        with pytest.raises(MetanetError, match="consensus='most': give one of sum, count"):
            run(method, part, consensus="most")


def test_epsilon_must_leave_probabilities():
    with pytest.raises(
        MetanetError, match=r"density=0.9 and epsilon=0.15 make probabilities of 0.75 to 1.05"
    ):
        run("della", make_part((4, 4)), density=0.9)


def test_gamma_is_a_share():
    with pytest.raises(MetanetError, match="gamma=2: give a share"):
        run("breadcrumbs", make_part((4, 4)), density=0.5, gamma=2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", [*SUMMED, *ELECTED])
def test_models_that_equal_the_base_leave_it_bit_for_bit(method, shape):
    base = make_part(shape).base
    base = torch.where(base > 0.5, torch.zeros_like(base), base)
    base = torch.where(base < -0.5, -torch.zeros_like(base), base)
    options = {} if method == "task_arithmetic" else {"density": 0.5}
    got = run(method, Part("w", (base.clone(), base.clone()), base), weights=[0.3, 0.9], **options)
    assert torch.equal(got.view(torch.int32), base.view(torch.int32))


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m in (*SUMMED, *ELECTED) and "density" in METHODS[m].options]
)
def test_density_0_takes_the_base_and_density_1_everything(method):
    part = make_part((12, 7))
    assert torch.equal(run(method, part, density=0.0), part.base)
    elect = "sum" if method in ELECTED else None
    want = merged(part.base, part.deltas, [1.0] * 3, elect, METHODS[method].options["normalize"])
    torch.testing.assert_close(run(method, part, density=1.0), want, rtol=0, atol=1e-6)
    # A model of which nothing is kept has no vote, either.
    some = run(method, part, density=[1.0, 0.0, 1.0])
    zero = (part.deltas[0], torch.zeros_like(part.base), part.deltas[2])
    want = merged(part.base, zero, [1.0] * 3, elect, METHODS[method].options["normalize"])
    torch.testing.assert_close(some, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [*SUMMED, *ELECTED])
def test_float64_stays_and_inputs_are_left_alone(method):
    part = make_part((12, 7), dtype=torch.float64)
    before = [t.clone() for t in (*part.tensors, part.base)]
    got = run(method, part, **({} if method == "task_arithmetic" else {"density": 0.5}))
    assert got.dtype is torch.float64
    assert all(torch.equal(x, y) for x, y in zip(before, (*part.tensors, part.base), strict=True))
    if method not in RANDOM:
        options = {} if method == "task_arithmetic" else {"density": [0.5] * 3}
        want = expected(
            method, part, [1.0] * 3, options.get("density", [1.0] * 3), [0.01] * 3,
            METHODS[method].options["normalize"], 1.0, "sum" if method in ELECTED else None,
        )  # fmt: skip
        torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


def test_signs_are_elected():
    base = torch.zeros(5)
    moved = torch.tensor(
        [[3.0, 1.0, 1.0, 0.0, -2.0], [-1.0, 1.0, -1.0, 0.0, -2.0], [-1.0, -3.0, 0.0, 0.0, 1.0]]
    )
    part = Part("w", tuple(moved), base)
    # Sums: 1, -1, 0 (plus wins), 0, -3; the average of those that have the sign of it.
    assert run("ties", part).tolist() == [3.0, -3.0, 1.0, 0.0, -2.0]
    # Counts of signs: -1, 1, 0, 0, -1.
    assert run("ties", part, consensus="count").tolist() == [-1.0, 1.0, 1.0, 0.0, -2.0]
    assert run("ties", part, normalize=False).tolist() == [3.0, -3.0, 1.0, 0.0, -4.0]
    # A negative weight turns a model's vote.
    assert run("ties", part, weights=[1.0, -1.0, 1.0], normalize=False).tolist() == [
        4.0,
        -4.0,
        2.0,
        0.0,
        3.0,
    ]


def test_weights_of_sum_0_are_not_divided_by():
    part = make_part((4, 4), models=2)
    got = run("task_arithmetic", part, weights=[1.0, -1.0], normalize=True)
    torch.testing.assert_close(got, part.base + part.deltas[0] - part.deltas[1], rtol=0, atol=1e-6)
    opposite = Part("w", (torch.tensor([1.0]), torch.tensor([-2.0])), torch.zeros(1))
    assert run("ties", opposite, weights=[1.0, -1.0]).tolist() == [3.0]


@pytest.mark.parametrize(
    "kind", ["normal", "few values", "half zero", "one value", "zero", "coarse"]
)
@pytest.mark.parametrize("share", [1e-4, 0.1, 0.5, 0.75, 0.999])
def test_the_edge_is_exact_in_large_tensors(kind, share, monkeypatch):
    monkeypatch.setattr(_vector, "CHUNK", 1000)
    monkeypatch.setattr(_ranking, "CHUNK", 1000)
    monkeypatch.setattr(_ranking, "_SAMPLE", 500)
    delta = torch.randn(20_011, generator=torch.Generator().manual_seed(1))
    delta = {
        "normal": delta, "few values": delta.round(), "half zero": delta * (delta > 0),
        "one value": delta.sign(), "zero": delta * 0, "coarse": delta.bfloat16().float(),
    }[kind]  # fmt: skip
    count = int(share * len(delta))
    vector = _vector.TaskVector(delta, torch.zeros_like(delta))
    edge = _ranking.edge_below(vector, count)
    kept = torch.cat([edge.above(delta[a:b].clone(), a) for a, b in _vector.chunks(delta)])
    assert torch.equal(kept, trimmed(delta, 0, count))
    assert torch.count_nonzero(kept) == min(count, torch.count_nonzero(delta))


def test_an_unlucky_sample_only_costs_time(monkeypatch):
    monkeypatch.setattr(_ranking, "CHUNK", 100)
    monkeypatch.setattr(_ranking, "_bracket", lambda *_: (5.0, 6.0))
    delta = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    edge = _ranking.edge_below(_vector.TaskVector(delta, torch.zeros_like(delta)), 300)
    assert torch.equal(edge.above(delta.clone(), 0), trimmed(delta, 0, 300))


def test_breadcrumbs_drops_both_ends():
    moved = torch.tensor([0.125, -5.0, 2.0, -0.25, 3.0, 1.0, -0.375, 0.5, 4.0, -1.5])
    part = Part("w", (moved,), torch.zeros(10))
    assert run("breadcrumbs", part, density=0.5, gamma=0.2).tolist() == [
        0,
        0,
        2.0,
        0,
        3.0,
        1.0,
        0,
        0.5,
        0,
        -1.5,
    ]
    # No more outliers are dropped than the density leaves to drop.
    assert run("breadcrumbs", part, density=0.9, gamma=0.5).tolist() == [
        0 if x == -5.0 else x for x in moved.tolist()
    ]
    kept = run("breadcrumbs", part, density=0.5, gamma=0.2, rescale=True)
    assert float(kept.abs().sum()) == pytest.approx(float(moved.abs().sum()), rel=1e-6)


def test_rescaled_changes_have_the_norm_of_all():
    for method in ("ties", "breadcrumbs_ties", "dare_linear", "della"):
        part = make_part((40, 30), models=1)
        change = run(method, part, density=0.4, rescale=True) - part.base
        assert float(change.abs().sum()) == pytest.approx(
            float(part.deltas[0].abs().sum()), rel=1e-4
        )
        assert 0.2 < torch.count_nonzero(change.abs() > 1e-6) / change.numel() < 0.6


def draws(method, part, seeds, **options):
    """Changes for many seeds, ``(seeds, *shape)``."""
    parts = [Part(part.name, part.tensors, part.base, seed=seed) for seed in range(seeds)]
    return torch.stack([run(method, each, **options) - part.base for each in parts])


def test_dare_keeps_with_its_density_and_is_unbiased():
    part = Part("w", (torch.arange(1.0, 61.0).reshape(6, 10),), torch.zeros(6, 10))
    changes = draws("dare_linear", part, 1500, density=0.3, rescale="probability")
    kept = (changes != 0).double()
    error = (0.3 * 0.7 / 1500) ** 0.5
    assert float((kept.mean(0) - 0.3).abs().max()) < 4.5 * error
    assert float((kept.mean() - 0.3).abs()) < 4 * error / 60**0.5
    values = changes[changes != 0] / part.tensors[0].expand_as(changes)[changes != 0]
    torch.testing.assert_close(values, torch.full_like(values, 1 / 0.3))
    # Entries are drawn independently.
    noise = (kept - kept.mean(0)).flatten(1)
    correlation = noise.T @ noise / 1500 / (0.3 * 0.7)
    assert float((correlation - torch.eye(60)).abs().max()) < 0.16


@pytest.mark.parametrize("rescale", [False, "probability"])
def test_della_keeps_by_rank_in_each_row(rescale):
    magnitudes = torch.stack(
        [torch.randperm(9, generator=torch.Generator().manual_seed(k)) + 1.0 for k in range(4)]
    )
    signs = torch.where(torch.arange(36).reshape(4, 9) % 3 == 0, -1.0, 1.0)
    part = Part("w", (magnitudes * signs,), torch.zeros(4, 9))
    changes = draws("della_linear", part, 1500, density=0.5, epsilon=0.3, rescale=rescale)
    wanted = 0.2 + 0.6 * (magnitudes - 1) / 8
    error = (0.25 / 1500) ** 0.5
    assert float(((changes != 0).double().mean(0) - wanted).abs().max()) < 4.5 * error
    if rescale:
        kept = changes.abs().amax(0)
        torch.testing.assert_close(kept, magnitudes / wanted)


def test_della_ranks_the_weights_of_one_neuron():
    magnitudes = torch.arange(1.0, 25.0).reshape(2, 3, 2, 2)
    part = Part("w", (magnitudes,), torch.zeros(2, 3, 2, 2))
    kept = (
        (draws("della", part, 800, density=0.5, epsilon=0.4, rescale=False) != 0).double().mean(0)
    )
    wanted = (0.1 + 0.8 * torch.arange(12) / 11).repeat(2).view(2, 3, 2, 2)
    assert float((kept - wanted).abs().max()) < 0.08
    vector = Part("w", (torch.arange(1.0, 13.0),), torch.zeros(12))
    kept = (
        (draws("della", vector, 800, density=0.5, epsilon=0.4, rescale=False) != 0).double().mean(0)
    )
    assert float((kept - wanted[0].flatten()).abs().max()) < 0.08


@pytest.mark.parametrize("method", RANDOM)
def test_chance_is_a_matter_of_seed_name_and_model(method):
    part = make_part((40, 30), models=2)
    options = {"density": 0.5, "weights": [1.0, 0.5]}
    first = run(method, part, **options)
    assert torch.equal(first, run(method, part, **options))
    for other in (Part("w", part.tensors, part.base, seed=1), Part("v", part.tensors, part.base)):
        assert not torch.equal(first, run(method, other, **options))
    # Equal models lose different entries.
    same = Part("w", (part.tensors[0],) * 2, part.base)
    alone = [
        run(method, same, **{**options, "weights": w}) != part.base
        for w in ([1.0, 0.0], [0.0, 1.0])
    ]
    assert not torch.equal(*alone)
    # A model draws what it draws, whoever else takes part.
    second = Part("w", (part.tensors[1],), part.base, numbers=(1,))
    both = run(method, part, density=0.5, weights=[0.0, 1.0], normalize=False)
    torch.testing.assert_close(
        run(method, second, density=0.5, normalize=False), both, rtol=0, atol=1e-6
    )


def test_draws_do_not_depend_on_the_dtype():
    narrow = make_part((40, 30), models=1)
    wide = Part("w", tuple(t.double() for t in narrow.tensors), narrow.base.double())
    for method in RANDOM:
        kept = [run(method, part, density=0.5) != part.base for part in (narrow, wide)]
        assert torch.equal(*kept)


def test_density_by_model_and_depth_through_merge():
    generator = torch.Generator().manual_seed(0)
    base = {f"layers.{k}.weight": torch.randn(10, 10, generator=generator) for k in range(3)}
    models = [
        {n: t + torch.randn(10, 10, generator=generator) for n, t in base.items()} for _ in range(2)
    ]
    density = [{"gradient": [0.2, 1.0]}, 0.0]
    out = metanet.merge(models, "ties", base=base, density=density, normalize=False)
    changed = [
        int(torch.count_nonzero(out[f"layers.{k}.weight"] - base[f"layers.{k}.weight"]))
        for k in range(3)
    ]
    assert changed == [20, 60, 100]


def test_nan_is_found_where_it_is_dropped_or_not():
    base = {"w": torch.zeros(100)}
    bad = {"w": torch.full((100,), 1.0)}
    bad["w"][7] = np.nan
    for method in (*SUMMED, *ELECTED):
        options = {} if method == "task_arithmetic" else {"density": 0.5}
        with pytest.raises(MetanetError, match="NaN"):
            metanet.merge([bad, base], method, base=base, **options)["w"]
