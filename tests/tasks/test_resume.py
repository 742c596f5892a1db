"""Law 6: stopped after any epoch, a run ends as an undisturbed one; and reading where it stopped
never runs code."""

import json
import pickle
import resource
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from metanet.errors import MetanetError
from metanet.tasks._callbacks import KeepBest
from metanet.tasks._last import SafeCheckpointIO, load_last
from metanet.tasks._module import step_seed
from nn.graphs import former

DROPOUT = (
    "model=probed_gmn",
    "model.probes=4",
    "model.gmn={width: 8, layers: 1, dropout: 0.4}",
    "trainer.max_epochs=3",
)
SMALL = ("model=gmn", "model.width=8", "model.layers=1", "trainer.max_epochs=2")


class Killed(BaseException):
    """What no handler of errors catches."""


def stop_after(epoch: int, monkeypatch) -> None:
    """Stop a run right after it has written ``last.ckpt`` of an epoch."""
    original = KeepBest.on_train_epoch_end

    def on_train_epoch_end(self, trainer, pl_module):
        original(self, trainer, pl_module)
        if trainer.current_epoch == epoch:
            raise Killed

    monkeypatch.setattr(KeepBest, "on_train_epoch_end", on_train_epoch_end)


def results(metrics: dict[str, float]) -> dict[str, float]:
    return {
        name: value for name, value in metrics.items() if name.split("/")[0] in ("test", "unseen")
    }


@pytest.fixture
def stopped(run, monkeypatch):
    """A run of two epochs, stopped after the first: its directory."""
    with monkeypatch.context() as patch:
        stop_after(0, patch)
        with pytest.raises(Killed):
            run(*SMALL, name="stopped")

    def resume():
        return run(*SMALL, "resume=here", name="stopped")

    return resume, run.folder / "stopped"


def test_law_6_with_dropout_stopped_after_every_epoch(run, monkeypatch):
    _, whole = run(*DROPOUT, name="whole")
    for epoch in range(3):
        name = f"stopped{epoch}"
        with monkeypatch.context() as patch:
            stop_after(epoch, patch)
            with pytest.raises(Killed):
                run(*DROPOUT, name=name)
        _, resumed = run(*DROPOUT, "resume=here", name=name)
        assert results(resumed) == pytest.approx(results(whole), abs=1e-6), (
            f"stopped after epoch {epoch}"
        )


def test_a_run_of_before_the_head_was_called_head_goes_on(run, stopped):
    resume, folder = stopped
    last = load_last(folder / "last.ckpt")
    weights = next(iter(last["callbacks"].values()))["weights"]
    for state in (last["state_dict"], weights):
        renamed = former(state)
        assert renamed.keys() != state.keys()
        state.clear()
        state.update(renamed)
    SafeCheckpointIO().save_checkpoint(last, folder / "last.ckpt")
    _, resumed = resume()
    _, whole = run(*SMALL, name="whole")
    assert results(resumed) == pytest.approx(results(whole), abs=1e-6)


def test_steps_draw_differently_and_always_the_same():
    seeds = {
        step_seed(*at)
        for at in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    }
    assert len(seeds) == 5, "seed, epoch, step and process each matter"
    assert step_seed(3, 1, 4, 1) == 5757853696680748441
    torch.manual_seed(step_seed(3, 1, 4, 1))  # torch takes it


