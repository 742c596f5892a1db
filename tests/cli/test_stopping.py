"""Ctrl-C: exit code 130, and what to type to go on; the second one ends the process at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metanet import cli
from metanet._cli import stopping

PROGRAM = """
import os, signal, sys
from metanet import cli, tasks
def train(cfg):
    {body}
tasks.train = train
sys.exit(cli.main(sys.argv[1:]))
"""


def run(folder, body, *args):
    (folder / "program.py").write_text(PROGRAM.format(body=body.replace("\n", "\n    ")))
    words = [sys.executable, "program.py", *args]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)


def test_an_exit_of_a_library_is_a_stop_too(tmp_path):
    """Lightning ends the process with 1 where Ctrl-C was pressed."""
    body = "try: os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt: sys.exit(1)"
    done = run(tmp_path, body, "train", "hydra.run.dir=my run")
    assert done.returncode == 130
    assert (
        f"metanet train: stopped; go on with: metanet train resume='{tmp_path}/my run'"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_an_exit_without_a_stop_stays_what_it_is(tmp_path):
    done = run(tmp_path, "sys.exit(7)", "train")
    assert done.returncode == 7
    assert "stopped" not in done.stderr


def test_the_second_ends_the_process_at_once(tmp_path):
    body = (
        "import time\ntry: os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(100)"
    )
    done = run(tmp_path, body, "train")
    assert done.returncode == 130
    assert "stopped" not in done.stderr


@pytest.mark.parametrize(
    ("command", "args", "words"),
    [
        (
            "merge",
            ["models=[A (1),B]", "out=o"],
            "go on with: metanet merge 'models=[A (1),B]' out=o",
        ),
        ("zoo", ["zoo=digits_tiny"], "go on with: metanet zoo zoo=digits_tiny"),
        ("align", ["a=x"], "nothing is kept, start again with: metanet align a=x"),
        ("train", ["seed=1"], "go on with: metanet train resume=/r"),
    ],
)
def test_every_command_says_how_to_go_on(command, args, words):
    assert words in stopping.how_to_go_on(command, args, Path("/r"))


def test_before_anything_has_started_there_is_nothing_to_go_on_with(monkeypatch, capsys):
    from metanet._cli import overrides

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(overrides, "prepare", interrupted)
    assert cli.main(["train", "seed=1"]) == 130
    assert "start again with: metanet train seed=1" in capsys.readouterr().err


def test_handlers_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with stopping.listening():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_whoever_wants_it_ignored_is_heard(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping.listening():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_training_that_is_stopped_goes_on(tmp_path):
    """The real one: Lightning swallows Ctrl-C, and used to end with 1 and without a word."""
    env = {**os.environ, "METANET_DATA": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
    small = [
        "debug=fast",
        "model=gmn",
        "model.width=4",
        "model.layers=1",
        "trainer.max_epochs=2000",
        "device=cpu",
    ]
    words = [sys.executable, "-m", "metanet.cli"]
    process = subprocess.Popen(
        [*words, "train", *small, "hydra.run.dir=r"], cwd=tmp_path, env=env, stderr=subprocess.PIPE,
        text=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while (
        not (tmp_path / "r/last.ckpt").is_file()
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 130, err
    assert f"stopped; go on with: metanet train resume={tmp_path}/r" in err
    assert "Traceback" not in err
    again = [*words, "train", f"resume={tmp_path}/r", "trainer.max_epochs=1"]
    done = subprocess.run(again, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r/metrics.json").is_file()
    assert (tmp_path / "r/loss.png").stat().st_size > 1000
    noise = ("anonymous", "font manager", "log_every_n_steps", "Tip:", "Error executing")
    assert [word for word in noise if word in err + done.stderr + done.stdout] == []
