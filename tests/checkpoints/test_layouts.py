"""Folders of training programs, hubs and pipelines: opened further inside, or named with what to
do."""

import json

import pytest
import torch

from metanet.checkpoints import load_checkpoint, save_checkpoint
from metanet.errors import CheckpointError

VALUES = {"w": torch.arange(3.0)}


def put(path, values=VALUES):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_checkpoint(path, values)
    else:
        torch.save({"module": values}, path)


def assert_opens(folder):
    assert torch.equal(load_checkpoint(folder)["w"], VALUES["w"])


class TestTrainer:
    def test_the_only_checkpoint_is_opened(self, tmp_path):
        put(tmp_path / "checkpoint-500/model.safetensors")
        (tmp_path / "runs").mkdir()
        (tmp_path / "checkpoint-500/config.json").write_text('{"model_type": "bert"}')
        assert_opens(tmp_path)
        assert load_checkpoint(tmp_path).metadata["config"] == {"model_type": "bert"}

    def test_several_are_listed_by_step(self, tmp_path):
        for step in (1000, 500, 90):
            put(tmp_path / f"checkpoint-{step}/pytorch_model.bin")
        with pytest.raises(
            CheckpointError,
            match=r"3 checkpoints inside: checkpoint-1000, .*500, .*-90.*e.g.*-1000'",
        ):
            load_checkpoint(tmp_path)

    def test_the_final_model_wins(self, tmp_path):
        put(tmp_path / "model.safetensors")
        put(tmp_path / "checkpoint-500/model.safetensors", {"w": torch.zeros(3)})
        assert_opens(tmp_path)


class TestHub:
    def repository(self, folder, *snapshots):
        for name in snapshots:
            put(folder / "blobs" / name, VALUES if name == "new" else {"w": torch.zeros(3)})
            (folder / "snapshots" / name).mkdir(parents=True)
            (folder / "snapshots" / name / "pytorch_model.bin").symlink_to(f"../../blobs/{name}")

    def test_the_snapshot_that_main_names(self, tmp_path):
        self.repository(tmp_path / "models--a--b", "old", "new")
        (tmp_path / "models--a--b/refs").mkdir()
        (tmp_path / "models--a--b/refs/main").write_text("new")
        assert_opens(tmp_path / "models--a--b")

    def test_the_only_one(self, tmp_path):
        self.repository(tmp_path / "models--a--b", "new")
        assert_opens(tmp_path / "models--a--b")

    def test_no_guess_among_several(self, tmp_path):
        self.repository(tmp_path, "old", "new")
        with pytest.raises(CheckpointError, match="nothing says which snapshot: it has new, old"):
            load_checkpoint(tmp_path)


class TestDeepSpeed:
    def test_latest_leads_to_the_tag(self, tmp_path):
        put(tmp_path / "global_step5/mp_rank_00_model_states.pt")
        torch.save(
            {"x": torch.ones(1)},
            tmp_path / "global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
        )
        (tmp_path / "latest").write_text("global_step5\n")
        assert_opens(tmp_path)
        assert_opens(tmp_path / "global_step5")

    @pytest.mark.parametrize("name", ["../outside", "/etc", "..", "", "a\0b", "a\\b"])
    def test_latest_leads_nowhere_else(self, name, tmp_path):
        put(tmp_path / "outside/mp_rank_00_model_states.pt")
        (tmp_path / "run").mkdir()
        (tmp_path / "run/latest").write_text(name)
        with pytest.raises(CheckpointError, match="latest names .*, which is no folder there"):
            load_checkpoint(tmp_path / "run")

    @pytest.mark.parametrize(
        "files",
        [
            [
                "zero_pp_rank_0_mp_rank_00_model_states.pt",
                "zero_pp_rank_0_mp_rank_00_optim_states.pt",
            ],
            ["mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"],
            [
                "layer_00-model_00-model_states.pt",
                "layer_01-model_00-model_states.pt",
                "mp_rank_00_model_states.pt",
            ],
        ],
        ids=["ZeRO-3", "tensor parallel", "pipeline parallel"],
    )
    def test_parts_are_not_taken_for_the_whole(self, files, tmp_path):
        for name in files:
            put(tmp_path / name)
        with pytest.raises(CheckpointError, match="DeepSpeed, in parts.*zero_to_fp32"):
            load_checkpoint(tmp_path)


def test_a_pipeline_names_its_parts(tmp_path):
    put(tmp_path / "unet/diffusion_pytorch_model.safetensors")
    put(tmp_path / "text_encoder/model.safetensors")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "model_index.json").write_text(
        json.dumps({"unet": ["diffusers", "UNet2DConditionModel"]})
    )
    with pytest.raises(
        CheckpointError, match=r"diffusers pipeline .*several networks.*: text_encoder, unet. Give"
    ):
        load_checkpoint(tmp_path)
    assert_opens(tmp_path / "unet")


def test_other_sub_folders_are_named(tmp_path):
    put(tmp_path / "iter_0001/mp_rank_00/model_optim_rng.pt")
    put(tmp_path / "fold_2/last.ckpt")
    with pytest.raises(CheckpointError, match=r"NAME one of fold_2, iter_0001/mp_rank_00$"):
        load_checkpoint(tmp_path)


def test_folders_that_lead_into_themselves_end(tmp_path):
    (tmp_path / "checkpoint-1").symlink_to(".")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)
