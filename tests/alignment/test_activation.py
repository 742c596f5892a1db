import numpy as np
import pytest
import torch
from torch import nn

import metanet
from alignment.networks import NETWORKS, batches, random_state, traced
from metanet import MetanetError
from metanet.alignment._moments import Moments
from metanet.alignment._running import NeuronRunner
from metanet.alignment._taps import find_taps
from metanet.symmetry import leaves_of


def moments_of(a, b, *sizes):
    found, start = Moments(), 0
    for size in sizes:
        found.add(a[:, start : start + size], b[:, start : start + size])
        start += size
    assert start == a.shape[1]
    return found


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_correlations_in_one_pass_are_the_usual_ones(offset):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 60, generator=generator)
    b = torch.randn(4, 4, generator=generator) @ a + torch.randn(4, 60, generator=generator)
    a, b = a + offset, b - 3 * offset
    want = np.corrcoef(a.double().numpy(), b.double().numpy())[:4, 4:]
    for sizes in ((60,), (7, 50, 3)):
        assert np.allclose(moments_of(a, b, *sizes).correlations().numpy(), want, atol=1e-5)
    between, va, vb = moments_of(a, b, 20, 40).covariances()
    scale = np.sqrt(np.outer(va.numpy(), vb.numpy()))
    assert np.allclose(between.numpy() / scale, want, atol=1e-5)


