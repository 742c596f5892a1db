"""The forms of ``data=``: what batches they give, and what is said of those that can't be read."""

import json

import pytest
import torch
from torch import nn

import metanet
from metanet import MetanetError
from metanet.evaluation.data import load_data
from metanet.sources import load_source


def picture(path, color, size=(8, 8)):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def folder(tmp_path):
    """Three cats, red, and two dogs, blue."""
    for n in range(3):
        picture(tmp_path / "pets" / "cat" / f"{n}.png", (255, 0, 0))
    for n in range(2):
        picture(tmp_path / "pets" / "dog" / "deeper" / f"{n}.JPG", (0, 0, 255), (16, 8))
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "pets"


def convolution(channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def all_of(batches):
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


class TestImages:
    def test_classes_are_subfolders(self, folder):
        data = load_data(str(folder), convolution(), "m:f", {"size": 8, "batch_size": 2})
        assert (len(data), data.samples, [len(x) for x, _ in data]) == (3, 5, [2, 2, 1])
        x, y = all_of(data)
        assert x.shape == (5, 3, 8, 8) and sorted(y.tolist()) == [0, 0, 0, 1, 1]
        assert torch.allclose(x[y == 0].mean((0, 2, 3)), torch.tensor([1.0, 0, 0]))
        assert x[y == 1][:, 2].mean() > 0.95  # JPEG is not exact
        again = all_of(data)
        assert torch.equal(x, again[0]) and torch.equal(y, again[1])

    def test_the_order_is_drawn_once_and_the_limit_takes_from_it(self, folder):
        orders = [
            all_of(load_data(str(folder), convolution(), "m:f", {"size": 4}, seed))[1]
            for seed in range(6)
        ]
        assert len({tuple(o.tolist()) for o in orders}) > 1
        first = all_of(load_data(str(folder), convolution(), "m:f", {"size": 4, "limit": 3}, 1))[1]
        assert first.tolist() == orders[1][:3].tolist()

    def test_the_middle_of_the_scaled_image(self, tmp_path):
        from PIL import Image

        image = Image.new("L", (12, 4))
        image.paste(255, (4, 0, 8, 4))  # the middle third is white
        (tmp_path / "d" / "one").mkdir(parents=True)
        image.save(tmp_path / "d" / "one" / "x.png")
        x, _ = all_of(load_data(str(tmp_path / "d"), convolution(1), "m:f", {"size": [4, 4]}))
        assert torch.equal(x, torch.ones(1, 1, 4, 4))
        x, _ = all_of(load_data(str(tmp_path / "d"), convolution(1), "m:f", shape=(1, 4, 12)))
        assert x.shape == (1, 1, 4, 12) and x.mean() == pytest.approx(1 / 3)

    def test_timm_says_size_and_scale(self, folder):
        model = load_source("timm:test_resnet", num_classes=2)
        x, y = all_of(load_data(str(folder), model, "timm:test_resnet"))
        config = model.pretrained_cfg
        assert x.shape[1:] == config["input_size"]
        red = [
            (value - m) / s
            for value, m, s in zip((1, 0, 0), config["mean"], config["std"], strict=True)
        ]
        assert torch.allclose(x[y == 0].mean((0, 2, 3)), torch.tensor(red), atol=1e-5)
        x, y = all_of(
            load_data(
                str(folder),
                model,
                "timm:test_resnet",
                {"mean": 0.5, "std": [1, 1, 0.5], "size": 32},
            )
        )
        assert torch.allclose(x[y == 0].mean((0, 2, 3)), torch.tensor([0.5, -0.5, -1]), atol=1e-5)
        assert x.shape == (5, 3, 32, 32)

    def test_a_grey_network_of_timm(self, folder):
        model = load_source("timm:test_resnet", in_chans=1)
        assert next(iter(load_data(str(folder), model, "timm:test_resnet")))[0].shape[1] == 1

    def test_a_hugging_face_folder_says_them_too(self, folder, tmp_path):
        said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 6, "width": 10}}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
        x, y = all_of(load_data(str(folder), convolution(), f"hf:{tmp_path}"))
        assert x.shape == (5, 3, 6, 10)
        assert torch.allclose(x[y == 0].mean((0, 2, 3)), torch.tensor([1.0, -1, -1]), atol=1e-5)

    @pytest.mark.parametrize(
        ("make", "args", "message"),
        [
            (
                lambda p: p.mkdir(),
                {},
                "has no subfolders: images are expected in one subfolder a class",
            ),
            (lambda p: (p / "cat").mkdir(parents=True), {"size": 4}, "cat has no images"),
            (
                lambda p: picture(p / "cat" / "0.png", 0),
                {},
                "nothing says how large .* give data_args.size=",
            ),
            (
                lambda p: picture(p / "cat" / "0.png", 0),
                {"size": "8x8"},
                "data_args.size=8x8: give one number",
            ),
            (
                lambda p: picture(p / "cat" / "0.png", 0),
                {"size": 8, "std": 0},
                r"data_args.std=\[0, 0, 0\]: give",
            ),
            (
                lambda p: picture(p / "cat" / "0.png", 0),
                {"size": 8, "mean": [1, 2]},
                r"data_args.mean=\[1, 2\]",
            ),
            (
                lambda p: picture(p / "cat" / "0.png", 0),
                {"sise": 8},
                "data_args.sise: .* takes .*data_args.size",
            ),
            (
                lambda p: picture(p / "cat" / "0.png", 0),
                {"limit": 0},
                "data_args.limit=0: give a number, 1 or more",
            ),
        ],
    )
    def test_says_what_is_wrong(self, make, args, message, tmp_path):
        make(tmp_path / "d")
        with pytest.raises(MetanetError, match=message):
            load_data(str(tmp_path / "d"), convolution(), "m:f", args)

    def test_names_an_image_that_is_broken(self, folder):
        (folder / "cat" / "9.png").write_bytes(b"\x89PNG nothing")
        with pytest.raises(MetanetError, match=r"the image .*cat.9\.png can't be read"):
            all_of(load_data(str(folder), convolution(), "m:f", {"size": 8}))


