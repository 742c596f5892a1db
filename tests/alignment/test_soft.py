"""Soft relabellings, Sinkhorn's matrices and their gradients, and the loss between networks."""

import pytest
import torch
from torch import nn

import metanet
from metanet import MetanetError
from metanet.alignment._elements import to_elements
from metanet.alignment._moves import keys_of
from metanet.alignment._soft import SoftTransform, as_matrices, harden
from metanet.alignment.matchers.sinkhorn import implicit_sinkhorn, sinkhorn
from metanet.evaluation import TaskLoss, default_loss
from symmetry.constructs import CONSTRUCTS

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("name", CONSTRUCTS)
def test_permutation_matrices_move_as_transforms_do(name):
    torch.manual_seed(0)
    model, *_ = CONSTRUCTS[name].make()
    spec = CONSTRUCTS[name].spec(model)
    wide = {True: torch.complex128, False: torch.float64}
    weights = {n: t for n, t in spec.tensors.items() if t.tied_to is None and not t.integer}
    state = {n: torch.randn(t.shape, dtype=wide[t.is_complex]) for n, t in weights.items()}
    t, keys = spec.sample(torch.Generator().manual_seed(1)), keys_of(spec)
    elements = to_elements(t, keys)
    matrices = as_matrices(elements, torch.float64, CPU)
    moved = SoftTransform(spec, keys)(state, matrices)
    assert all(torch.equal(moved[n], x) for n, x in t(state).items())
    assert all(torch.equal(e, elements[g]) for g, e in harden(matrices).items())


def test_sinkhorns_matrix_is_doubly_stochastic():
    p = sinkhorn(torch.randn(3, 5, 5, dtype=torch.float64), 1.0, 200)
    assert (p > 0).all()
    assert torch.allclose(p.sum(-1), torch.ones(3, 5, dtype=torch.float64))
    assert torch.allclose(p.sum(-2), torch.ones(3, 5, dtype=torch.float64))
    sharp = sinkhorn(torch.randn(4, 4), 0.01, 200)
    assert sharp.max(-1).values.min() > 0.9


@pytest.mark.parametrize("shape", [(6, 6), (2, 3, 4, 4), (1, 1)])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_implicit_gradient_is_that_of_many_iterations(shape, temperature):
    x = torch.randn(shape, dtype=torch.float64).requires_grad_()
    weight = torch.randn(shape, dtype=torch.float64)
    grads = []
    for project in (sinkhorn, implicit_sinkhorn):
        loss = (project(x, temperature, 500) * weight).square().sum()
        grads.append(torch.autograd.grad(loss, x)[0])
    assert torch.allclose(grads[0], grads[1], atol=1e-8)
    assert shape == (1, 1) or grads[0].abs().max() > 1e-3


@pytest.fixture(scope="module")
def trained():
    """Two networks trained on the same task, with BatchNorm, and their data."""
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    y = (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()
    data = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 256, 64)]

    def network(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(6, 24),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Linear(24, 24),
            nn.ReLU(),
            nn.Linear(24, 4),
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(25):
            for inputs, target in data:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(inputs), target).backward()
                optimizer.step()
        return net.eval()

    a, b = network(1), network(2)
    return metanet.trace(a, x[:4]), a, b, data


def loss_half_way(a, moved, model, data):
    task = TaskLoss(model, None, CPU)
    middle = {
        n: (t + moved[n]) / 2 if t.is_floating_point() else t for n, t in a.state_dict().items()
    }
    return task.mean(middle, data)


@pytest.mark.parametrize(
    ("method", "options"),
    [("straight_through", {}), ("sinkhorn", {"on": "midpoint"}), ("sinkhorn", {"on": "random"})],
)
def test_matchers_on_the_task_lower_its_loss_half_way(trained, method, options):
    arch, a, b, data = trained
    before = loss_half_way(a, b.state_dict(), a, data)
    al = metanet.align(b, to=a, arch=arch, method=method, model=a, data=data, **options)
    after = loss_half_way(a, al(b), a, data)
    assert al.objective[0] == pytest.approx(-before, rel=1e-5)
    assert al.objective[-1] == pytest.approx(-after, rel=1e-5)
    assert after < 0.8 * before


def test_the_model_is_left_alone(trained):
    arch, a, b, data = trained
    before = {n: t.clone() for n, t in a.state_dict().items()}
    metanet.align(b, to=a, arch=arch, method="straight_through", model=a, data=data, epochs=1)
    metanet.align(b, to=a, arch=arch, method="sinkhorn", on="midpoint", model=a, data=data, steps=2)
    assert all(torch.equal(t, before[n]) for n, t in a.state_dict().items())
    assert all(p.requires_grad for p in a.parameters())
    assert not a.training


def test_losses_go_by_the_kind_of_target():
    scores = torch.randn(4, 7, 5)
    classes = torch.randint(5, (4, 7))
    cross = nn.functional.cross_entropy
    assert default_loss(scores, classes) == pytest.approx(
        float(cross(scores.flatten(0, 1), classes.flatten()))
    )
    assert default_loss(scores.movedim(2, 1), classes) == pytest.approx(
        float(cross(scores.movedim(2, 1), classes))
    )
    assert default_loss(scores, scores + 1) == 1

    class Output:
        loss = torch.tensor(3.0)

    assert default_loss(Output(), None) == 3
    for target in (None, torch.zeros(3), "cat"):
        with pytest.raises(
            MetanetError, match=r"no loss is known for outputs \(4, 7, 5\).*give loss="
        ):
            default_loss(scores, target)


def refused(trained, **options):
    arch, a, b, data = trained
    with pytest.raises(MetanetError) as info:
        metanet.align(b, to=a, arch=arch, **{"model": a, "data": data, **options})
    return str(info.value)


def test_what_cannot_work_is_refused(trained):
    data = trained[3]
    assert "on='loss'" in refused(trained, method="sinkhorn", on="loss")
    assert "needs data=..." in refused(trained, method="sinkhorn", on="midpoint", data=None)
    for options in ({"method": "straight_through"}, {"method": "sinkhorn", "on": "midpoint"}):
        assert "several times" in refused(trained, data=iter(data), **options)
        assert "no batch" in refused(trained, data=[], **options)
