"""What tells graph templates apart, in this process and in any other.

Two objects may be the same template: one was pickled for a worker, or copied with a model. And two
templates may have the same ``id``, one after the other. What a template *says* is what counts::

    template -> JSON -> SHA-256        copy of it -> the same
"""

import hashlib
import json
from weakref import WeakKeyDictionary

from ..graph import GraphTemplate

_KNOWN: WeakKeyDictionary[GraphTemplate, str] = WeakKeyDictionary()


def digest(template: GraphTemplate) -> str:
    """The same for all copies of a template, another for every other one; computed once a copy."""
    if template not in _KNOWN:
        text = json.dumps(template.to_json(), sort_keys=True)
        _KNOWN[template] = hashlib.sha256(text.encode()).hexdigest()
    return _KNOWN[template]
