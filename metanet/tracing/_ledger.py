"""The ledger of a recording: which value every living tensor holds, and how that value came
about."""

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import TraceError
from ._book import Book, described
from ._memory import Memories, Memory, Node, attach, is_lazy, node_of, release, storage_key
from ._schemas import facts
from ._trace import Ref
from ._views import View, alias, invertible, rebuild, view_of, window

aten = torch.ops.aten


class Ledger:
    """Gives every value a number, and writes down how each follows from others.

    What is written down is functional. A tensor that is written in place gets the number of a new
    value, and so does what it looks into (:func:`~metanet.tracing._views.rebuild`); other views of
    the same memory are derived anew when they are read next. Values that depend on neither inputs
    nor parameters are kept as constants instead.
    """

    def __init__(self) -> None:
        self.book = Book()
        # constants whose tensors others may write into after the recording
        self.borrowed: set[int] = set()
        self._memories = Memories()
        self._outside: list[Tensor] = []  # tensors that no operation made

    # ------------------------------------------------------------------------------------------------
    # tensors

    def add(self, tensor: Tensor, origin: str, names: tuple[str, ...] = ()) -> int:
        """Number a tensor that is there before the forward pass; one that is known keeps its
        number."""
        node = node_of(tensor)
        if node is not None and node.owner is self:
            return node.number
        memory = self._memories.of(tensor, storage_key(tensor))
        return self._from_outside(
            tensor, Node(self, self.book.new(tensor, origin, names), None, memory)
        ).number

    def knows(self, tensor: Tensor) -> bool:
        """Whether an operation made or read this tensor, or one that shares its memory."""
        node = node_of(tensor)
        return (node is not None and node.owner is self) or self._memories.find(
            storage_key(tensor)
        ) is not None

    def node(self, tensor: Tensor) -> Node:
        """What is known of a tensor, which may be met for the first time."""
        node, key = node_of(tensor), storage_key(tensor)
        if node is None or node.owner is not self:
            return self._met(tensor, key)
        if node.memory is None:  # made by copy.deepcopy
            node.memory = self._memories.of(tensor, key)
            node.memory.root = weakref.ref(node)
            if node.value is not None and not tensor.is_meta:
                node.value = tensor.detach()
        if node.memory.key != key:  # tensor.data = other, tensor.set_(other)
            if self._memories.find(key) is None:
                where = self.book.module or "the network"
                raise TraceError(
                    f"{where} gives a tensor of shape {tuple(tensor.shape)} other memory in its forward pass "
                    "(x.data = ..., x.set_(...)), which cannot be followed: use x.copy_(...) there"
                )
            return self._met(tensor, key)
        return node

    def _met(self, tensor: Tensor, key: int) -> Node:
        """A tensor from outside: a constant of the network, unless it looks into known memory."""
        memory = self._memories.of(tensor, key)
        root = memory.root()
        if root is not None and memory.plain and self._inside(tensor, root):
            whole = (
                tensor.is_contiguous()
                and not tensor.storage_offset()
                and tensor.shape == self._shape(root)
            )
            view = alias(Ref(root.number)) if whole else window(Ref(root.number), tensor)
            node = Node(self, self.book.new(tensor, "result"), None, memory, root, view)
            self._derive(node)
            return self._from_outside(tensor, node)
        if (
            root is not None and root.value is None
        ):  # no function says how it follows from what is there
            node = Node(self, self.book.new(tensor, "result"), None, memory, root)
            self._derive(node)
            return self._from_outside(tensor, node)
        value = None if tensor.is_meta else tensor.detach()
        if value is None:
            number = self.book.new(tensor, "unknown")
        else:
            number = self.book.constant(value, memory)
            self.borrowed.add(number)
        return self._from_outside(tensor, Node(self, number, value, memory))

    def _inside(self, tensor: Tensor, root: Node) -> bool:
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        end = tensor.storage_offset() + sum((n - 1) * step for n, step in steps)
        return self._counts_alike(tensor, root) and end < torch.Size(self._shape(root)).numel()

    def _counts_alike(self, tensor: Tensor, root: Node) -> bool:
        """Whether an entry of a tensor is one of its memory's root: not half of a complex one, nor
        a conjugate."""
        same_dtype = str(tensor.dtype) == f"torch.{self.book.values[root.number].dtype}"
        return same_dtype and not is_lazy(tensor)

    def _from_outside(self, tensor: Tensor, node: Node) -> Node:
        self._outside.append(tensor)
        self._hang(tensor, node)
        return node

    def _hang(self, tensor: Tensor, node: Node) -> None:
        if node.parent is None:
            if node.memory.root() is None:
                node.memory.root = weakref.ref(node)
            else:
                node.memory.strangers.append(node)
        attach(tensor, node)

    def close(self) -> None:
        """Leave all tensors from outside as they were found."""
        for tensor in self._outside:
            release(tensor)
        self._outside.clear()

    # ------------------------------------------------------------------------------------------------
    # numbers

    def current(self, node: Node, *, referred: bool = False) -> int:
        """The number of a node's value; a view of memory that was written since is derived anew."""
        if node.parent is not None and node.seen != node.memory.version:
            self.current(node.parent)
            node.seen = node.memory.version
            self._derive(node)
        if referred:
            self.book.referred.add(node.number)
        return node.number

    def _derive(self, node: Node) -> None:
        parent, view = node.parent, node.view
        assert parent is not None
        if view is None:
            node.value = None
            node.number = self.book.write_through(Ref(parent.number), node)
        elif view.call is aten.alias.default:
            node.number, node.value = parent.number, parent.value
        elif parent.value is not None:
            args, kwargs = view.of(parent.value)
            node.value = view.call(*args, **kwargs)
            node.number = self.book.constant(node.value, node.memory)
        else:
            args, kwargs = view.of(Ref(parent.number))
            node.value = None
            node.number = self.book.emit(
                view.call, args, self.book.values[node.number], kwargs
            ).value

    def _shape(self, node: Node) -> tuple[int, ...]:
        return self.book.values[node.number].shape

    # ------------------------------------------------------------------------------------------------
    # operations

    def made(
        self, func: Any, recorded: tuple[Any, Any], nodes: list[Node], out: Any, values: Any
    ) -> None:
        """What an operation that wrote nothing returned, also as values (``None``: not known)."""
        several = isinstance(out, (list, tuple))
        results = list(out) if several else [out]
        known: list[Tensor | None] = [None] * len(results)
        if values is not None:
            known = list(values) if several else [values]
        call = View(func, *recorded)
        outputs: list[int | None] = []
        for index, (tensor, value) in enumerate(zip(results, known, strict=True)):
            if not isinstance(tensor, Tensor) or _is_passed_through(tensor, nodes):
                outputs.append(None)
                continue
            node = self._result(func, recorded, nodes, tensor, value, index if several else None)
            self._hang(tensor, node)
            is_same = node.parent is not None and node.parent.number == node.number
            outputs.append(None if is_same else node.number)
            if node.view is not None and not several:  # as a view of the whole, say
                call = node.view
        has_new = any(number is not None for number in outputs)
        if values is None and nodes and has_new:
            name = facts(call.call).name
            self.book.record(name, call.call, call.args, call.kwargs, tuple(outputs))

    def _result(
        self,
        func: Any,
        recorded: tuple[Any, Any],
        nodes: list[Node],
        tensor: Tensor,
        value: Tensor | None,
        index: int | None,
    ) -> Node:
        """A tensor that an operation returned: it has memory of its own, or looks into an operand's."""
        key = storage_key(tensor)
        parent = next((n for n in nodes if n.memory.key == key), None)
        if parent is None:
            return self._computed(nodes, tensor, value, self._memories.of(tensor, key))
        if facts(func).separates:
            self.book.keep(parent.memory)
            return self._computed(nodes, tensor, value, Memory(tensor, key))
        if facts(func).identity:
            view = alias(Ref(parent.number))
            return Node(self, parent.number, parent.value, parent.memory, parent, view)
        node = self._computed(nodes, tensor, value, parent.memory)
        self._look(node, parent, func, recorded, index, tensor)
        return node

    def _computed(
        self, nodes: list[Node], tensor: Tensor, value: Tensor | None, memory: Memory
    ) -> Node:
        """A new value: a constant if its numbers are known."""
        if value is not None:
            value = value.detach()
            return Node(self, self.book.constant(value, memory), value, memory)
        number = self.book.new(tensor, "result" if nodes else "unknown")
        return Node(self, number, None, memory)

    def _look(
        self, node: Node, parent: Node, func: Any, recorded: Any, index: int | None, tensor: Tensor
    ) -> None:
        """How a tensor looks into an operand of the operation that made it."""
        root = parent.memory.root()
        args, kwargs = recorded
        view = view_of(func, args, kwargs, index, self._shape(parent))
        if func is aten.as_strided.default and parent is not root:
            view = None  # it may reach beyond what its operand shows
        node.folded = parent.folded or func is aten.expand.default or not invertible(view)
        if node.folded and parent.memory.plain and self._counts_alike(tensor, root):
            node.window = window(Ref(root.number), tensor)
        if view is None or (parent.folded and node.window is None):
            parent, view = root, node.window
        node.parent, node.view = parent, view

    def relabelled(self, func: Any, recorded: tuple[Any, Any], node: Node, tensor: Tensor) -> None:
        """A tensor that became another view of its memory (``unsqueeze_``): a view of what it
        was."""
        view = View(func, *recorded)
        new = Node(self, self.book.new(tensor, "result"), None, node.memory, node, view)
        self._derive(new)
        attach(tensor, new)

    # ------------------------------------------------------------------------------------------------
    # writes

    def before_writing(self, node: Node, *, known: bool) -> None:
        """Save the constants in a memory that is about to be written, as far as operations read
        them."""
        memory = node.memory
        above: Node | None = None if known else node  # what is rebuilt is read
        while above is not None:
            self.book.referred.add(above.number)
            above = above.parent
        self.book.referred.update(n.number for n in memory.strangers)
        unread: list[int] = []
        for number in memory.constants:
            if number in self.book.referred:
                self.book.constants[number] = self.book.constants[number].clone()
            else:
                unread.append(number)
        memory.constants = unread

    def after_writing(self, node: Node) -> None:
        """Forget the constants that were written over before any operation read them."""
        for number in node.memory.constants:
            del self.book.constants[number]
        node.memory.constants.clear()

    def wrote_known(self, node: Node) -> None:
        """A tensor was written, and all its numbers are known now: ``node.value`` has them."""
        assert node.value is not None
        node.number = self.book.constant(node.value, node.memory)
        self._spread(node)

    def wrote(
        self,
        func: Any,
        recorded: tuple[Any, Any],
        nodes: list[Node],
        results: list[Any],
        written: list[tuple[Tensor, Node]],
    ) -> None:
        """An operation wrote data into tensors, and returned them or others."""
        about = facts(func)
        if func in (aten.copy_.default, aten.fill_.Tensor):
            ((tensor, node),) = written
            node.number, node.value = self._filled(nodes[1], tensor), None
            self._spread(node)
            return
        numbers = {id(tensor): self.book.new(tensor, "result") for tensor, _ in written}
        outputs: list[int | None] = []
        for tensor in results:
            if isinstance(tensor, Tensor) and id(tensor) not in numbers:
                node = Node(
                    self,
                    self.book.new(tensor, "result"),
                    None,
                    self._memories.of(tensor, storage_key(tensor)),
                )
                self._hang(tensor, node)
                outputs.append(node.number)
            else:
                outputs.append(numbers.get(id(tensor)))
        returned = [o for o in outputs if o is not None]
        outputs = outputs if returned else []
        outputs += [number for number in numbers.values() if number not in returned]
        call = about.functional if self.book.stays_functional(about, nodes, written) else func
        self.book.record(about.name, call, *recorded, tuple(outputs))
        for tensor, node in written:
            node.number, node.value = numbers[id(tensor)], None
            self._spread(node)

    def _filled(self, source: Node, tensor: Tensor) -> int:
        """What ``tensor.copy_(source)`` leaves in the tensor."""
        ref, value, like = Ref(source.number), self.book.values[source.number], described(tensor)
        if value.dtype != like.dtype:
            ref = self.book.emit(
                aten._to_copy.default,
                (ref,),
                replace(value, dtype=like.dtype),
                {"dtype": tensor.dtype},
            )
        if value.shape != like.shape:
            ref = self.book.emit(aten.expand.default, (ref, list(tensor.shape)), like)
        if self.book.values[ref.value].layout != like.layout:
            ref = self.book.emit(aten.clone.default, (ref,), like)
        return ref.value

    def _spread(self, node: Node) -> None:
        """Whatever a written node looks into has a new value too."""
        # x[0].relu_() on a row of x:  1 = select(0)   the row
        #                              2 = relu(1)     written: the row is 2 from now on,
        #                              3 = select_scatter(0, 2)   and x is 3
        memory = node.memory
        child = node
        chain = [node]
        while child.parent is not None:
            parent = child.parent
            self.current(parent)  # another tensor that the same operation wrote may have changed it
            if parent.value is not None and child.value is not None:
                parent.number = self.book.constant(parent.value, memory)
            elif child.view is not None and child.view.call is aten.alias.default:
                parent.number, parent.value = child.number, child.value
            else:
                parent = self._rebuild(child, parent)
            chain.append(parent)
            child = parent
        memory.version += 1
        for written in chain:
            written.seen = memory.version
        if not memory.strangers:
            return
        for stranger in [memory.root(), *memory.strangers]:
            if stranger is not None and stranger is not child:
                stranger.value = None
                stranger.number = self.book.write_through(Ref(child.number), stranger)

    def _rebuild(self, child: Node, parent: Node) -> Node:
        """Record what a parent is after its view was written; returns the node that has it, the
        parent or the root."""
        view = child.view
        part = self.book.values[child.number]
        is_lost = parent.folded or not invertible(view)
        if is_lost and child.window is not None:
            parent = parent.memory.root()
            view = child.window
        whole = self.book.values[parent.number]
        written = Ref(child.number)
        new = None
        if view is not None:
            new = rebuild(view, Ref(parent.number), written, whole, part, self.book.emit)
        if new is not None:
            parent.number = new.value
        else:
            parent.number = self.book.write_through(written, parent)
        parent.value = None
        return parent


def _is_passed_through(tensor: Tensor, nodes: list[Node]) -> bool:
    """Whether what an operation returned is one of its operands."""
    node = node_of(tensor)
    return any(node is operand for operand in nodes)
