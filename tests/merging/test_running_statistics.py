"""Running statistics measured anew, and how statistics are measured."""

import pytest
import torch
from torch import nn

import metanet
from merging.repairing import RUN, average, drawn, images_of, loaded, normed, split
from metanet.merging.repairs import between, calibrate, measure_layers, normalisers
from metanet.merging.repairs._moments import InstanceMoments, Moments, unpadded


@pytest.fixture
def images():
    return images_of()


class TestRunningStatistics:
    def pooled(self, net, data):
        """By hand: mean and variance of what every normaliser is given, over all samples."""
        inputs = {n: [] for n in normalisers(net)}
        hooks = [
            m.register_forward_pre_hook(lambda _, args, n=n: inputs[n].append(args[0]))
            for n, m in normalisers(net).items()
        ]
        with torch.no_grad():
            for (x,) in data:
                net(x)
        for hook in hooks:
            hook.remove()
        seen = {n: torch.cat(x).movedim(1, 0).flatten(1) for n, x in inputs.items()}
        return {n: (x.mean(1), x.var(1)) for n, x in seen.items()}

    @pytest.mark.parametrize(
        "sizes", [(), (5, 20), (1,) * 46], ids=["one batch", "three", "batches of one"]
    )
    def test_are_those_of_all_samples(self, images, sizes):
        nets, data = [drawn(normed, seed) for seed in (0, 1)], split(images, *sizes)
        net = loaded(nets[0], average(*nets))
        calibrate(net, data, RUN, passes=None, tolerance=0)
        for name, (mean, variance) in self.pooled(net, data).items():
            module = net.get_submodule(name)
            assert torch.allclose(module.running_mean, mean, rtol=1e-8, atol=1e-10)
            assert torch.allclose(module.running_var, variance, rtol=1e-8)
        merged = metanet.merge(
            nets, repair="bn_reset", repair_passes=None, model=nets[0], data=data
        )
        for name, tensor in merged.items():
            if "num" in name:
                continue
            assert torch.allclose(tensor, net.state_dict()[name], rtol=2e-2, atol=2e-2), name
            if "running" not in name:
                assert torch.equal(tensor, average(*nets)[name])
        assert int(merged["1.num_batches_tracked"]) == len(data)
        assert merged.report["repair/normalisers measured anew"] == 2

    def test_in_one_batch_they_are_what_torch_measures(self, images):
        net, by_torch = drawn(normed, 0), drawn(normed, 0)
        calibrate(net, [(images,)], RUN)
        torch.optim.swa_utils.update_bn([images], by_torch.train())
        assert torch.allclose(net[1].running_mean, by_torch[1].running_mean)
        assert torch.allclose(net[1].running_var, by_torch[1].running_var)
        # torch normalises by the variance with bias while it measures what comes behind: other by 1
        # / values
        assert torch.allclose(net[5].running_var, by_torch[5].running_var, rtol=1e-2)

    def test_of_instances_and_frozen_ones(self):
        class Frozen(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("running_mean", torch.zeros(4))
                self.register_buffer("running_var", torch.ones(4))

            def forward(self, x):
                return (x - self.running_mean[:, None]) * (self.running_var[:, None] + 1e-5).rsqrt()

        def make():
            return nn.Sequential(nn.InstanceNorm1d(4, track_running_stats=True), Frozen())

        x = 3 * torch.randn(20, 4, 7, dtype=torch.float64) + torch.arange(4)[:, None]
        net = make().double().eval()
        calibrate(net, split(x, 8), RUN, passes=None, tolerance=0)
        assert torch.allclose(net[0].running_mean, x.mean((0, 2)))
        assert torch.allclose(net[0].running_var, x.var(2).mean(0))
        assert torch.allclose(net[1].running_var, net[0](x).movedim(1, 0).flatten(1).var(1))
        by_torch = make().double().train()
        by_torch[0].momentum = 1.0
        by_torch(x)
        assert torch.allclose(net[0].running_var, by_torch[0].running_var)

    @pytest.mark.parametrize("how", ["repair", "rescale"])
    def test_layers_before_them_stay_and_the_others_are_repaired(self, how, images):
        nets, data = [drawn(normed, seed) for seed in (0, 1)], split(images, 7)
        merged = metanet.merge(nets, repair=how, repair_passes=None, model=nets[0], data=data)
        for name in ("0.weight", "0.bias"):
            assert torch.equal(merged[name], average(*nets)[name])
        assert not torch.equal(
            merged["3.weight"], average(*nets)["3.weight"]
        )  # a ReLU stands between
        net = loaded(nets[0], merged)
        for name, (mean, variance) in self.pooled(net, data).items():
            assert torch.allclose(merged[f"{name}.running_mean"], mean, rtol=1e-2, atol=1e-2)
            assert torch.allclose(merged[f"{name}.running_var"], variance, rtol=2e-2)
        goals = between([measure_layers(n, data, RUN) for n in nets], [0.5, 0.5])
        got = measure_layers(net, data, RUN).layers
        assert set(got) == {"3.weight", "8.weight"}
        assert all(torch.allclose(got[n].std, goal.std, rtol=2e-2) for n, goal in goals.items())
        assert merged.report["repair/layers corrected"] == 2
        assert merged.report["repair/of them without bias, scaled only"] == 1
        assert merged.report["repair/left: normalised by running statistics"] == "0.weight"


class TestMoments:
    def test_are_exact_where_means_are_large(self):
        x = torch.randn(4, 3, 500, dtype=torch.float64) + 1e6 * torch.arange(1, 4)[:, None]
        found = Moments()
        for part in x.float().split([1, 2, 1]):
            found.add(part, 1)
        exact = x.float().double().movedim(1, 0).flatten(1)
        assert found.count == 2000
        assert torch.allclose(found.mean, exact.mean(1), rtol=1e-12)
        assert torch.allclose(found.std, exact.std(1, correction=0), rtol=1e-6)
        assert torch.allclose(found.variance, exact.var(1), rtol=1e-6)

    def test_of_narrow_dtypes_single_samples_and_nothing(self):
        x, found = torch.randn(8, 3).bfloat16(), Moments()
        for row in x:
            found.add(row, -1)
        found.add(x[:0], 1)
        assert torch.allclose(found.std, x.double().std(0, correction=0))
        instances = InstanceMoments()
        for sample in (y := torch.randn(5, 3, 9).double()):
            instances.add(sample, 0)
        assert torch.allclose(instances.variance, y.var(2).mean(0)) and torch.allclose(
            instances.mean, y.mean((0, 2))
        )

    def test_what_has_no_tokens_stays_whole(self):
        mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
        x = torch.arange(30.0).view(2, 3, 5)
        for values, axis in ((x, -1), (x.mT, 1), (x.flatten(0, 1), -1)):
            assert torch.equal(unpadded(values, axis, mask)[0], x.flatten(0, 1)[[0, 1, 3]])
        assert unpadded(torch.ones(2, 5), -1, mask)[0].shape == (2, 5)
        assert unpadded(torch.ones(2, 7, 5), -1, mask)[0].shape == (2, 7, 5)
