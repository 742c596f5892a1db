"""torchvision beside a PyTorch of another build."""

import importlib.util
import subprocess
import sys

import pytest

from metanet.sources import import_torchvision

# Like the real one: at import it adds a shape function to an operation that only its compiled part
# defines.
BROKEN = """
import torch
from . import part
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
READY = True
"""
PROGRAM = """
from metanet.sources import import_torchvision
try:
    import torchvision
except RuntimeError as error:
    print(error)
print(import_torchvision().READY, import_torchvision().READY)
import torchvision.part
"""


@pytest.fixture
def torchvision(tmp_path, monkeypatch):
    """Put a package of this name, with the text of its ``__init__.py``, before the real one."""

    def write(init):
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(init)
        (tmp_path / "torchvision" / "part.py").touch()
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    return write


def test_missing_operations_are_declared(torchvision):
    folder = torchvision(BROKEN)
    (folder / "program.py").write_text(
        PROGRAM
    )  # in a process of its own: an operation is declared once
    command = [sys.executable, str(folder / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "operator torchvision::nms does not exist\nTrue True\n"


def test_another_failure_stays_what_it_is(torchvision):
    torchvision("raise RuntimeError('something else')")
    with pytest.raises(RuntimeError, match="something else"):
        import_torchvision()


def test_one_that_is_not_installed_is_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert import_torchvision() is None
