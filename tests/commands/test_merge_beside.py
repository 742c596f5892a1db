"""What is written beside a merge's weights fits them: vocabulary, ties, tokenizer, parts of
pipelines; nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import metanet
from metanet import cli


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``run("command", "key=value", ...)`` in an empty folder -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        code = cli.main(list(args))
        return (code, *capsys.readouterr())

    return run


def written(folder):
    return json.loads(Path(folder, "config.json").read_text())


class TestVocabulary:
    """Tables of one model are taken: the configuration goes with them, and network libraries load
    the result."""

    def llama(self, folder, seed, vocabulary, tied=False):
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=tied, bos_token_id=seed,
            eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        made = LlamaForCausalLM(config)
        made.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            Path(folder, name).write_text(json.dumps({"of": folder}))
        return made

    def loaded(self, folder):
        from transformers import LlamaForCausalLM

        model, told = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(
            told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        )
        return model

    @pytest.mark.parametrize("base", [False, True])
    def test_follows_the_embedding_that_is_taken(self, base, run):
        self.llama("small", 1, 10)
        large = self.llama("large", 2, 12)
        self.llama("base", 3, 10)
        given = ["base=base", "method=task_arithmetic"] if base else []
        code, _, err = run("merge", "models=[small,large]", *given, "out=out")
        assert code == 1 and "The vocabularies differ" in err
        overrides = 'overrides={"*embed_tokens*": {take: 1}, "lm_head*": {take: 1}}'
        code, out, err = run("merge", "models=[small,large]", *given, overrides, "out=out")
        assert code == 0, err
        config = written("out")
        assert config["vocab_size"] == 12 and config["bos_token_id"] == 2
        assert (
            "the tokenizer is that of large, as the embedding is" in out and "vocab_size" not in out
        )
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            assert json.loads(Path("out", name).read_text()) == {"of": "large"}
        model = self.loaded("out")
        assert torch.equal(model.lm_head.weight, large.lm_head.weight)
        assert torch.equal(model.model.embed_tokens.weight, large.model.embed_tokens.weight)
        assert written("out") | {"vocab_size": 10, "bos_token_id": 0} == written(
            "base" if base else "small"
        ) | {"bos_token_id": 0}

    def test_of_the_folder_whose_configuration_it_is(self, run):
        """The first input is a file without a configuration, of another vocabulary than the folder
        that has one."""
        self.llama("folder", 1, 10)
        large = self.llama("large", 2, 12)
        torch.save(large.state_dict(), "large.pt")
        overrides = 'overrides={"*embed_tokens*": {take: 0}, "lm_head*": {take: 0}}'
        code, out, err = run("merge", "models=[large.pt,folder]", overrides, "out=out")
        assert code == 0, err
        assert written("out")["vocab_size"] == 12
        assert (
            "the embedding is that of large.pt, which has no folder with a tokenizer: that of folder stays"
            in out
        )
        self.loaded("out")

    def test_stays_where_the_embedding_of_the_first_is_taken(self, run):
        self.llama("small", 1, 10)
        self.llama("large", 2, 12)
        overrides = 'overrides={"*embed_tokens*": {take: 0}, "lm_head*": {take: 0}}'
        assert run("merge", "models=[small,large]", overrides, "out=out")[0] == 0
        assert (
            written("out") == written("small")
            and json.loads(Path("out/tokenizer.json").read_text())["of"] == "small"
        )
        self.loaded("out")

    def test_tables_of_different_models_are_refused(self, run):
        self.llama("small", 1, 10)
        self.llama("large", 2, 12)
        overrides = 'overrides={"*embed_tokens*": {take: 1}, "lm_head*": {take: 0}}'
        code, _, err = run("merge", "models=[small,large]", overrides, "out=out")
        assert (
            code == 1
            and "lm_head.weight would have 10 rows and model.embed_tokens.weight 12" in err
        )
        assert not Path("out").exists()

    def test_a_head_of_its_own_unties(self, run):
        self.llama("tied", 1, 10, tied=True)
        own = self.llama("own", 2, 10)
        code, _, err = run("merge", "models=[tied,own]", "out=out")
        assert code == 1 and 'overrides={"lm_head.weight": {"take": 1}}' in err
        assert (
            run("merge", "models=[tied,own]", 'overrides={"lm_head.weight": {take: 1}}', "out=out")[
                0
            ]
            == 0
        )
        assert written("out")["tie_word_embeddings"] is False
        model = self.loaded("out")
        assert torch.equal(model.lm_head.weight, own.lm_head.weight)
        assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)

    def test_a_head_that_repeats_the_embedding_stays_tied(self, run):
        for seed, name in enumerate(("one", "two")):
            self.llama(name, seed, 10, tied=True)
            state = load_file(f"{name}/model.safetensors")
            save_file(
                {**state, "lm_head.weight": state["model.embed_tokens.weight"].clone()},
                f"{name}/model.safetensors", {"format": "pt"},
            )  # fmt: skip
        assert (
            run(
                "merge",
                "models=[one,two]",
                "base=one",
                "method=dare_linear",
                "method.density=0.5",
                "out=out",
            )[0]
            == 0
        )
        stored = load_file("out/model.safetensors")
        assert torch.equal(stored["lm_head.weight"], stored["model.embed_tokens.weight"])
        assert written("out")["tie_word_embeddings"] is True
        self.loaded("out")


def sentences(name, seed, dense=True, mean=True, weights="model.safetensors", root=""):
    """A folder as sentence-transformers writes it."""
    generator = torch.Generator().manual_seed(seed)
    kinds = [
        (root, "Transformer"),
        ("1_Pooling", "Pooling"),
        *([("2_Dense", "Dense")] if dense else []),
        ("3_Norm", "Norm"),
    ]
    for part, _ in kinds[:-1]:
        Path(name, part).mkdir(parents=True, exist_ok=True)
    parts = {root: {"encoder.weight": torch.randn(4, 4, generator=generator)}}
    if dense:
        parts["2_Dense"] = {
            "linear.weight": torch.randn(3, 4, generator=generator),
            "linear.bias": torch.randn(3),
        }
        Path(name, "2_Dense/config.json").write_text('{"out_features": 3}')
    for part, state in parts.items():
        save_file(state, Path(name, part, weights)) if weights.endswith("s") else torch.save(
            state, Path(name, part, weights)
        )
    Path(name, root, "config.json").write_text('{"model_type": "bert"}')
    Path(name, "1_Pooling/config.json").write_text(json.dumps({"mean": mean}))
    rows = [
        {"idx": k, "name": str(k), "path": p, "type": f"models.{kind}"}
        for k, (p, kind) in enumerate(kinds)
    ]
    Path(name, "modules.json").write_text(json.dumps(rows))
    return {
        f"{part}/{n}" if part else n: t for part, state in parts.items() for n, t in state.items()
    }


class TestPipelines:
    @pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
    @pytest.mark.parametrize("root", ["", "0_Transformer"])
    def test_all_parts_are_merged_or_carried(self, weights, root, run):
        a, b = (
            sentences("a", 1, weights=weights, root=root),
            sentences("b", 2, weights=weights, root=root),
        )
        code, _, err = run(
            "merge", "models=[a,b]", "method.weights=[0.25,0.75]", "max_shard_size=40", "out=out"
        )
        assert code == 0, err
        found = metanet.load_checkpoint("out")
        assert set(found) == set(a)
        expected = metanet.merge([a, b], weights=[0.25, 0.75])
        assert all(torch.equal(found[name], expected[name]) for name in a)
        assert Path("out/2_Dense/model.safetensors.index.json").is_file()
        for name in (
            "modules.json",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            Path(root, "config.json"),
        ):
            assert Path("out", name).read_bytes() == Path("a", name).read_bytes()
        digests = Path("out/merge_config.yaml").read_text()
        assert all(f"{each}/2_Dense/{weights}" in digests for each in "ab")

    def test_options_by_part(self, run):
        a, _ = sentences("a", 1), sentences("b", 2)
        assert run("merge", "models=[a,b]", 'overrides={"2_Dense/*": {take: 0}}', "out=out")[0] == 0
        found = metanet.load_checkpoint("out")
        assert torch.equal(found["2_Dense/linear.weight"], a["2_Dense/linear.weight"])
        assert not torch.equal(found["encoder.weight"], a["encoder.weight"])

    def test_parts_that_differ_in_what_cannot_be_merged(self, run):
        sentences("a", 1), sentences("b", 2, mean=False), sentences("c", 3, dense=False)
        code, _, err = run("merge", "models=[a,b]", "out=out")
        assert code == 1 and "1_Pooling/config.json of 'a' and 'b' differ" in err
        Path("b/1_Pooling/config.json").write_text('{"mean": true, "transformers_version": "5"}')
        assert run("merge", "models=[a,b]", "out=alike")[0] == 0
        code, _, err = run("merge", "models=[a,c]", "out=out")
        assert code == 1 and "2_Dense/linear" in err
        assert not Path("out").exists()

    def test_a_part_that_would_be_lost(self, run):
        sentences("a", 1), sentences("b", 2)
        code, _, err = run("merge", "models=[a/model.safetensors,b/model.safetensors]", "out=out")
        assert code == 1 and "whose part 2_Dense has weights of its own, which would be lost" in err

    def test_commands_about_one_network_name_the_parts(self, run):
        sentences("a", 1), sentences("b", 2)
        Path("one_network.py").write_text(
            "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        "
            "super().__init__()\n"
            "        self.encoder = nn.Linear(4, 4, bias=False)\n    def forward(self, "
            "x):\n        return self.encoder(x)\ndef net():\n    return Net()\n"
        )
        of = ["arch=one_network:net", "input_shape=[4]", "out=out"]
        for command in (
            ["align", "a=a", "b=b", *of],
            ["graph", "checkpoint=a", *of],
            ["merge", "models=[a,b]", *of],
        ):
            code, _, err = run(*command)
            assert code == 1 and "is a pipeline of several networks" in err and "2_Dense" in err, (
                err
            )
            assert not Path("out").exists()
        code, _, err = run("graph", "checkpoint=a/model.safetensors", *of)
        assert code == 0, err

    @pytest.mark.parametrize("part", ["../elsewhere", "/etc", "a/b", ".."])
    def test_parts_elsewhere(self, part, run):
        sentences("a", 1)
        Path("a/modules.json").write_text(json.dumps([{"path": part}]))
        code, _, err = run("merge", "models=[a,a]", "out=out")
        assert code == 1 and "parts are sub-folders, by a plain name" in err

    def test_diffusers(self, run):
        for part in ("unet", "vae"):
            Path("a", part).mkdir(parents=True)
            save_file({"w": torch.ones(2)}, f"a/{part}/diffusion_pytorch_model.safetensors")
        Path("a/model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
        code, _, err = run("merge", "models=[a,a]", "out=out")
        assert (
            code == 1
            and "is a diffusers pipeline" in err
            and "unet, vae" in err
            and "'a/unet'" in err
        )
        assert run("merge", "models=[a/unet,a/unet]", "out=out")[0] == 0


class TestLinks:
    """What a stranger's folder links to elsewhere is not copied into a folder that is going to be
    shared."""

    @pytest.fixture
    def folders(self, run):
        Path("secret").write_text("the secret")
        for name in "ab":
            metanet.save_checkpoint(name, {"w": torch.ones(2)}, max_shard_size="1GB")
            Path(name, "config.json").write_text("{}")

    @pytest.mark.parametrize(
        "name", ["tokenizer.json", "LICENSE", "notes.txt", "spiece.model", "generation_config.json"]
    )
    @pytest.mark.parametrize("kind", ["absolute", "relative"])
    def test_out_of_the_folder(self, name, kind, folders, run):
        Path("a", name).symlink_to(Path("secret").resolve() if kind == "absolute" else "../secret")
        code, out, err = run("merge", "models=[a,b]", "out=out")
        assert code == 0, err
        assert (
            not Path("out", name).exists()
            and f"{name} of a is not carried along: it is a link out of the folder" in out
        )
        assert all(b"the secret" not in path.read_bytes() for path in Path("out").iterdir())

    def test_a_configuration_elsewhere(self, folders, run):
        Path("secret").write_text('{"password": "the secret"}')
        for name in "ab":
            Path(name, "config.json").unlink()
            Path(name, "config.json").symlink_to("../secret")
            code, out, err = run("merge", "models=[a,b]", "out=out")
            assert (
                code == 1 and "is a link out of the folder" in err and "the secret" not in out + err
            )
            assert not Path("out").exists()

    def test_pipes_and_links_to_nothing(self, folders, run):
        os.mkfifo("a/tokenizer.json")
        Path("a/vocab.txt").symlink_to("nowhere")
        code, out, _ = run("merge", "models=[a,b]", "out=out")
        assert code == 0 and "it is no regular file" in out and "it is a link to nothing" in out

    def test_too_large(self, folders, run):
        with open("a/tokenizer.json", "wb") as file:
            file.truncate(257 * 2**20)
        code, out, _ = run("merge", "models=[a,b]", "out=out")
        assert (
            code == 0
            and "it is larger than 268,435,456 bytes" in out
            and not Path("out/tokenizer.json").exists()
        )

    def test_links_inside_the_folder_and_to_the_blobs_of_the_cache_are_files(self, folders, run):
        repo = Path("hub/models--me--mine")
        (repo / "snapshots").mkdir(parents=True)
        (repo / "blobs").mkdir()
        shutil.move("a", repo / "snapshots/1")
        snapshot = repo / "snapshots/1"
        (repo / "blobs/4").write_text('{"tokens": 4}')
        (snapshot / "tokenizer.json").symlink_to("../../blobs/4")
        (snapshot / "vocab.json").symlink_to("tokenizer.json")
        (snapshot / "LICENSE").symlink_to("../../../../secret")
        code, _, err = run("merge", f"models=[{snapshot},b]", "out=out")
        assert code == 0, err
        assert (
            Path("out/tokenizer.json").read_text()
            == Path("out/vocab.json").read_text()
            == '{"tokens": 4}'
        )
        assert not Path("out/tokenizer.json").is_symlink() and not Path("out/LICENSE").exists()

    def test_align(self, run):
        Path("secret").write_text("the secret")
        Path("link_network.py").write_text(
            "from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(3, "
            "4), nn.ReLU(), nn.Linear(4, 2))\n"
        )
        for seed, name in enumerate("ab"):
            torch.manual_seed(seed)
            net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
            metanet.save_checkpoint(name, net.state_dict(), max_shard_size="1GB")
            Path(name, "config.json").write_text("{}")
            Path(name, "tokenizer.json").symlink_to("../secret")
        code, out, err = run(
            "align", "a=a", "b=b", "arch=link_network:net", "input_shape=[3]", "out=out"
        )
        assert code == 0, err
        assert "tokenizer.json of b is not carried along: it is a link out of the folder" in out
        assert not Path("out/tokenizer.json").exists()
