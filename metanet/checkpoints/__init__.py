"""Reading and writing checkpoints: tensors by name, lazy, and never by running code from the file.

=====================================================  ======  =======================================
format                                                 access  what is read when
=====================================================  ======  =======================================
``x.safetensors``                                      both    the header when opened, a tensor's
                                                               bytes when asked for; nothing stays
                                                               mapped or open
``x.safetensors.index.json`` and its shards            both    the headers of all shards when opened,
                                                               then likewise
``x.pt .pth .bin .ckpt``, zip (torch >= 1.6)           read    names when opened, tensors from the
                                                               mapped file
the same, older format                                 read    everything when opened
``x.bin.index.json`` and its shards                    read    as the shards are
a folder: ``model.safetensors``, or shards and index   both    as that file; ``config.json`` becomes
or ``pytorch_model.bin``, or its shards and index              ``metadata["config"]``
``foreign_classes="inert"``: torch files with objects  read    the pickle when opened, by an unpickler
that ``weights_only=True`` refuses                             that imports and calls nothing; then a
                                                               tensor's bytes when asked for
=====================================================  ======  =======================================

What training code puts around a state dict is taken off: ``_state_dicts.py`` tells which keys are
followed and which prefixes are dropped, ``Checkpoint.fit`` finds the prefix that an architecture
shows (``model.`` of a LightningModule). Names are those on disk. Where transformers renames or
stacks tensors while it loads a folder, translating them is the matter of ``metanet.sources``, not
of this room.

A new format is one function ``(path, options) -> Checkpoint``, registered by ``@reader``: in a file
here and imported below, where readers are tried in the order of these imports; or in a package of
one's own, by an entry point of the group ``metanet.readers``.
"""

from . import _distributed as _distributed
from . import _folder as _folder
from . import _pipelines as _pipelines
from . import _sharded as _sharded
from . import _torch as _torch
from ._atomic import atomic_write as atomic_write
from ._bytes import budget as budget
from ._content import Kind as Kind
from ._content import kind_of as kind_of
from ._disk import is_full as is_full
from ._disk import unwritable as unwritable
from ._gate import are_plain as are_plain
from ._gate import check_dequantised as check_dequantised
from ._gate import check_plain as check_plain
from ._locks import hold as hold
from ._locks import remove_leftovers as remove_leftovers
from ._mapping import Checkpoint as Checkpoint
from ._mapping import shared_memory as shared_memory
from ._nonfinite import report_nonfinite as report_nonfinite
from ._pipelines import MODULES as MODULES
from ._pipelines import PARTS as PARTS
from ._pipelines import has_weights as has_weights
from ._pipelines import parts_of as parts_of
from ._readers import READERS as READERS
from ._readers import Reader as Reader
from ._readers import ReadOptions as ReadOptions
from ._readers import load_checkpoint as load_checkpoint
from ._readers import reader as reader
from ._sharded import files_of as files_of
from ._sharded import read_index as read_index
from ._together import settle as settle
from ._together import write_folder as write_folder
from ._together import write_together as write_together
from ._torch import load_objects as load_objects
from ._writing import save_checkpoint as save_checkpoint
from ._writing import shard_plan as shard_plan
from ._writing import write_index as write_index