class TestTensors:
    def test_inputs_and_targets(self, tmp_path):
        path = tmp_path / "odd (1)=x.safetensors"
        x, y = torch.randn(7, 3), torch.arange(7)
        metanet.save_checkpoint(path, {"inputs": x, "targets": y})
        data = load_data(str(path), nn.Linear(3, 2), "m:f", {"batch_size": 3})
        got_x, got_y = all_of(data)
        assert (
            torch.equal(got_x, x[got_y])
            and sorted(got_y.tolist()) == list(range(7)) != got_y.tolist()
        )

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({"inputs": torch.ones(2)}, "has no targets; it has inputs"),
            ({"x": torch.ones(2)}, "has no inputs and no targets"),
            ({"inputs": torch.ones(3, 1), "targets": torch.ones(2)}, "must have one row a sample"),
        ],
    )
    def test_says_what_is_wrong(self, tensors, message, tmp_path):
        metanet.save_checkpoint(tmp_path / "x.safetensors", tensors)
        with pytest.raises(MetanetError, match=message):
            load_data(str(tmp_path / "x.safetensors"), nn.Linear(1, 1), "m:f")
        with pytest.raises(MetanetError, match="does not exist"):
            load_data(str(tmp_path / "y.safetensors"), nn.Linear(1, 1), "m:f")