def test_dead_neurons_correlate_with_nothing():
    a, b = torch.randn(3, 50), torch.randn(3, 50)
    a[1], b[2] = 0.0, 7.0
    found = moments_of(a, b, 25, 25).correlations()
    assert (found[1] == 0).all()
    assert (found[:, 2] == 0).all()
    assert (found[[0, 2]][:, [0, 1]] != 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_every_group_is_tapped(network):
    arch, _ = traced(network)
    taps = find_taps(arch.recording, arch.derivation, arch.spec)
    assert {leaf.group for t in taps for leaf in leaves_of(t.neurons)} == {
        g.name for g in arch.spec.groups
    }
    for tap in taps:
        assert arch.recording.values[tap.value].shape[tap.axis] == tap.neurons.size


def test_residual_streams_are_tapped_at_every_sum():
    arch, _ = traced("resnet18")
    taps = find_taps(arch.recording, arch.derivation, arch.spec)
    made_by = {n: op.name for op in arch.recording.ops for n in op.outputs}
    names = [made_by[t.value] for t in taps]
    # the stem, and the first layer and the sum of eight blocks show after their ReLU; 8 second
    # layers, 3 projections
    assert names.count("aten.relu") == 1 + 8 + 8
    assert names.count("aten.convolution") == 8 + 3
    assert len(names) == 28


class Plain(nn.Module):
    """Two layers; what it shows is easily computed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x, attention_mask=None):
        return self.b(torch.relu(self.a(x)))


def shown(data, positions=None):
    model = Plain()
    arch = metanet.trace(model, torch.randn(2, 4, 3))
    runner = NeuronRunner(arch, model, torch.device("cpu"))
    found = list(runner.samples([dict(model.state_dict())], data, positions))
    (tap,) = {t.neurons for batch in found for t, _ in batch}
    assert tap.size == 5
    return model, [batch[0][1][0] for batch in found]


def by_hand(model, x):
    return torch.relu(model.a(x)).flatten(0, -2).T.detach()


def test_neurons_are_seen_as_they_are_for_batches_of_any_size():
    data = [torch.randn(n, t, 3) for n, t in ((2, 4), (5, 4), (1, 3))]
    for kind in (lambda x: (x, None), lambda x: {"x": x}, lambda x: [[x], 1]):
        model, found = shown([kind(x) for x in data])
        for x, got in zip(data, found, strict=True):
            assert torch.allclose(got, by_hand(model, x), atol=1e-6)


def test_padding_is_left_out():
    x, mask = torch.randn(2, 4, 3), torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    model, (found,) = shown([{"x": x, "attention_mask": mask}])
    assert torch.allclose(found, by_hand(model, x)[:, mask.flatten().bool()], atol=1e-6)


def test_many_positions_are_thinned_out():
    _, (found,) = shown([(torch.randn(8, 9, 3), None)], positions=10)
    assert found.shape == (5, 10)


def planted(network, seed=1):
    arch, example = traced(network)
    a = random_state(network, seed)
    return arch, example.model, a, arch.spec.sample(torch.Generator().manual_seed(seed))(a)


def test_data_is_read_once_and_may_be_a_generator():
    arch, model, a, b = planted("mlp")
    reads = []

    def data():
        for batch in batches("mlp", 16, 16, 16):
            reads.append(1)
            yield batch

    al = metanet.align(b, to=a, arch=arch, method="activation", model=model, data=data())
    assert all(torch.equal(x, a[n]) for n, x in al(b).items())
    assert len(reads) == 3
    reads.clear()
    metanet.align(b, to=a, arch=arch, method="activation", model=model, data=data(), batches=2)
    assert len(reads) == 2


def test_the_model_and_its_weights_are_left_alone():
    arch, model, a, b = planted("resnet18")
    model.train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    copies = [{n: t.clone() for n, t in s.items()} for s in (a, b)]
    metanet.align(b, to=a, arch=arch, method="activation", model=model, data=batches("resnet18", 4))
    assert model.training
    model.eval()
    for now, then in ((model.state_dict(), before), (a, copies[0]), (b, copies[1])):
        assert all(torch.equal(x, then[n]) for n, x in now.items())


def test_half_precision_checkpoints():
    arch, model, a, b = planted("mlp")
    al = metanet.align(
        {n: x.half() for n, x in b.items()}, to={n: x.bfloat16() for n, x in a.items()}, arch=arch,
        method="activation", model=model, data=batches("mlp", 64),
    )  # fmt: skip
    assert all(torch.equal(x, a[n]) for n, x in al(b).items())


def test_signs_are_ignored_on_demand():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    arch = metanet.trace(model, torch.randn(3, 4))
    a = {n: t.detach().clone() for n, t in model.state_dict().items()}
    signs = torch.tensor([1, -1, 1, -1, -1, 1])
    flipped = {"0.weight": a["0.weight"] * signs[:, None], "0.bias": a["0.bias"] * signs,
               "2.weight": a["2.weight"] * signs, "2.bias": a["2.bias"]}  # fmt: skip
    t = arch.spec.sample(torch.Generator().manual_seed(1))
    data = [(torch.randn(200, 4), None)]
    found = {}
    for absolute in (False, True):
        al = metanet.align(
            t(flipped),
            to=a,
            arch=arch,
            method="activation",
            model=model,
            data=data,
            absolute=absolute,
        )
        found[absolute] = int(((al.transform @ t).element("0") == torch.arange(6)).sum())
    assert found[True] == 6
    assert found[False] < 6


def test_weights_tell_neurons_apart_that_are_dead_on_the_data():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].bias.data[:5] = -1e3
    arch = metanet.trace(model, torch.randn(3, 4))
    a = {n: t.detach().clone() for n, t in model.state_dict().items()}
    b = arch.spec.sample(torch.Generator().manual_seed(1))(a)
    data, found = [(torch.randn(50, 4), None)], {}
    for method in ("activation", "combined"):
        moved = metanet.align(b, to=a, arch=arch, method=method, model=model, data=data)(b)
        found[method] = (moved["0.weight"] == a["0.weight"]).all(1)
    assert found["combined"].all()
    assert found["activation"][5:].all()
    assert not found["activation"].all()


def refused(network="mlp", **options):
    arch, model, a, b = planted(network)
    with pytest.raises(MetanetError) as info:
        metanet.align(b, to=a, **{"arch": arch, "model": model, "method": "activation", **options})
    return str(info.value)


def test_what_cannot_work_is_refused(tmp_path):
    arch, *_ = planted("mlp")
    arch.save(tmp_path / "arch.json")
    data = batches("mlp", 8)
    assert "data yielded no batch" in refused(data=[])
    assert "data yielded no batch" in refused(data=iter(()))
    assert "needs data=..." in refused()
    assert "needs model=..." in refused(data=data, model=None)
    assert "needs the recording" in refused(
        data=data, arch=metanet.Architecture.load(tmp_path / "arch.json")
    )
    assert "needs the recording" in refused(data=data, arch=arch.spec)
    assert "got a Tensor" in refused(data=[torch.randn(3, 5)])
    assert "got a tuple of 3" in refused(data=[(1, 2, 3)])
    assert "by='sum'" in refused(data=data, by="sum")
    nan = [((torch.full((4, 5), float("nan")),), None)]
    assert "NaN" in refused(data=nan)
