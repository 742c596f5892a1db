"""Networks by name: the REF grammar of ``arch=`` in every command.

A new scheme is one function, registered by ``@scheme``; see ``_reference.py``.
"""

from ._reference import load_factory as load_factory
from ._reference import load_source as load_source
