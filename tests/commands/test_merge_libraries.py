"""metanet merge on tiny networks of transformers and timm: shards, tokenizers, heads, layers;
loaded back and run."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import metanet
from metanet import cli

IDS = torch.tensor([[1, 5, 2, 9, 30, 7], [3, 3, 8, 21, 0, 11]])


def tokenizer(folder, words):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(
        models.WordLevel({word: k for k, word in enumerate(words)}, unk_token=words[0])
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token=words[0]).save_pretrained(folder)


def llama(folder, seed, **config):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    given = {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        **config,
    }
    made = LlamaForCausalLM(
        LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, **given)
    ).eval()
    made.save_pretrained(folder, max_shard_size="8KB")
    return made


def gpt2(folder, seed):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=40,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
    )
    made = GPT2LMHeadModel(config).eval()
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two Llamas in shards with a tokenizer, two GPT2s whose head is the embedding."""
    root = tmp_path_factory.mktemp("networks")
    words = ["[UNK]", *(f"w{k}" for k in range(39))]
    for seed, name in enumerate("AB"):
        llama(root / name, seed)
        tokenizer(root / name, words)
        gpt2(root / f"gpt2-{name}", seed)
    return root


@pytest.fixture
def merge(calls, capsys, folders):
    """Run the command beside copies of all of these: ``merge("out=...")`` -> exit code, stdout,
    stderr."""
    shutil.copytree(folders, Path.cwd(), dirs_exist_ok=True)

    def run(*args, command="merge"):
        given = {"models": "[A,B]", "out": "out"} if command == "merge" else {}
        given.update(arg.split("=", 1) for arg in args)
        code = cli.main([command, *(f"{key}={value}" for key, value in given.items())])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def load(folder, kind="LlamaForCausalLM", **options):
    import transformers

    model, told = getattr(transformers, kind).from_pretrained(
        folder, output_loading_info=True, **options
    )
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def averaged(first, second):
    """A network with the mean of the weights of two, and its logits."""
    state = second.state_dict()
    mean = {
        n: (t + state[n]) / 2 if t.is_floating_point() else t for n, t in first.state_dict().items()
    }
    first.load_state_dict(mean)
    with torch.no_grad():
        return first, first(IDS).logits


