"""One loss of the user's, given to everything that measures it: the same outputs, targets and weights."""

import pytest
import torch
from torch import nn

import metanet
from metanet import MetanetError
from metanet.evaluation import Runner, TaskLoss, measure

CPU = torch.device("cpu")


class Keywords(nn.Module):
    """Takes its inputs by name, as transformers' models do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, inputs, labels=None):
        return self.second(self.first(inputs).tanh())


def cross_entropy(outputs, target):
    return nn.functional.cross_entropy(outputs, target)


INPUTS, CLASSES = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0, 1])
FORMS = {
    "dict": [{"inputs": INPUTS, "labels": CLASSES}],
    "pair": [(INPUTS, CLASSES)],
    "narrow classes": [(INPUTS, CLASSES.to(torch.int32))],
    "batches of unlike sizes": [(INPUTS[:4], CLASSES[:4]), (INPUTS[4:], CLASSES[4:])],
    "ignored places": [(INPUTS, torch.tensor([0, -100, 2, -100, 0, 1])), (INPUTS, CLASSES)],
}


@pytest.mark.parametrize("form", FORMS)
def test_measured_in_both_ways(form):
    model, data = Keywords(), FORMS[form]
    task = TaskLoss(model, cross_entropy, CPU)
    state = task.prepared(model.state_dict())
    expected = measure(model, data, cross_entropy, [], Runner(CPU))[0]["loss"]
    assert task.mean(state, data) == pytest.approx(expected, rel=1e-6)
    assert torch.isfinite(task(state, data[0]))


@pytest.mark.parametrize("method", ["straight_through", "sinkhorn"])
def test_matchers_give_a_loss_the_labels_of_dicts_as_barriers_do(method):
    a, b, data = Keywords(), Keywords(), FORMS["dict"]
    arch = metanet.trace(a, INPUTS)
    options = {"epochs": 1} if method == "straight_through" else {"on": "midpoint", "steps": 2}
    al = metanet.align(
        b, to=a, arch=arch, method=method, model=a, data=data, loss=cross_entropy, **options
    )
    curve = metanet.barrier(a, al(b), model=a, data=data, loss=cross_entropy, points=3)
    assert al.objective[-1] == pytest.approx(-curve.loss[1], rel=1e-5)


def test_gradients_reach_the_weights_and_not_the_module():
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    task = TaskLoss(model, None, CPU)
    state = task.prepared(model.state_dict())
    state["0.weight"].requires_grad_()
    mean = state["1.running_mean"].clone()
    task(state, (INPUTS, CLASSES)).backward()
    assert state["0.weight"].grad.abs().sum() > 0
    assert torch.equal(state["1.running_mean"], mean)
    assert all(p.grad is None for p in model.parameters())


def test_what_can_not_run_is_said():
    model = Keywords()
    task = TaskLoss(model, None, CPU)
    with pytest.raises(MetanetError, match=r"Keywords can't run the data \(\(6, 5\)"):
        task(task.prepared(model.state_dict()), (torch.randn(6, 5), CLASSES))
