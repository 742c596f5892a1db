"""What the recorder knows about living tensors: the number of their current value, and whose memory
they look into."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ._views import View

_ATTRIBUTE = "_metanet_node"


class Memory:
    """One storage.

    Attributes:
        key: names the storage.
        plain: its root lies in it in the order of its entries, from the start, and is read as it
            lies there (neither conjugated nor negated).
        version: how often it was written.
        constants: numbers of constants whose tensors look into it: what is still needed is copied
            before a write.
        root: the node that looks at all of it, by a weak reference: nodes hold their memory.
        strangers: other nodes without a parent, whose relation to the root is not known.
    """

    __slots__ = ("__weakref__", "constants", "key", "plain", "root", "strangers", "version")

    def __init__(self, tensor: Tensor, key: int) -> None:
        self.key = key
        ordered = (
            tensor.layout is torch.strided
            and tensor.is_contiguous()
            and tensor.storage_offset() == 0
        )
        self.plain = ordered and not is_lazy(tensor)
        self.version = 0
        self.constants: list[int] = []
        self.root: Any = lambda: None
        self.strangers: list[Node] = []


class Node:
    """What is known of one tensor. It hangs on the tensor and goes with it: no table of ids that
    could be used twice.

    Attributes:
        owner: the ledger.
        number: of the tensor's value as of version ``seen`` of its memory.
        value: the tensor itself, or its shadow where the tensor is on the meta device, if its
            numbers are known: they depend on neither inputs nor parameters. What is written into
            the tensor is written into it.
        parent: the node that it looks into; ``None`` for a root.
        view: how; ``None`` if not known.
        folded: several of its entries may be one place in memory.
        window: how it looks into the root's memory, if that is needed to write through it.
    """

    __slots__ = (
        "__weakref__",
        "folded",
        "memory",
        "number",
        "owner",
        "parent",
        "seen",
        "value",
        "view",
        "window",
    )

    def __init__(
        self,
        owner: Any,
        number: int,
        value: Tensor | None,
        memory: Memory | None,
        parent: "Node | None" = None,
        view: View | None = None,
    ) -> None:
        self.owner = owner
        self.number = number
        self.value = value
        # none for a moment: of a deep copy, until the ledger meets it
        self.memory: Memory = memory  # type: ignore[assignment]
        self.parent = parent
        self.view = view
        self.window: View | None = None
        self.folded = False
        self.seen = memory.version if memory is not None else 0

    def __deepcopy__(self, memo: Any) -> "Node":
        """For ``copy.deepcopy(tensor)`` in a forward pass, which no dispatch mode sees."""
        with _disable_current_modes():
            value = None if self.value is None else self.value.clone()
            return Node(self.owner, self.owner.current(self, referred=True), value, None)

    def __reduce__(self) -> Any:  # a tensor that is pickled leaves its node behind
        return type(None), ()


def node_of(tensor: Tensor) -> Node | None:
    """What some recording hung on a tensor."""
    return getattr(tensor, _ATTRIBUTE, None)


def attach(tensor: Tensor, node: Node) -> None:
    """Hang a node on a tensor."""
    setattr(tensor, _ATTRIBUTE, node)


def release(tensor: Tensor) -> None:
    """Leave a tensor without a node."""
    if hasattr(tensor, _ATTRIBUTE):
        delattr(tensor, _ATTRIBUTE)


def is_lazy(tensor: Tensor) -> bool:
    """Whether a tensor shows other numbers than lie in its memory: their conjugates, or their
    negatives."""
    return tensor.is_conj() or tensor.is_neg()


def storage_key(tensor: Tensor) -> int:
    """Names the storage of a tensor for as long as it lives; a tensor without one (sparse) names
    itself."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else -id(tensor)


class Memories:
    """Storages by key, forgotten with the last tensor that looks into them."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()

    def find(self, key: int) -> Memory | None:
        """The storage, if a tensor that looks into it is known."""
        return self._known.get(key)

    def of(self, tensor: Tensor, key: int) -> Memory:
        """The storage, known or new."""
        memory = self._known.get(key)
        if memory is None:
            memory = self._known[key] = Memory(tensor, key)
        return memory