@pytest.fixture
def language_model(tmp_path):
    """A tiny GPT-2 with the tokenizer of its folder, whose tokens are characters, and a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {c: n for n, c in enumerate("abcdefgh ")}
    tokenizer = Tokenizer(models.WordLevel({**letters, "?": 9}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(
        tmp_path / "lm"
    )
    (tmp_path / "text.txt").write_text("abc def gh" * 5)
    model = load_source("hf:gpt2", n_layer=1, n_embd=8, n_head=2, vocab_size=10, n_positions=16)
    return model, tmp_path / "lm", tmp_path / "text.txt"


class TestText:
    def test_windows_of_tokens(self, language_model):
        model, folder, text = language_model
        data = load_data(str(text), model, f"hf:{folder}", {"window": 8, "batch_size": 4})
        batches = list(data)
        assert data.samples == 6  # of 50 tokens; two are left over
        assert [b["input_ids"].shape for b in batches] == [(4, 8), (2, 8)]
        assert all(torch.equal(b["input_ids"], b["labels"]) for b in batches)
        windows = {tuple(row) for b in batches for row in b["input_ids"].tolist()}
        assert tuple("abcdefgh ".index(c) for c in "abc def ") in windows
        loss = model(**batches[0]).loss
        assert torch.isfinite(loss)

    def test_as_long_as_the_network_and_the_text_allow(self, language_model):
        model, folder, text = language_model
        assert next(iter(load_data(str(text), model, str(folder))))["input_ids"].shape == (3, 16)
        text.write_text("abc")
        assert next(iter(load_data(str(text), model, str(folder))))["input_ids"].tolist() == [
            [0, 1, 2]
        ]

    def test_a_barrier_of_language_models(self, language_model):
        model, folder, text = language_model
        arch = metanet.trace(model)
        state = model.state_dict()
        b = arch.spec.sample(torch.Generator().manual_seed(1))(state)
        data = load_data(str(text), model, f"hf:{folder}")
        curve = metanet.barrier(
            state, b, model=model, data=data, points=3, align="weight", arch=arch
        )
        assert curve.barrier < 1e-5 and curve.loss[0] == pytest.approx(
            curve.unaligned.loss[-1], abs=1e-5
        )

    def test_says_what_is_wrong(self, language_model, tmp_path):
        model, folder, text = language_model
        with pytest.raises(
            MetanetError, match="for causal language models of transformers .* Linear is none"
        ):
            load_data(str(text), nn.Linear(2, 2), "m:f")
        masked = load_source(
            "hf:bert",
            num_hidden_layers=1,
            hidden_size=8,
            num_attention_heads=2,
            intermediate_size=8,
        )
        with pytest.raises(MetanetError, match="BertForMaskedLM is none"):
            load_data(str(text), masked, f"hf:{folder}")
        with pytest.raises(
            MetanetError, match="gpt2 is no folder; give data_args.tokenizer=FOLDER"
        ):
            load_data(str(text), model, "hf:gpt2")
        (tmp_path / "empty").mkdir()
        with pytest.raises(MetanetError, match="has no tokenizer that can be read"):
            load_data(str(text), model, "hf:gpt2", {"tokenizer": str(tmp_path / "empty")})
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(
            json.dumps({**config, "model_max_length": "16"})
        )
        with pytest.raises(
            MetanetError, match="lm has no tokenizer that can be read: '>' not supported"
        ):
            load_data(str(text), model, f"hf:{folder}")
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        with pytest.raises(
            MetanetError, match="data_args.window=17: give a number of tokens from 2 to 16"
        ):
            load_data(str(text), model, f"hf:{folder}", {"window": 17})
        small = load_source("hf:gpt2", n_layer=1, n_embd=8, n_head=2, vocab_size=4, n_positions=16)
        with pytest.raises(MetanetError, match="tokens up to 8, but the network knows 4"):
            load_data(str(text), small, f"hf:{folder}")
        text.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(MetanetError, match="is no text in UTF-8"):
            load_data(str(text), model, f"hf:{folder}")
        text.write_text("")
        with pytest.raises(MetanetError, match="has 0 tokens: there is nothing to predict"):
            load_data(str(text), model, f"hf:{folder}")


FACTORIES = """
import torch
from torch import nn

def pairs(count=10, batch_size=4):
    x = torch.arange(float(count)).view(-1, 1)
    return list(zip(x.split(batch_size), x.split(batch_size)))

def dicts():
    return [{"x": torch.ones(4, 2), "scale": 3, "labels": torch.ones(4)}] * 2

def generator():
    yield torch.ones(1), torch.ones(1)

def network():
    return nn.Linear(1, 1)

def bare():
    return [3]
"""


class TestFactories:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path, monkeypatch):
        (tmp_path / "data_factories_here.py").write_text(FACTORIES)
        monkeypatch.syspath_prepend(str(tmp_path))

    def load(self, name, **args):
        return load_data(f"data_factories_here:{name}", nn.Linear(1, 1), "m:f", args)

    def test_what_it_returns(self):
        assert [len(x) for x, _ in self.load("pairs")] == [10]  # it is told the batch size, 64
        assert [len(x) for x, _ in self.load("pairs", count=6, batch_size=4)] == [4, 2]

    def test_the_limit_cuts(self):
        data = self.load("pairs", batch_size=4, limit=6)
        assert [len(x) for x, _ in data] == [len(x) for x, _ in data] == [4, 2]
        cut = list(self.load("dicts", limit=3))
        assert len(cut) == 1
        assert cut[0]["x"].shape == (3, 2) and cut[0]["scale"] == 3 and len(cut[0]["labels"]) == 3

    def test_says_what_is_wrong(self):
        with pytest.raises(MetanetError, match="returned a generator, which can be read only once"):
            self.load("generator")
        with pytest.raises(MetanetError, match="returned Linear, expected an iterable of batches"):
            self.load("network")
        with pytest.raises(
            MetanetError, match=r"can't be called with data_args.number=3: .* takes \(count=10"
        ):
            self.load("pairs", number=3)
        with pytest.raises(MetanetError, match="has no pears; did you mean pairs"):
            self.load("pears")
        with pytest.raises(MetanetError, match="a batch has no tensor with one row a sample"):
            list(self.load("bare", limit=1))


def test_nothing_there():
    with pytest.raises(
        MetanetError,
        match="data=nowhere: there is no such folder or file. data= is a folder of images",
    ):
        load_data("nowhere", nn.Linear(1, 1), "m:f")
