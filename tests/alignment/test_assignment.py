import sys
import types

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from metanet import MetanetError
from metanet.alignment import _assignment, assign
from metanet.alignment._assignment import Prices, total


def best(scores):
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return scores[rows, columns].sum(dtype=np.float64)


def problems(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(2, n, 3 * n)).astype(np.float32)
    yield "unrelated", a @ b.T
    yield (
        "offset",
        a @ b.T + 100 * rng.normal(size=(n, 1)).astype(np.float32) + 50 * rng.normal(size=n),
    )
    yield "aligned", a @ (a[rng.permutation(n)] + 0.1 * b).T
    yield "ties", rng.integers(0, 3, (n, n)).astype(np.float32)
    yield "zero", np.zeros((n, n), np.float32)
    yield "products", np.outer(np.arange(n), np.arange(n)).astype(np.float64)
    yield "dead", (a @ b.T) * (np.arange(n) > n // 3)


@pytest.mark.parametrize("n", [1, 2, 7, 48, 130])
def test_the_best_assignment_is_found(n):
    for name, scores in problems(n):
        columns = assign(scores)
        assert sorted(columns) == list(range(n)), name
        assert total(scores, columns) == pytest.approx(best(scores), rel=1e-6, abs=1e-6), name


def test_many_matrices_at_once():
    scores = np.random.default_rng(0).normal(size=(3, 2, 5, 5))
    columns = assign(scores)
    assert columns.shape == (3, 2, 5)
    for at in np.ndindex(3, 2):
        assert total(scores[at], columns[at]) == pytest.approx(best(scores[at]))


def test_prices_change_how_long_it_takes_but_not_the_result():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 90, 300))
    prices = Prices()
    for step in range(4):
        scores = a @ b.T + 20 * rng.normal(size=90)
        assert total(scores, assign(scores, prices)) == pytest.approx(best(scores))
        a += 0.1 * step * rng.normal(size=a.shape)
    # with fair prices, hardly any row would rather have another's column
    columns = assign(scores, prices)
    net = scores - prices.columns
    regret = net.max(1) - np.take_along_axis(net, columns[:, None], 1)[:, 0]
    plain = scores.max(1) - np.take_along_axis(scores, columns[:, None], 1)[:, 0]
    assert regret.mean() < 0.1 * plain.mean()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("prices", [None, Prices()])
def test_what_is_not_finite_is_refused(value, prices):
    scores = np.zeros((4, 4))
    scores[1, 2] = value
    with pytest.raises(MetanetError, match="1 of 16 scores are NaN or infinite"):
        assign(scores, prices)


def test_only_square_matrices():
    with pytest.raises(MetanetError, match=r"square matrices.*\(3, 4\)"):
        assign(np.zeros((3, 4)))


@pytest.fixture
def module_lap(monkeypatch):
    """Puts a module in the place of ``lap``."""

    def put(**content):
        module = types.ModuleType("lap")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, "lap", module)
        _assignment._lapx.cache_clear()

    yield put
    _assignment._lapx.cache_clear()


def test_the_other_package_named_lap_is_not_taken_for_lapx(module_lap):
    module_lap(lapjv=None)
    scores = np.random.default_rng(2).normal(size=(60, 60))
    assert total(scores, assign(scores)) == pytest.approx(best(scores))


def test_the_fast_solver_is_used_where_it_is_installed(module_lap):
    calls = []

    def lapjvr(costs, return_cost):
        calls.append(costs.shape)
        return linear_sum_assignment(costs)

    module_lap(lapjvr=lapjvr)
    scores = np.random.default_rng(2).normal(size=(60, 60))
    assert total(scores, assign(scores)) == pytest.approx(best(scores))
    assert calls == [(60, 60)]


def test_lapx_agrees_with_scipy():
    lap = pytest.importorskip("lap")
    if not hasattr(lap, "lapjvr"):
        pytest.skip("lap is not lapx")
    _assignment._lapx.cache_clear()
    for name, scores in problems(200):
        assert total(scores, assign(scores)) == pytest.approx(best(scores), rel=1e-6, abs=1e-6), (
            name
        )
