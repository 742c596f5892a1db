import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from metanet import MetanetError
from metanet.nn import ARCHITECTURE_FEATURES, architecture_features, build
from metanet.nn._statistics import QUANTILES, statistics_of_rows, statistics_of_segments
from nn.graphs import mixed, ready, relabel, sparse, spread, stack, templates


def test_deep_sets_cannot_tell_which_neurons_a_weight_connects():
    given = stack(templates()["mlp"], 3)
    block = given.template.blocks[0]
    values = given.edge_attr.clone()
    values[:, block.start : block.stop] = values[:, block.start : block.stop].flip(1)
    moved = type(given)(given.template, values)
    for name, blind in (("deep_sets", True), ("gmn", False)):
        model = ready(name, [given])
        change = (model([moved]) - model([given])).abs().max() / spread(model([given]))
        assert (change < 1e-10) == blind


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_deep_sets_pools(pool):
    stacks = mixed()
    model = ready("deep_sets", stacks, pool=pool)
    assert torch.allclose(model(stacks), model(sparse(stacks)), rtol=0, atol=1e-10)


def test_deep_sets_knows_its_pools():
    with pytest.raises(MetanetError, match="pool='max': choose mean or sum"):
        build("deep_sets", pool="max")


def test_flat_mlp_sees_a_relabelling():
    given = stack(templates()["cnn"], 4)
    model = ready("flat_mlp", [given])
    plain = model([given])
    assert (model(relabel([given], 0)) - plain).abs().max() > 0.1 * spread(plain)


def test_flat_mlp_serves_one_architecture():
    first, second = mixed()[:2]
    with pytest.raises(MetanetError, match="flat_mlp reads the weights of one architecture only"):
        ready("flat_mlp", [first, second])
    with pytest.raises(
        MetanetError, match="does not know its architecture yet: call fit_normalisation"
    ):
        build("flat_mlp")([first])
    model = ready("flat_mlp", [first])
    with pytest.raises(
        MetanetError,
        match=r"made for another architecture: \d+ entries in 6 tensors, these graphs have",
    ):
        model([second])
    with pytest.raises(MetanetError, match="flat_mlp reads the weights of one architecture only"):
        model(sparse([first, second]))


def test_statistics_are_numpys():
    rows = torch.randn(3, 17, dtype=torch.float64)
    found = statistics_of_rows(rows).numpy()
    assert np.allclose(found[:, 0], rows.mean(1))
    assert np.allclose(found[:, 1], rows.numpy().var(1))
    assert np.allclose(found[:, 2:], np.quantile(rows.numpy(), QUANTILES, axis=1).T)
    segment = torch.arange(3).repeat_interleave(17)
    order = torch.randperm(51)
    assert torch.allclose(
        statistics_of_segments(rows.flatten()[order], segment[order], 3), torch.from_numpy(found)
    )


def regression(graphs=60):
    stacks = [stack(t, graphs, seed=i) for i, t in enumerate(templates().values())]
    return stacks, torch.cat([s.edge_attr.std((1, 2)) + 0.1 * i for i, s in enumerate(stacks)])


def test_stat_learns_and_predicts_what_sklearn_does():
    stacks, target = regression()
    model = build("stat", iterations=40)
    model.fit(stacks, target)
    found = model.predict(stacks)[:, 0]
    assert torch.corrcoef(torch.stack([found, target]))[0, 1] > 0.9
    table = model.features(stacks)[:, model.columns]
    twin = HistGradientBoostingRegressor(**model.options).fit(table, target.numpy())
    assert np.isnan(table).any()  # tensors that some architectures lack
    assert np.allclose(found, twin.predict(table), rtol=0, atol=1e-12)
    unseen = model.features([stack(templates()["grouped"], 5, seed=99)])[:, model.columns]
    unseen[0] = np.nan
    from metanet.nn._trees import evaluate

    assert np.allclose(
        evaluate(model.trees, unseen)[:, 0], twin.predict(unseen), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_stat_classifies(classes):
    stacks, target = regression()
    labels = torch.bucketize(
        target, target.quantile(torch.linspace(0, 1, classes + 1, dtype=torch.float64)[1:-1])
    )
    model = build("stat", out_dim=classes, iterations=30)
    model.fit(stacks, labels)
    logits = model.predict(stacks)
    assert logits.shape == (len(labels), classes)
    assert (logits.argmax(1) == labels).double().mean() > 0.9
    with pytest.raises(MetanetError, match=r"built for the classes 0 to 4, the targets are \[0"):
        build("stat", out_dim=5, iterations=2).fit(stacks, labels)


def test_stat_explains_its_columns_and_its_errors():
    stacks, target = regression(10)
    model = build("stat", iterations=3)
    with pytest.raises(MetanetError, match="stat has learned nothing yet"):
        model.predict(stacks)
    model.fit(stacks, target)
    names = model.column_names()
    assert len(names) == len(model.columns)
    assert "LINEAR 0 from the output, quantile_50" in names
    assert "depth" in names
    with pytest.raises(MetanetError, match="stat was given 50 graphs and 49 targets"):
        model.fit(stacks, target[1:])
    with pytest.raises(MetanetError, match="built with out_dim=1, the targets have 2 columns"):
        model.fit(stacks, torch.stack([target, target], 1))


def test_architecture_features():
    features = {
        k: dict(zip(ARCHITECTURE_FEATURES, architecture_features(t).tolist(), strict=True))
        for k, t in templates().items()
    }
    assert features["mlp"]["activation_tanh"] == 1
    assert features["mlp"]["linears"] == pytest.approx(0.3)
    assert features["mlp"]["depth"] == pytest.approx(0.3)
    assert features["mlp"]["width_max"] == pytest.approx(np.log2(5) / 10)
    assert features["mlp"]["parameters"] == pytest.approx(np.log2(6 * 5 + 5 * 5 + 5 * 4 + 14) / 10)
    assert features["mlp"]["residuals"] == 0
    assert features["resnet"]["residuals"] == pytest.approx(0.2)
    assert features["resnet"]["norms"] == pytest.approx(0.4)
    assert features["grouped"]["activation_gelu"] == 0.5
