"""The conformance tests of zoos and tasks pick up what a plugin registers."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ("tests/zoo/test_conformance.py", "tests/tasks/test_conformance.py")


def test_a_plugins_zoo_and_task_are_tested_with_ours(site):
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "flowers or vigour", *TESTS]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    tests = sum(path.read_text().count("\ndef test_") for path in map(ROOT.joinpath, TESTS))
    assert f"{tests} passed" in done.stdout, done.stdout[-300:]
