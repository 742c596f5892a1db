"""Networks by name: the REF grammar of ``arch=`` in every command.

A new scheme is one function, registered by ``@scheme``; see ``_timm.py``. Where a source names or
lays out its files otherwise than its modules, ``in_memory`` and ``on_disk`` translate.
"""

from . import _hugging_face as _hugging_face  # registers its scheme
from . import _timm as _timm
from ._bounded import build_within as build_within
from ._conversion import in_memory as in_memory
from ._conversion import on_disk as on_disk
from ._pinned import offline as offline
from ._reference import load_factory as load_factory
from ._reference import load_source as load_source
from ._reference import seeded_network as seeded_network
from ._torchvision import import_torchvision as import_torchvision
