"""The networks that zoos are made of."""

import pytest
import torch
from torch import nn

from metanet.zoo import ZooError, networks
from metanet.zoo.digits_classifiers import ARCHITECTURES

BUILT = {
    name: getattr(networks, factory)(**arguments)
    for name, (factory, arguments) in ARCHITECTURES.items()
}


@pytest.mark.parametrize("name", BUILT)
def test_architectures_of_the_digits(name):
    module = BUILT[name].eval()
    assert module(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    assert 900 < sum(p.numel() for p in module.parameters()) < 1700
    kept = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    for part in module.modules():  # no state outside parameters and buffers
        held = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        assert all(id(value) in kept for value in held)


def test_the_nine_are_as_different_as_promised():
    assert len(BUILT) == 9
    assert sum("Conv2d" not in repr(module) for module in BUILT.values()) == 2
    assert sum("BatchNorm2d" in repr(module) for module in BUILT.values()) == 2
    assert sum("ResidualBlock" in repr(module) for module in BUILT.values()) == 2
    assert len({arguments["activation"] for _, arguments in ARCHITECTURES.values()}) >= 4
    layers = {
        sum(isinstance(m, nn.Conv2d | nn.Linear) for m in module.modules())
        for module in BUILT.values()
    }
    assert min(layers) == 2 and max(layers) == 6


def test_cnn_options():
    x = torch.rand(2, 3, 9, 9)
    for options in (
        {"strides": [2, 1], "readout": "flatten"},
        {"pool": "max", "readout": "flatten"},
        {"pool": "average", "kernel_size": 5, "norm": True},
    ):
        assert networks.cnn([4, 5], input_shape=[3, 9, 9], classes=7, **options)(x).shape == (2, 7)
    assert networks.resnet([4, 4, 6], input_shape=[3, 9, 9], norm=True)(x).shape == (2, 10)
    assert networks.mlp([4, 3], input_shape=[3, 9, 9], norm=True)(x).shape == (2, 10)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: networks.mlp((3,), activation="swish"),
            "'swish' is not known; choose one of relu",
        ),
        (lambda: networks.cnn((3, 4), strides=(1,)), r"1 strides \[1\] for 2 convolutions"),
        (lambda: networks.cnn((3,), readout="max"), "choose 'average' or 'flatten'"),
        (lambda: networks.cnn((3,), pool="min"), "choose 'max', 'average'"),
    ],
)
def test_mistakes(build, message):
    with pytest.raises(ZooError, match=message):
        build()


def test_siren_has_the_layout_of_public_inr_data():
    module = networks.siren((32, 32))
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == {
        "seq.0.weight": (32, 2),
        "seq.0.bias": (32,),
        "seq.1.weight": (32, 32),
        "seq.1.bias": (32,),
        "seq.2.weight": (1, 32),
        "seq.2.bias": (1,),
    }
    assert sum(p.numel() for p in module.parameters()) == 1185
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        assert torch.equal(module(torch.rand(5, 2)), torch.full((5, 1), 0.5))


def test_siren_pre_activations_are_standard_normal_at_every_depth():
    torch.manual_seed(0)
    module = networks.siren((256, 256, 256))
    x = torch.rand(2000, 2) * 2 - 1
    for layer in module.seq[:-1]:
        before = module.w0 * (x @ layer.weight.T)
        x = before.sin()
        if layer is not module.seq[0]:
            assert 0.8 < before.std() < 1.2
