"""Reading and writing checkpoints: tensors by name, lazy, and never by running code from the file.

A new format is one function ``(path) -> Checkpoint`` in a file of its own, registered by ``@reader`` (``_readers.py``)
and imported here; readers are tried in the order of these imports.
"""

from . import _torch as _torch
from ._atomic import atomic_write as atomic_write
from ._mapping import Checkpoint as Checkpoint
from ._readers import load_checkpoint as load_checkpoint
from ._safetensors import save_checkpoint as save_checkpoint
