"""Disks that are full, and places that can't be written: one message with the path and advice, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("small_disks.py")


# One command that writes files of its own, one that replaces some, one that makes a run directory's. The rest is slow.
FEW = ("merge, in shards", "graph, overwrite", "zoo")
SOME_OR_ALL = pytest.mark.parametrize("names", [FEW, pytest.param((), marks=pytest.mark.slow)], ids=["few", "all"])


def unshared(kind: str, names: Sequence[str]) -> list[dict]:
    """In a mount namespace, where one may have file systems of one's own."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("this system gives no mount namespace (unshare -Urm)")
    return results_of(kind, names, "unshare", "-Urm")


def results_of(kind: str, names: Sequence[str], *before: str) -> list[dict]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    words = [*before, sys.executable, str(PROGRAM), kind, *names]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(names) or (not names and len(results) >= 12)
    return results


def check(result: dict, *reasons: str) -> None:
    """What holds of every command that had no room."""
    where = f"{result['name']}, {result['room']} bytes: {result['said'][-1500:]}"
    assert result["code"] == 1, where
    assert result["whole"] and not result["lost"], where
    assert result["hidden"] == [], where
    assert "Traceback" not in result["said"] and "[Errno" not in result["said"], where
    (message,) = [line for line in result["said"].splitlines() if line.startswith("metanet ")]
    assert any(why in message for why in reasons) and "/" in message, where
    advice = ("make room", "free some space", "hoose another", "give another")
    assert any(each in message for each in advice), where
    assert ("wait in" in message) is result["waiting"], "what is said to wait is there, and nothing else"


@SOME_OR_ALL
def test_commands_where_files_may_not_grow(names):
    for result in results_of("limit", names):
        check(result, "File too large", "disk is full")


@SOME_OR_ALL
def test_commands_on_a_full_file_system(names):
    found = unshared("full", names)
    failed = [each for each in found if each["code"]]
    assert len(failed) >= (len(names) or 8), "most have no room"
    for result in failed:
        check(result, "No space left on device", "disk is full")
    for result in found:
        assert result["whole"] and not result["lost"]


@SOME_OR_ALL
def test_commands_on_a_read_only_file_system(names):
    for result in unshared("read-only", names):
        check(result, "Read-only file system")
