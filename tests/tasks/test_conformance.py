"""What every registered task must do; a new one, a plugin's too, is picked up by itself.

Each learns from a zoo of small SIRENs, whose table has whatever label the task reads by default.
"""

import json
from dataclasses import replace

import pytest
import torch

from metanet.config import build
from metanet.errors import MetanetError
from metanet.tasks import TASKS
from metanet.tasks._saved import describe_run, read_run, restore_task
from metanet.zoo import Blueprint, Population, Zoo

SIREN = Blueprint("metanet.zoo.networks:siren", {"hidden": [4]}, (2,), (-1.0, 1.0), "small")
COUNT = 30


@pytest.fixture(params=sorted(TASKS))
def cls(request):
    return TASKS[request.param]


@pytest.fixture
def task(cls):
    return cls(val=0.2, test=0.2, batch_size=8)


@pytest.fixture
def zoo(task) -> Zoo:
    """Three classes, or three numbers."""
    torch.manual_seed(0)
    states = [SIREN.build().state_dict() for _ in range(COUNT)]
    return Zoo.of(
        "small", Population.of(states, SIREN, {task.label: [i % 3 for i in range(COUNT)]})
    )


@pytest.fixture
def data(task, zoo):
    data = task.data(zoo, seed=0)
    task.fit_scale(data.target[data.splits["train"]])
    return data


def outputs(task, count=5) -> torch.Tensor:
    return torch.randn(count, task.out_dim, generator=torch.Generator().manual_seed(1))


def test_the_division_is_disjoint_and_seeded(cls, task, data, zoo):
    rows = torch.cat(list(data.splits.values())).tolist()
    assert len(set(rows)) == len(rows) and {"train", "val", "test"} <= data.splits.keys()
    again = cls(val=0.2, test=0.2, batch_size=8).data(zoo, seed=0)
    other = cls(val=0.2, test=0.2, batch_size=8).data(zoo, seed=1)
    assert torch.equal(again.splits["train"], data.splits["train"])
    assert not torch.equal(other.splits["train"], data.splits["train"])
    assert len(data.target) == COUNT and torch.equal(again.target, data.target)


def test_targets_of_a_part_are_a_part_of_the_targets(task, data):
    """They change nothing: a class has its number whichever others there are."""
    before = vars(task).copy()
    rows = [row for row in range(COUNT) if row % 3]
    part = {name: column[rows] for name, column in data.zoo.table.items()}
    assert torch.equal(task.targets(replace(data.zoo, table=part)), data.target[rows])
    assert vars(task) == before


def test_the_loss_is_one_finite_number_with_a_gradient(task, data):
    output = outputs(task, COUNT).requires_grad_()
    loss = task.loss(output, data.target)
    assert loss.shape == () and loss.isfinite()
    (gradient,) = torch.autograd.grad(loss, output)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_metrics_are_numbers_and_one_of_them_chooses_the_epoch(task, data):
    prediction = task.predict(outputs(task, COUNT))
    assert len(prediction) == COUNT and prediction.isfinite().all()
    metrics = task.metrics(prediction, data.target)
    assert task.monitor in metrics
    assert all(isinstance(value, float) for value in metrics.values())


def test_what_is_right_is_measured_as_better(task, data):
    """By the metric that chooses the epoch, of which more is better."""
    wrong = outputs(task, COUNT)
    output = wrong.clone().requires_grad_()
    for _ in range(300):
        (gradient,) = torch.autograd.grad(task.loss(output, data.target), output)
        output = (output - 3 * gradient).detach().requires_grad_()

    def measured(raw):
        return task.metrics(task.predict(raw.detach()), data.target)[task.monitor]

    assert measured(output) > measured(wrong)


def test_figures_have_names(task, data):
    predictions = {"test": task.predict(outputs(task, len(data.splits["test"])))}
    for name, figure in task.plots(data, predictions).items():
        assert name.isidentifier() and figure.axes


def test_a_saved_task_says_the_same(cls, task, data, tmp_path):
    arguments = {"label": task.label, "val": 0.2, "test": 0.2, "batch_size": 8}
    text = json.dumps(describe_run(task, arguments, data), allow_nan=False)
    again = restore_task(read_run(json.loads(text), "here"), tmp_path)
    assert type(again) is cls and again.out_dim == task.out_dim
    output = outputs(task)
    prediction = task.predict(output)
    assert torch.equal(again.predict(output), prediction)
    said = task.describe(prediction[0])
    assert again.describe(prediction[0]) == said and task.label in said and "\n" not in said


def test_a_strangers_scale_is_refused(cls, task, data):
    for foreign in ({**task.scale(), "surprise": 1}, {**task.scale(), "loss": "none"}):
        with pytest.raises(MetanetError, match="scale of the task"):
            cls().restore(foreign)


def test_mistakes_are_told(cls, task, zoo):
    with pytest.raises(MetanetError, match="valu"):
        build({"_target_": f"{cls.__module__}.{cls.__qualname__}", "valu": 0.1})
    task.label = "nothing"
    with pytest.raises(
        MetanetError, match="label=nothing: the zoo's table has the columns id, run"
    ):
        task.data(zoo, seed=0)
