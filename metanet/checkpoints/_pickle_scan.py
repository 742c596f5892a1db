"""A look at the operations of a pickle before anything reads it: how deep it nests, how much memory
it asks for.

Reading a pickle takes the C stack where its tuples become keys of a dict: hashing one goes into all
that is in it, as deep as it nests, and nothing in Python bounds that. So the depth is counted here
first, on numbers alone:

    operation           MARK   K\x01   TUPLE1   TUPLE1   TUPLE
    the pickle's stack         1       (1,)     ((1,),)  (((1,),),)
    this module's              0       1        2        3

A depth that came with an object of the memo stays with it. What is put into a list, a dict or an
object counts too.

A key of a dict may also take time without end: a tuple of one tuple twice, of one tuple twice, ...
has 2^n parts to hash after n operations, and integers beyond 32 bits can be chosen so that all of
them hash to the same number. So an object has a weight, too: how many parts hashing it goes
through. The weights of all keys together are bounded.
"""

import pickle
import pickletools
from collections.abc import Callable
from mmap import mmap

Content = bytes | mmap

DEEPEST = 500
"""Containers inside each other; what pickle itself writes by default ends before."""

_MOST_HASHED = 50_000_000
"""Parts that hashing all keys of a pickle may go through: half a second."""

# names of objects that some other part of the program registered
_REFUSED = {"EXT1", "EXT2", "EXT4"}

# What operations do to the stack.
(
    _PUSH,
    _KEEP,
    _MARK,
    _WRAP,
    _COLLECT,
    _FILL,
    _FILL_MARKED,
    _GET,
    _PUT,
    _POP,
    _POP_MARK,
    _DUP,
    _STOP,
) = range(13)
_EFFECTS = {
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), (_KEEP, 0)),
    "MARK": (_MARK, 0), "TUPLE": (_COLLECT, 0), "LIST": (_COLLECT, 0), "DICT": (_COLLECT, 0),
    "FROZENSET": (_COLLECT, 0), "OBJ": (_COLLECT, 0), "INST": (_COLLECT, 0),
    "TUPLE1": (_WRAP, 1), "TUPLE2": (_WRAP, 2), "TUPLE3": (_WRAP, 3), "BINPERSID": (_WRAP, 1),
    "STACK_GLOBAL": (_WRAP, 2), "REDUCE": (_WRAP, 2), "NEWOBJ": (_WRAP, 2), "NEWOBJ_EX": (_WRAP, 3),
    "APPEND": (_FILL, 1), "SETITEM": (_FILL, 2), "BUILD": (_FILL, 1),
    "APPENDS": (_FILL_MARKED, 0), "SETITEMS": (_FILL_MARKED, 0), "ADDITEMS": (_FILL_MARKED, 0),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), (_GET, 0)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), (_PUT, 0)),
    "POP": (_POP, 0), "POP_MARK": (_POP_MARK, 0), "DUP": (_DUP, 0), "STOP": (_STOP, 0),
}  # fmt: skip

