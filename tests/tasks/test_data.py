"""Batches, splits and the sampler."""

import pytest
import torch

from metanet.errors import MetanetError
from metanet.tasks import AccuracyPrediction
from metanet.tasks._data import EpochBatches, split_runs
from metanet.zoo import Blueprint, Population, Zoo


def small_zoo(networks: int = 6) -> Zoo:
    """Two architectures of random networks; every run has two checkpoints."""
    populations = []
    for name, widths in (("narrow", [5]), ("wide", [9, 7])):
        torch.manual_seed(len(widths))
        arguments = {"widths": widths, "activation": "relu"}
        mlp = Blueprint("metanet.zoo.networks:mlp", arguments, input_shape=(1, 8, 8), name=name)
        labels = {
            "id": [f"{name}-{i}" for i in range(networks)],
            "run": [f"{name}-{i // 2}" for i in range(networks)],
            "test_accuracy": [i / networks for i in range(networks)],
        }
        states = [mlp.build().state_dict() for _ in range(networks)]
        populations.append(Population.of(states, mlp, labels))
    return Zoo.of("small", populations)


def test_a_split_never_cuts_through_a_run():
    zoo = small_zoo(20)
    splits = split_runs(zoo, fractions={"val": 0.2, "test": 0.3}, unseen=(), seed=0)
    sides = [set(zoo.table["run"][rows.numpy()]) for rows in splits.values()]
    assert not set.intersection(*sides[:2])
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert sorted(torch.cat(list(splits.values())).tolist()) == list(range(40))


def test_unseen_architectures_are_a_split_of_their_own():
    zoo = small_zoo(20)
    splits = split_runs(zoo, fractions={"val": 0.2, "test": 0.3}, unseen=["wide"], seed=0)
    assert set(zoo.table["architecture"][splits["unseen"].numpy()]) == {"wide"}
    rest = torch.cat([splits[s] for s in ("train", "val", "test")])
    assert set(zoo.table["architecture"][rest.numpy()]) == {"narrow"}
    with pytest.raises(MetanetError, match="the zoo has no giant; it has narrow, wide"):
        split_runs(zoo, fractions={"val": 0.2, "test": 0.3}, unseen=["giant"], seed=0)
    only = split_runs(
        zoo, fractions={"val": 0.2, "test": 0.3}, unseen=[], seed=0, architectures=["wide"]
    )
    assert set(zoo.table["architecture"][torch.cat(list(only.values())).numpy()]) == {"wide"}
    with pytest.raises(MetanetError, match="the val split is empty"):
        split_runs(zoo, fractions={"val": 0.0, "test": 0.3}, unseen=[], seed=0)


def test_a_batch_holds_the_networks_it_was_asked_for():
    zoo = small_zoo()
    data = AccuracyPrediction(val=0.2, test=0.2).data(zoo, 0)
    batch = data.batch(torch.tensor([7, 1, 0, 11]))
    assert batch.rows.tolist() == [1, 0, 7, 11]  # grouped by architecture
    at = 0
    for stack, member in zip(batch.stacks, data.members.values(), strict=True):
        for values in stack.edge_attr:
            row = int(batch.rows[at])
            position = member.population.rows.tolist().index(row)
            state = stack.template.tensors(values)
            assert all(torch.equal(state[k], member.population.state[k][position]) for k in state)
            assert float(batch.target[at]) == pytest.approx(zoo.table["test_accuracy"][row])
            at += 1
    assert at == 4


def test_the_order_depends_on_seed_and_epoch_alone():
    rows = torch.arange(50)

    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = EpochBatches(rows, 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    flat = [row for batch in order(0, 0) for row in batch]
    assert len(flat) == len(set(flat)) == 48


def test_processes_share_every_batch():
    rows = torch.arange(50)
    parts = [list(EpochBatches(rows, 8, 0, rank, 2)) for rank in range(2)]
    whole = list(EpochBatches(rows, 8, 0))
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(b) for b in whole]


def test_a_label_that_is_not_there_is_explained():
    with pytest.raises(
        MetanetError,
        match="label=loss: the zoo's table has the columns id, run, architecture, test_accuracy",
    ):
        AccuracyPrediction(label="loss", val=0.2, test=0.2).data(small_zoo(), 0)
    with pytest.raises(MetanetError, match="label=run is not numeric"):
        AccuracyPrediction(label="run", val=0.2, test=0.2).data(small_zoo(), 0)
    with pytest.raises(MetanetError, match="choose huber, mse or bce"):
        AccuracyPrediction(loss_kind="l1")


def test_metrics_by_hand():
    task = AccuracyPrediction()
    got = task.metrics(torch.tensor([0.1, 0.4, 0.2, 0.9]), torch.tensor([0.1, 0.3, 0.4, 0.8]))
    assert got["tau"] == pytest.approx(4 / 6)  # five pairs in order, one not
    assert got["mae"] == pytest.approx(0.1)
    assert got["r2"] == pytest.approx(1 - 0.06 / 0.26)


@pytest.mark.parametrize("kind", ["huber", "mse", "bce"])
def test_the_loss_is_least_where_the_prediction_is_right(kind):
    task = AccuracyPrediction(loss_kind=kind)
    target = torch.tensor([0.2, 0.5, 0.9])
    task.fit_scale(target)
    output = torch.zeros(3, 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([output], max_iter=200)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = task.loss(output, target)
        loss.backward()
        return loss

    optimizer.step(step)
    torch.testing.assert_close(
        task.predict(task.encode(target)[:, None]), target, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(task.predict(output.detach()), target, atol=1e-3, rtol=0)
