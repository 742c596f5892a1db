"""Training many networks at once is training each of them alone."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metanet.zoo import ZooError, networks
from metanet.zoo._vmap_training import Plan, batch_indices, bytes_per_network, train_networks

N, SAMPLES, BATCH = 3, 24, 6
FACTORIES = {
    "mlp": lambda: networks.mlp((5, 4), activation="tanh"),
    "mlp_norm": lambda: networks.mlp((5,), norm=True),
    "cnn_pool": lambda: networks.cnn((3, 5), pool="max", activation="leaky_relu"),
    "cnn_flatten": lambda: networks.cnn(
        (3, 5), strides=(2, 2), readout="flatten", activation="gelu"
    ),
    "cnn_norm": lambda: networks.cnn((3, 5), strides=(2, 1), norm=True, activation="silu"),
    "resnet_norm": lambda: networks.resnet((3, 3, 5), norm=True),
}


def problem(factory, epochs=(4, 1, 2)):
    torch.manual_seed(0)
    modules = [factory().double() for _ in range(N)]
    images, labels = torch.rand(SAMPLES, 1, 8, 8).double(), torch.randint(10, (N, SAMPLES))
    tests, test_labels = torch.rand(9, 1, 8, 8).double(), torch.randint(10, (9,))
    plan = Plan(
        learning_rate=torch.tensor([1e-2, 3e-3, 3e-2], dtype=torch.float64),
        weight_decay=torch.tensor([0.0, 1e-2, 1e-3], dtype=torch.float64),
        epochs=torch.tensor(epochs),
        labels=labels,
        subsets=[torch.arange(SAMPLES), torch.arange(7), torch.arange(3, 20)],
        generators=[torch.Generator().manual_seed(i) for i in range(N)],
        batch_size=BATCH,
    )
    return modules, plan, images, tests, test_labels


def train_alone(module, plan, i, images):
    """The ordinary loop, with torch's own Adam."""
    generator = torch.Generator().manual_seed(i)
    optimizer = torch.optim.Adam(
        module.parameters(),
        lr=float(plan.learning_rate[i]),
        weight_decay=float(plan.weight_decay[i]),
    )
    losses = []
    for _ in range(int(plan.epochs[i])):
        module.train()
        total = 0.0
        for rows in batch_indices(plan.subsets[i], SAMPLES // BATCH, BATCH, generator):
            loss = F.cross_entropy(module(images[rows]), plan.labels[i][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / (SAMPLES // BATCH)
        losses.append(total)
    return losses


@pytest.mark.parametrize("name", FACTORIES)
def test_equals_training_one_by_one(name):
    modules, plan, images, tests, test_labels = problem(FACTORIES[name])
    before = [
        {key: value.clone() for key, value in module.state_dict().items()} for module in modules
    ]
    ticks = []
    trained = train_networks(modules, plan, images, tests, test_labels, ticks.append)
    assert ticks == [3, 2, 1, 1]
    for i, module in enumerate(modules):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(
                value, before[i][key], rtol=0, atol=0
            )  # the modules given are left alone
        losses = train_alone(module, plan, i, images)
        for key, value in module.state_dict().items():
            # a bias before BatchNorm has no gradient but rounding, which Adam's division blows up
            atol = 0.1 if _is_dead_bias(module, key) else 1e-9
            torch.testing.assert_close(trained.state[key][i], value, rtol=1e-9, atol=atol)
        module.eval()
        accuracy = (module(tests).argmax(1) == test_labels).float().mean()
        epochs = len(losses)
        torch.testing.assert_close(
            trained.train_loss[i, :epochs], torch.tensor(losses), rtol=1e-5, atol=1e-6
        )
        assert (
            trained.train_loss[i, epochs:].isnan().all()
            and trained.test_accuracy[i, epochs:].isnan().all()
        )
        assert trained.test_accuracy[i, epochs - 1] == accuracy
        subset = plan.subsets[i]
        right = module(images[subset]).argmax(1) == plan.labels[i][subset]
        assert trained.train_accuracy[i] == right.float().mean()


def _is_dead_bias(module, key):
    """Whether ``key`` is the bias of a layer that a BatchNorm directly follows, or the norm's mean
    that follows it."""
    layers = list(module.named_modules())
    return any(
        key in (f"{name}.bias", f"{following_name}.running_mean")
        for (name, layer), (following_name, following) in itertools.pairwise(layers)
        if isinstance(layer, nn.Conv2d | nn.Linear)
        and isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d)
    )


def test_a_network_is_the_same_whoever_is_trained_beside_it_and_for_how_long():
    short = train_networks(*problem(FACTORIES["cnn_norm"], epochs=(2, 1, 1)))
    long = train_networks(*problem(FACTORIES["cnn_norm"], epochs=(2, 4, 3)))
    for key in short.state:
        torch.testing.assert_close(short.state[key][0], long.state[key][0], rtol=1e-9, atol=1e-9)
        if short.state[key].is_floating_point():
            assert not torch.allclose(short.state[key][1], long.state[key][1])


def test_an_epoch_visits_the_subset_evenly():
    subset = torch.tensor([5, 7, 11])
    batches = batch_indices(subset, 4, 3, torch.Generator().manual_seed(0))
    assert batches.shape == (4, 3)
    assert torch.equal(batches.flatten().bincount(minlength=12)[subset], torch.tensor([4, 4, 4]))
    generator = torch.Generator().manual_seed(0)
    orders = {
        tuple(batch_indices(torch.arange(9), 3, 3, generator).flatten().tolist()) for _ in range(4)
    }
    assert len(orders) == 4


def test_memory_estimate_grows_with_the_batch():
    module = FACTORIES["cnn_norm"]()
    small, large = (bytes_per_network(module, torch.rand(b, 1, 8, 8)) for b in (4, 40))
    state = 4 * sum(t.numel() * t.element_size() for t in module.state_dict().values())
    assert state < small < large < 11 * small


class Turned(nn.Module):
    """A complex gain between real layers."""

    def __init__(self):
        super().__init__()
        self.layer, self.gain = nn.Linear(64, 10), nn.Parameter(torch.ones(10, dtype=torch.cfloat))

    def forward(self, x):
        return (self.layer(x.flatten(1)) * self.gain).abs()


def test_complex_parameters_are_refused_before_anything_is_trained():
    modules, plan, images, tests, test_labels = problem(Turned)
    with pytest.raises(ZooError, match=r"Turned has complex parameters \(gain\)"):
        train_networks(modules, plan, images, tests, test_labels)