class TestFile:
    CONTENT: ClassVar[dict] = {
        "epoch": 1, "global_step": 7, "pytorch-lightning_version": "2.5",
        "loops": {"fit_loop": {"state_dict": {}}},
        "state_dict": {"w": torch.arange(6.0).view(2, 3).T}, "callbacks": {},
        "lr_schedulers": [{"_last_lr": [0.1]}],
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(7.0), "half": torch.ones(2, dtype=torch.bfloat16)}},
             "param_groups": [{"betas": (0.9, 0.999), "lr": 1e-3, "params": [0], "foreach": None,
             "maximize": False}]}
        ],
        "none": float("nan"), "all": [float("inf"), -float("inf"), 0.1 + 0.2, "ü"],
    }  # fmt: skip

    def test_comes_back_as_it_was(self, tmp_path):
        SafeCheckpointIO().save_checkpoint(self.CONTENT, tmp_path / "last.ckpt")
        back = SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
        # repr shows types and order too, and NaN is equal to itself
        assert repr(back) == repr(self.CONTENT)
        assert back["optimizer_states"][0]["state"][0]["half"].dtype is torch.bfloat16

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (object(), "object"),
            (print, "builtin"),
            ({1.5: 1}, "dict"),
            ({1, 2}, "set"),
            (b"x", "bytes"),
        ],
    )
    def test_what_is_no_data_is_refused_when_it_is_written(self, value, kind, tmp_path):
        with pytest.raises(MetanetError, match=rf"\['hook'\]\[0\] is a {kind}"):
            SafeCheckpointIO().save_checkpoint({"hook": [value]}, tmp_path / "last.ckpt")
        assert not list(tmp_path.iterdir())

    def test_a_full_disk_keeps_the_epoch_before(self, tmp_path):
        path = tmp_path / "last.ckpt"
        SafeCheckpointIO().save_checkpoint(self.CONTENT, path)
        before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(MetanetError) as caught:
                SafeCheckpointIO().save_checkpoint(
                    self.CONTENT | {"more": torch.ones(10_000)}, path
                )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(caught.value).startswith(f"can't write {path}: File too large; 4")
        assert "What was there before is kept; make room" in str(caught.value)
        assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [
            "last.ckpt"
        ]

    @pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "RMSprop", "Adagrad", "NAdam"])
    def test_any_optimizer(self, optimizer, tmp_path):
        def steps(model, made, count):
            for _ in range(count):
                model(torch.ones(2, 3)).square().sum().backward()
                made.step()
            return model

        def new():
            torch.manual_seed(0)
            model = torch.nn.Linear(3, 2)
            return model, getattr(torch.optim, optimizer)(model.parameters(), lr=0.01)

        whole = steps(*new(), 4)
        model, made = new()
        steps(model, made, 2)
        content = self.CONTENT | {
            "state_dict": model.state_dict(),
            "optimizer_states": [made.state_dict()],
        }
        SafeCheckpointIO().save_checkpoint(content, tmp_path / "last.ckpt")
        back = load_last(tmp_path / "last.ckpt")
        again, its = new()
        again.load_state_dict(back["state_dict"])
        its.load_state_dict(back["optimizer_states"][0])
        for parameter, old in zip(again.parameters(), model.parameters(), strict=True):
            parameter.grad = old.grad.clone()
        torch.testing.assert_close(steps(again, its, 2).weight, whole.weight, rtol=0, atol=0)


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def edited(path: Path, change) -> None:
    """Change the structure that a last.ckpt holds."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tree = json.loads(file.metadata()["metanet.last"])
    tensors = load_file(path)
    save_file(tensors, path, {"metanet.last": change(tree)})


def test_a_strangers_last_ckpt_runs_nothing(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "the canary sings"
    canary.unlink()
    last = tmp_path / "last.ckpt"
    torch.save({"epoch": 1, "state_dict": {}, "hook": Canary(canary)}, last)
    with pytest.raises(MetanetError, match="can't go on from .*last.ckpt"):
        load_last(last)
    last.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(MetanetError, match="can't go on from .*last.ckpt"):
        load_last(last)
    assert not canary.exists()


TREES = {
    "code": lambda tree: json.dumps({**tree, "content": {"call": "os.system"}}),
    "no structure": lambda tree: "[]",
    "no JSON": lambda tree: "{",
    "another format": lambda tree: json.dumps({**tree, "format": 2}),
    "deep": lambda tree: '{"format": 1, "content": ' + '{"list": [' * 50_000 + "]}" * 50_000 + "}",
    "unknown tensor": lambda tree: json.dumps({**tree, "content": {"tensor": "999"}}),
    "unhashable key": lambda tree: json.dumps({**tree, "content": {"dict": [[[], 1]]}}),
    "no pair": lambda tree: json.dumps({**tree, "content": {"dict": [1]}}),
    "nothing in it": lambda tree: json.dumps({**tree, "content": {"dict": []}}),
    "epoch": lambda tree: json.dumps(tree).replace('["epoch", 0]', '["epoch", "x"]'),
}


@pytest.mark.parametrize("change", TREES)
def test_a_damaged_structure_ends_in_our_error(change, tmp_path):
    last = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint(TestFile.CONTENT | {"epoch": 0}, last)
    edited(last, TREES[change])
    with pytest.raises(MetanetError) as caught:
        load_last(last)
    assert "last.ckpt" in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_mutated_bytes_end_in_our_error_or_are_read(tmp_path):
    last, generator = tmp_path / "last.ckpt", torch.Generator().manual_seed(0)
    SafeCheckpointIO().save_checkpoint(TestFile.CONTENT, last)
    whole, refused = last.read_bytes(), 0
    for _ in range(200):
        mutated = bytearray(whole)
        for at in torch.randint(len(whole), (4,), generator=generator).tolist():
            mutated[at] = int(torch.randint(256, (1,), generator=generator))
        last.write_bytes(mutated)
        try:
            load_last(last)
        except MetanetError:
            refused += 1
    assert refused > 100


def renamed(text: str):
    return lambda tree: json.dumps(tree).replace(text, text + "_")


MISFITS = {
    "other weights": renamed('"model.'),
    "other optimizer": lambda tree: json.dumps(tree).replace('["param_groups"', '["groups"'),
    "other moments": renamed('"exp_avg'),
    "other loops": renamed('"fit_loop'),
    "other best weights": lambda tree: json.dumps(tree).replace('["score"', '["points"'),
    "other Lightning": lambda tree: json.dumps(tree).replace('lightning_version", "',
    'lightning_version", "x'),
}  # fmt: skip


def test_a_structure_that_does_not_fit_the_run_is_refused_and_the_right_one_goes_on(stopped):
    resume, folder = stopped
    last = folder / "last.ckpt"
    shutil.copy(last, folder / "kept")
    for name, change in MISFITS.items():
        shutil.copy(folder / "kept", last)
        edited(last, change)
        with pytest.raises(MetanetError, match=r"last\.ckpt"):
            pytest.fail(f"{name}: {resume()}")
        assert not (folder / "metrics.json").exists()
    shutil.copy(folder / "kept", last)
    resume()
    assert (folder / "metrics.json").exists()