# Bytes of memory that what an operation makes takes, about; a tensor is made by two calls.
_COSTS = {
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"), 400),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "LIST", "DICT", "FROZENSET"), 72),
    **dict.fromkeys(("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), 48),
    # each class may be a foreign one, with a stand-in
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL", "INST"), 2_000),
}  # fmt: skip
_MARKED = 72  # bytes that a mark takes until it is gone

# An object is one number on the stack: its depth in the lower bits, its weight above. A number that
# may be larger than 32 bits weighs what comparing it with all others of its hash may take.
_BITS = 10
_DEPTH = 2**_BITS - 1
_LIGHT, _WIDE = 1 << _BITS, 6_000 << _BITS
_WEIGHTS = {"LONG1": _WIDE, "LONG4": _WIDE, "LONG": _WIDE, "INT": _WIDE}
_KEYS = {
    "SETITEM": 2,
    "SETITEMS": 2,
    "DICT": 2,
    "ADDITEMS": 1,
    "FROZENSET": 1,
}  # every second or every one is hashed

_Entry = tuple[
    str, int, int, int, int, int
]  # name, effect, its count, bytes of argument, bytes of its length, lines


def _table() -> list[_Entry | None]:
    """What there is to know of each operation, by its byte."""
    table: list[_Entry | None] = [None] * 256
    counted = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
               pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}  # fmt: skip
    for code in pickletools.opcodes:
        effect, count = _EFFECTS.get(code.name, (_PUSH, 0))
        size = code.arg.n if code.arg is not None else 0
        lines = 2 if code.name in ("GLOBAL", "INST") else int(size == pickletools.UP_TO_NEWLINE)
        table[ord(code.code)] = (
            code.name,
            effect,
            count,
            max(size, 0),
            counted.get(size, 0),
            lines,
        )
    return table


_TABLE = _table()
_COST = [_COSTS.get(entry[0], 8) if entry else 0 for entry in _TABLE]


def scan(data: Content, start: int, most: int) -> int:
    """Go through the operations of one pickle without doing any of them.

    Args:
        data: bytes, or a mapped file.
        start: where the pickle starts.
        most: bytes of memory that what it makes may take.

    Returns:
        The position behind it.

    Raises:
        pickle.UnpicklingError: it nests too deep, makes too much, is cut off, or has an operation
            that no torch file needs.
    """
    try:
        return _scan(data, start, most)
    except (IndexError, KeyError) as error:
        raise pickle.UnpicklingError("its pickle is cut off or damaged") from error


def _scan(data: Content, start: int, most: int) -> int:
    machine = _Machine(data, start)
    actions = machine.actions()
    at = start
    cost = 0
    while True:
        byte = data[at]
        entry = _TABLE[byte]
        if entry is None:
            raise pickle.UnpicklingError(f"it has the unknown operation {byte}")
        name, effect, count, width, length, lines = entry
        argument = at + 1
        at = argument + width
        if length or lines:
            at = _behind(data, argument, width, length, lines)
        cost += _COST[byte]
        if cost + machine.marked > most:
            raise pickle.UnpicklingError(
                f"what it makes would take more than {most:,} bytes of memory"
            )
        if machine.hashed > _MOST_HASHED:
            raise pickle.UnpicklingError("its keys would take long to hash")
        if effect == _PUSH and name not in _REFUSED:  # most of them
            machine.stack.append(_WEIGHTS.get(name, _LIGHT))
            continue
        if effect == _STOP:
            return at
        actions[effect](name, count, argument, width)


class _Machine:
    """The stack of a pickle, on which every object is one number.

    ``(1, [2])`` is ``MARK, 1, MARK, 2, LIST, TUPLE``; entries are ``depth``, weights left out::

        MARK      1       MARK      2         LIST       TUPLE
        [] | []   [] | 0  [] 0 | [] [] 0 | 0  [] | 0 1   2

    Attributes:
        stack: of the innermost mark.
        marked: bytes that open marks take.
        hashed: parts that were hashed as keys.
    """

    def __init__(self, data: Content, start: int) -> None:
        self.marked = 0
        self.hashed = 0
        self._data = data
        self._start = start
        self.stack: list[int] = []
        self._marks: list[list[int]] = []  # the stacks below
        self._memo: dict[int, int] = {}

    def actions(self) -> list[Callable[[str, int, int, int], None]]:
        """What to do for each effect: ``action(name, count, argument, width)``."""
        names = {
            _PUSH: self._refuse,
            _KEEP: self._keep,
            _MARK: self._mark,
            _WRAP: self._wrap,
            _COLLECT: self._collect,
            _FILL: self._fill,
            _FILL_MARKED: self._fill_marked,
            _GET: self._get,
            _PUT: self._put,
            _POP: self._pop,
            _POP_MARK: self._pop_mark,
            _DUP: self._duplicate,
        }
        return [names[effect] for effect in range(len(names))]

    def _refuse(self, name: str, count: int, argument: int, width: int) -> None:
        raise pickle.UnpicklingError(f"it has the operation {name}")

    def _keep(self, name: str, count: int, argument: int, width: int) -> None:
        pass

    def _put(self, name: str, count: int, argument: int, width: int) -> None:
        memo = self._memo
        number = len(memo) if name == "MEMOIZE" else _number(self._data, argument, width)
        # Memory for all smaller numbers is taken at once: one operation could ask for gigabytes.
        if number > argument + width - self._start:
            raise pickle.UnpicklingError(f"it numbers an object {number:,}")
        memo[number] = self.stack[-1]

    def _get(self, name: str, count: int, argument: int, width: int) -> None:
        self.stack.append(self._memo[_number(self._data, argument, width)])

    def _mark(self, name: str, count: int, argument: int, width: int) -> None:
        self._marks.append(self.stack)
        self.stack = []
        self.marked += _MARKED

    def _unmark(self) -> None:
        """Go back to the stack below."""
        self.stack = self._marks.pop()
        self.marked -= _MARKED

    def _wrap(self, name: str, count: int, argument: int, width: int) -> None:
        self.stack.append(_around(_taken(self.stack, count)))

    def _collect(self, name: str, count: int, argument: int, width: int) -> None:
        self.hashed += _hashing(name, self.stack)
        around = _around(self.stack)
        self._unmark()
        self.stack.append(around)

    def _fill(self, name: str, count: int, argument: int, width: int) -> None:
        parts = _taken(self.stack, count)
        self._put_into(name, parts)

    def _fill_marked(self, name: str, count: int, argument: int, width: int) -> None:
        parts = self.stack
        self._unmark()
        self._put_into(name, parts)

    def _put_into(self, name: str, parts: list[int]) -> None:
        """The object on top holds these now: it is as deep as the deepest of them, and one more."""
        self.hashed += _hashing(name, parts)
        depth = _around(parts) & _DEPTH
        top = self.stack[-1]
        self.stack[-1] = top & ~_DEPTH | max(top & _DEPTH, depth)

    def _pop(self, name: str, count: int, argument: int, width: int) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._unmark()

    def _pop_mark(self, name: str, count: int, argument: int, width: int) -> None:
        self._unmark()

    def _duplicate(self, name: str, count: int, argument: int, width: int) -> None:
        self.stack.append(self.stack[-1])


def _taken(stack: list[int], count: int) -> list[int]:
    """The last entries, which leave the stack."""
    if len(stack) < count:
        raise IndexError
    top = stack[-count:]
    del stack[-count:]
    return top


def _behind(data: Content, at: int, width: int, length: int, lines: int) -> int:
    """The position behind an operation's argument."""
    if length:
        return at + length + int.from_bytes(data[at : at + length], "little")
    for _ in range(lines):
        at = data.find(b"\n", at) + 1
        if not at:
            raise IndexError
    return at + width


def _number(data: Content, at: int, width: int) -> int:
    """The number of an object in the memo; of the text form (GET, PUT) too."""
    if width:
        return int.from_bytes(data[at : at + width], "little")
    text = bytes(data[at : data.find(b"\n", at)])
    if not text.isdigit() or len(text) > 18:
        raise pickle.UnpicklingError("it numbers an object by something that is no number")
    return int(text)


def _around(parts: list[int]) -> int:
    """The depth and the weight of a container of these."""
    depth = 1 + max((part & _DEPTH for part in parts), default=0)
    if depth > DEEPEST:
        raise pickle.UnpicklingError(
            f"its containers stand more than {DEEPEST} deep in one another"
        )
    weight = 1 + sum(part >> _BITS for part in parts)
    return min(weight, _MOST_HASHED + 1) << _BITS | depth


def _hashing(name: str, parts: list[int]) -> int:
    """Parts that an operation hashes: those of the keys."""
    step = _KEYS.get(name)
    return sum(part >> _BITS for part in parts[::step]) if step else 0
