"""Disks that are full, and places that can't be written: one message with the path and advice, and
nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("small_disks.py")


REASONS = {
    "limit": ("File too large", "disk is full"),
    "full": ("No space left on device", "disk is full"),
    "read-only": ("Read-only file system",),
}
ADVICE = ("make room", "free some space", "hoose another", "give another")
NAMESPACE = ("unshare", "-Urm")  # where one may have file systems of one's own


def results_of(names: Sequence[str]) -> list[dict]:
    """Of all kinds where the system gives a mount namespace; else of the one that needs none."""
    own = (
        shutil.which("unshare")
        and not subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    kinds = list(REASONS) if own else ["limit"]
    words = [*(NAMESPACE if own else ()), sys.executable, str(PROGRAM), ",".join(kinds), *names]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) >= (len(names) or 12) * len(kinds)
    return results


def check(result: dict) -> None:
    """What holds of every command that had no room."""
    where = f"{result['kind']}, {result['name']}: {result['said'][-1500:]}"
    assert result["code"] == 1, where
    assert result["hidden"] == [], where
    assert "Traceback" not in result["said"] and "[Errno" not in result["said"], where
    (message,) = [line for line in result["said"].splitlines() if line.startswith("metanet ")]
    assert any(reason in message for reason in REASONS[result["kind"]]) and "/" in message, where
    assert any(advice in message for advice in ADVICE), where
    assert ("wait in" in message) is result["waiting"], (
        "what is said to wait is there, and nothing else"
    )


@pytest.mark.parametrize(
    "names",
    [("merge, in shards", "graph, overwrite"), pytest.param((), marks=pytest.mark.slow)],
    ids=["few", "all"],
)
def test_commands_without_room(names):
    for result in results_of(names):
        assert result["whole"] and not result["lost"], result
        if (
            result["code"] or result["name"] != "predict" or result["kind"] != "full"
        ):  # whose log has room
            check(result)