def test_a_llama_in_shards(merge):
    from transformers import AutoTokenizer

    code, out, err = merge("max_shard_size=9KB")
    assert code == 0, err
    names = {p.name for p in Path("out").iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    } <= names
    assert {
        "model.safetensors.index.json",
        "model-00001-of-00004.safetensors",
        "merge_config.yaml",
    } <= names
    index = json.loads(Path("out/model.safetensors.index.json").read_text())
    assert (
        index["weight_map"].keys()
        == json.loads(Path("A/model.safetensors.index.json").read_text())["weight_map"].keys()
    )
    _, expected = averaged(load("A"), load("B"))
    with torch.no_grad():
        torch.testing.assert_close(load("out")(IDS).logits, expected, rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained("out")("w3 w0 odd")["input_ids"] == [4, 1, 0]
    front = yaml.safe_load(Path("out/README.md").read_text().split("---\n")[1])
    assert (front["base_model"], front["library_name"]) == (["A", "B"], "transformers")
    assert Path("out/README.md").read_text().count("/model-0000") == 8
    assert "warning" not in out


def test_goes_on_from_the_shards_of_a_stopped_merge(merge, monkeypatch):
    from metanet.merging.writing import _saving

    saved, real = [], _saving.save_checkpoint

    def full(path, *args):
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        saved.append(path.name)
        real(path, *args)

    monkeypatch.setattr(_saving, "save_checkpoint", full)
    code, _, err = merge("max_shard_size=9KB")
    assert code == 1 and "out: No space left on device;" in err
    assert "make room" in err and " 2 of 4 shards are finished and wait in " in err
    assert not Path("out").exists()
    monkeypatch.setattr(
        _saving,
        "save_checkpoint",
        lambda path, *args: saved.append(path.name) or real(path, *args),
    )
    code, _, err = merge("max_shard_size=9KB")
    assert code == 0, err
    assert saved == sorted(p.name for p in Path("out").glob("model-*")) and len(saved) == 4
    _, expected = averaged(load("A"), load("B"))
    with torch.no_grad():
        torch.testing.assert_close(load("out")(IDS).logits, expected, rtol=0, atol=1e-6)
    assert not [p for p in Path().iterdir() if ".partial" in p.name]


def test_stored_as_bfloat16(merge):
    code, _, err = merge("out_dtype=bfloat16")
    assert code == 0, err
    assert json.loads(Path("out/config.json").read_text())["dtype"] == "bfloat16"
    mean, _ = averaged(load("A"), load("B"))
    found = load("out").state_dict()
    assert all(torch.equal(t, mean.state_dict()[n].bfloat16()) for n, t in found.items())
    code, _, err = merge("models=[out,out]", "out=again")  # what is stored in bfloat16 stays so
    assert code == 0, err
    again = load("again").state_dict()
    assert all(torch.equal(t, found[n]) and t.dtype is torch.bfloat16 for n, t in again.items())


@pytest.mark.parametrize("arch", [[], ["arch=hf:gpt2-A"]], ids=["by names alone", "by the network"])
def test_a_tied_head_stays_tied(merge, arch):
    code, _, err = merge("models=[gpt2-A,gpt2-B]", *arch)
    assert code == 0, err
    stored = load_file("out/model.safetensors")
    assert stored.keys() == load_file("gpt2-A/model.safetensors").keys()
    assert not any(name.endswith("lm_head.weight") for name in stored)
    _, expected = averaged(load("gpt2-A", "GPT2LMHeadModel"), load("gpt2-B", "GPT2LMHeadModel"))
    found = load("out", "GPT2LMHeadModel")
    assert found.lm_head.weight is found.transformer.wte.weight
    with torch.no_grad():
        torch.testing.assert_close(found(IDS).logits, expected, rtol=0, atol=1e-6)


class TestHeads:
    """One of two Llamas stores its head besides the embedding, the other ties it."""

    @pytest.fixture
    def tied(self, merge):
        llama("tied", 3, tie_word_embeddings=True)
        shutil.copytree("tied", "twice")
        state = dict(metanet.load_checkpoint("tied"))
        for path in Path("twice").glob("model*"):
            path.unlink()
        return state

    def test_the_same_values_twice(self, merge, tied):
        state = {**tied, "lm_head.weight": tied["model.embed_tokens.weight"].clone()}
        save_file(state, "twice/model.safetensors", {"format": "pt"})
        config = json.loads(Path("twice/config.json").read_text())
        del config["tie_word_embeddings"]  # then a Llama has a head of its own
        Path("twice/config.json").write_text(json.dumps(config))
        for models in ("[twice,tied]", "[tied,twice]"):
            code, _, err = merge(f"models={models}", f"out=out{models}")
            assert code == 0, err
            found = load(f"out{models}")
            assert found.lm_head.weight is found.model.embed_tokens.weight
            assert all(torch.equal(t, tied[n]) for n, t in found.state_dict().items() if n in tied)
            assert (
                json.loads(Path(f"out{models}/config.json").read_text())["tie_word_embeddings"]
                is True
            )
        assert "left out: lm_head.weight" in Path("out[twice,tied]/README.md").read_text()

    def test_other_values(self, merge, tied):
        save_file(
            {**tied, "lm_head.weight": torch.randn(40, 16)},
            "twice/model.safetensors",
            {"format": "pt"},
        )
        code, _, err = merge("models=[twice,tied]")
        assert (
            code == 1
            and "Only one of them stores lm_head.weight, with values other than its embedding's"
            in err
        )
        assert not Path("out").exists()


def test_other_vocabularies(merge):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained("B")
    model.resize_token_embeddings(44, mean_resizing=False)
    model.save_pretrained("larger")
    code, _, err = merge("models=[A,larger]")
    assert (
        code == 1
        and "The vocabularies differ (40 and 44 rows in" in err
        and "resize the embeddings" in err
    )
    assert not Path("out").exists()


@pytest.mark.parametrize("arch", [[], ["arch=hf:A"]], ids=["by names alone", "by the network"])
def test_layers_one_after_another(merge, arch):
    slices = "slices=[{0: [0,2]}, {1: [1,3]}, {0: [2,3]}]"
    code, _, err = merge("method=passthrough", slices, *arch)
    assert code == 0, err
    config = json.loads(Path("out/config.json").read_text())
    assert config["num_hidden_layers"] == 5
    found, a, b = load("out"), load("A").state_dict(), load("B").state_dict()
    for made, (state, layer) in enumerate([(a, 0), (a, 1), (b, 1), (b, 2), (a, 2)]):
        for name, tensor in found.model.layers[made].state_dict().items():
            assert torch.equal(tensor, state[f"model.layers.{layer}.{name}"])
    assert torch.equal(found.model.embed_tokens.weight, a["model.embed_tokens.weight"])
    assert found(IDS).logits.isfinite().all()


def test_what_lies_beside(merge):
    """Licence and templates come along; what a run says of itself, weights and code do not."""
    for name, text in {
        "LICENSE": "free", "chat_template.jinja": "{{ x }}", "trainer_state.json": "{}",
        "all_results.json": "{}", "metrics.json": "{}", "modeling_mine.py": "raise SystemExit",
        "training_args.bin": "", "notes.md": "",
    }.items():  # fmt: skip
        Path("A", name).write_text(text)
    config = json.loads(Path("A/config.json").read_text())
    Path("A/config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModel": "modeling_mine.Mine"}})
    )
    other = json.loads(Path("B/config.json").read_text())
    Path("B/config.json").write_text(json.dumps({**other, "rms_norm_eps": 0.5}))
    Path("B/chat_template.jinja").write_text("{{ y }}")
    tokenizer("B", ["[UNK]", *(f"other{k}" for k in range(39))])
    code, out, err = merge()
    assert code == 0, err
    assert {p.name for p in Path("out").iterdir()} == {
        "LICENSE", "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        "merge_config.yaml", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    card = Path("out/README.md").read_text()
    for warning in (
        "code is not carried along: modeling_mine.py of A, "
        "which its config.json needs (auto_map): copy it yourself",
        "the config.json of A is carried along, that of B says otherwise: rms_norm_eps 1e-06 and 0.5",
        "the tokenizer of A is carried along and differs from that of B (tokenizer.json)",
        "the chat template of A is carried along and differs from that of B (chat_template.jinja)",
    ):
        assert f"warning: {warning}" in out and f"- {warning}" in card


def test_files_come_from_the_base(merge):
    llama("base", 5)
    Path("base/mark.txt").write_text("of the base")
    code, _, err = merge("base=base", "method=sce")
    assert code == 0, err
    assert Path("out/mark.txt").read_text() == "of the base"
    front = yaml.safe_load(Path("out/README.md").read_text().split("---\n")[1])
    assert front["base_model"] == ["base", "A", "B"]
    load("out")


def test_aligned_first(merge):
    arch = metanet.trace(load("A"))
    b = arch.spec.sample(torch.Generator().manual_seed(2))(load("A").state_dict())
    metanet.save_checkpoint("b.safetensors", b)
    code, _, err = merge("models=[A,b.safetensors]", "arch=hf:A", "matcher=weight")
    assert code == 0, err
    a = load("A").state_dict()
    assert all(torch.equal(t, a[n]) for n, t in load("out").state_dict().items())
    Path("text.txt").write_text(" ".join(f"w{k % 39}" for k in range(400)))
    data = ["data=text.txt", "data_args.window=8", "data_args.limit=8", "points=3", "logger=none"]
    code, _, err = merge("a=A", "b=out", "arch=hf:A", *data, command="barrier")
    assert code == 0, err
    numbers = json.loads(Path("outputs/barrier/now/metrics.json").read_text())
    assert numbers["loss/barrier"] == pytest.approx(0, abs=1e-6) and numbers["loss/a"] > 1


def test_a_network_of_timm(merge, timm_pair, tmp_path):
    import timm
    from PIL import Image

    model, a = timm_pair
    arch = ["arch=timm:test_resnet", "arch_args.num_classes=3"]
    code, _, err = merge("models=[a.safetensors,b.safetensors]", *arch, "matcher=weight")
    assert code == 0, err
    found = load_file("out/model.safetensors")
    assert all(torch.equal(t, a[n]) for n, t in found.items()) and found.keys() == a.keys()
    assert "library_name: timm" in Path("out/README.md").read_text()
    loaded = timm.create_model(
        "test_resnet", num_classes=3, checkpoint_path="out/model.safetensors"
    ).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded(x), model.eval()(x))
    for n in range(6):
        path = tmp_path / "images" / "abc"[n % 3] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(torch.randint(256, (40, 48, 3), dtype=torch.uint8).numpy()).save(path)
    data = [f"data={tmp_path / 'images'}", "points=3", "data_args.size=64", "logger=none"]
    code, _, err = merge(
        "a=b.safetensors", "b=out", *arch, *data, "matcher=weight", command="barrier"
    )
    assert code == 0, err
    numbers = json.loads(Path("outputs/barrier/now/metrics.json").read_text())
    assert abs(numbers["loss/barrier"]) < 1e-5 * abs(numbers["loss/a"])
    middle = list(csv.DictReader(Path("outputs/barrier/now/barrier.csv").read_text().splitlines()))[
        1
    ]
    assert float(middle["loss"]) == pytest.approx(numbers["loss/a"], rel=1e-5)
    assert float(middle["unaligned_loss"]) != pytest.approx(numbers["loss/a"], rel=1e-3)


def moved_copy(kind, config, folder):
    """A network whose files transformers lays out otherwise than its module, and one with its
    neurons relabelled."""
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, kind)(getattr(transformers, kind).config_class(**config)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    made.save_pretrained(folder / "one")
    moved = metanet.trace(made).spec.sample(torch.Generator().manual_seed(1))(made.state_dict())
    assert any(not torch.equal(moved[n], t) for n, t in made.state_dict().items())
    made.load_state_dict(moved)
    made.save_pretrained(folder / "moved")


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LAID_OUT = {
    "ViTForImageClassification": {**SMALL, "image_size": 16, "patch_size": 8},
    "MixtralForCausalLM": {
        **SMALL,
        "vocab_size": 40,
        "num_key_value_heads": 2,
        "num_local_experts": 3,
    },
}


@pytest.mark.filterwarnings("ignore")  # of transformers about tiny configurations
@pytest.mark.parametrize("kind", LAID_OUT)
def test_files_that_are_laid_out_otherwise_than_the_module(kind, merge):
    transformers = pytest.importorskip("transformers", minversion="5.0")
    moved_copy(kind, LAID_OUT[kind], Path())
    assert set(load_file("one/model.safetensors")) != set(
        getattr(transformers, kind).from_pretrained("one").state_dict()
    )
    code, _, err = merge("models=[one,moved]", "matcher=weight", "arch=hf:one")
    assert code == 0, err
    first, merged = load_file("one/model.safetensors"), load_file("out/model.safetensors")
    assert set(merged) == set(first)
    assert all(torch.equal(merged[name], tensor) for name, tensor in first.items())
    load("out", kind)
    for command, args in {
        "align": ("a=one", "b=moved", "arch=hf:one", "out=aligned"),
        "graph": ("checkpoint=moved", "arch=hf:one", "out=graph", "draw=false"),
    }.items():
        code, _, err = merge(*args, command=command)
        assert code == 0, err
    aligned = load_file("aligned/model.safetensors")
    assert all(torch.equal(aligned[name], tensor) for name, tensor in first.items())
