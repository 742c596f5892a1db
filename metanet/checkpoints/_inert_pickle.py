"""An unpickler that imports and calls nothing: foreign objects become placeholders, tensors become
descriptions.

``pickle`` reaches the outside by the names in a pickle alone, and every such name goes through
``find_class``. Here that knows a fixed table (dtypes, storages, the functions that rebuild tensors,
``OrderedDict``) and answers any other name with a fresh placeholder class. So nothing that a pickle
can get hold of does anything but keep what it is given. No tensor is built either: ``_inert.py``
checks the descriptions against the file and reads the bytes.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ._pickle_scan import scan


class Storage(NamedTuple):
    """A storage in the file: its key, the dtype that the file counts in, and the part that is
    meant, in values."""

    key: str
    dtype: torch.dtype
    start: int
    count: int  # type: ignore[assignment]  # not the method of tuples


class Stored(NamedTuple):
    """A tensor in the file, as the pickle describes it: unchecked."""

    storage: Any
    dtype: Any
    offset: Any
    shape: Any
    stride: Any
    flags: Any = None  # {"conj": True} and {"neg": True}: views that negate when they are read


class Inert:
    """Stands for an object of a foreign class: keeps what the file gives it and does nothing."""

    __slots__ = ("args", "items", "state")

    args: tuple[Any, ...]
    items: dict[Any, Any]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        self = super().__new__(cls)
        self.args = args
        self.items = {}
        self.state = None
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return type(self)(*args)  # what a foreign object gives when called is as foreign

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...

    def add(self, value: Any) -> None: ...


class _Rebuild:
    """A function of torch that puts tensors together, for a pickle to call; nothing can be set on
    it."""

    __slots__ = ("_describe",)

    _describe: Callable[..., Any]

    def __init__(self, describe: Callable[..., Any]) -> None:
        object.__setattr__(self, "_describe", describe)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it sets {name} on a function")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")

    def __call__(self, *args: Any) -> Any:
        return self._describe(*args)


class _StorageClass(NamedTuple):
    """A storage class of torch, of which only the dtype matters."""

    dtype: torch.dtype


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *others: Any) -> Stored:
    dtype = storage.dtype if isinstance(storage, Storage) else None
    return Stored(storage, dtype, offset, shape, stride, others[2] if len(others) > 2 else None)


def _tensor_of_dtype(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    flags: Any = None,
) -> Stored:
    return Stored(storage, dtype, offset, shape, stride, flags)


def _subclass(function: Any, kind: Any, args: Any, state: Any) -> Any:
    return function(*args) if isinstance(function, _Rebuild) else Inert(args, state)


_STORAGES = {
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float": torch.float32,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
    "QUInt4x2": torch.quint4x2,
    "QUInt2x4": torch.quint2x4,
    "Double": torch.float64,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
QUANTISED = (torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4)
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _Rebuild(lambda values=(): tuple(values)),
    ("torch._utils", "_rebuild_tensor"): _Rebuild(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): _Rebuild(_tensor_of_dtype),
    ("torch._utils", "_rebuild_parameter"): _Rebuild(lambda data, *rest: data),
    ("torch._utils", "_rebuild_parameter_with_state"): _Rebuild(lambda data, *rest: data),
    ("torch._tensor", "_rebuild_from_type_v2"): _Rebuild(_subclass),
    ("torch.storage", "UntypedStorage"): _StorageClass(torch.uint8),
    **{
        (module, f"{name}Storage"): _StorageClass(dtype)
        for name, dtype in _STORAGES.items()
        for module in ("torch", "torch.cuda", "torch.storage")
    },
    **{
        ("torch", name): value
        for name, value in vars(torch).items()
        if isinstance(value, torch.dtype)
    },
}


class Unpickler(pickle.Unpickler):
    """Reads one pickle.

    Args:
        file: where it starts; stands behind it afterwards.
        foreign: names of what placeholders stand for; those met are added.
    """

    def __init__(self, file: io.BufferedIOBase, foreign: dict[str, type[Inert]]) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.foreign = foreign
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: a known object from a fixed table, else a placeholder."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        full = f"{module}.{name}"
        if full not in self.foreign:
            self.foreign[full] = type("Inert", (Inert,), {"__slots__": (), "__doc__": full})
        return self.foreign[full]

    def persistent_load(self, pid: Any) -> Any:
        """A storage, by its key; older files also wrap classes with their source code."""
        match pid:
            case ("module", kind, *_):
                return kind
            case ("storage", _StorageClass(dtype), str(key), _, int(count)):
                return self._noted(Storage(key, dtype, 0, count), count)
            case ("storage", _StorageClass(dtype), str(key), _, int(count), None):
                return self._noted(Storage(key, dtype, 0, count), count)
            case (
                "storage",
                _StorageClass(dtype),
                str(key),
                _,
                int(whole),
                (_, int(start), int(count)),
            ):
                return self._noted(Storage(key, dtype, start, count), whole)
        raise pickle.UnpicklingError("it refers to something that is no storage of this file")

    def _noted(self, storage: Storage, whole: int) -> Storage:
        """Keep the largest size that is claimed of each storage in the file."""
        before = self.storages.get(storage.key)
        if before is None or before.count * before.dtype.itemsize < whole * storage.dtype.itemsize:
            self.storages[storage.key] = storage._replace(start=0, count=whole)
        return storage


def unpickle(
    data: Any, start: int, foreign: dict[str, type[Inert]], most: int
) -> tuple[Any, int, dict[str, Storage]]:
    """Read one pickle, after a look at its operations.

    Args:
        data: bytes, or a mapped file.
        start: where the pickle starts.
        foreign: names of what placeholders stand for; those met are added.
        most: bytes of memory that what it makes may take.

    Returns:
        What it holds, the position behind it, and the storages that it refers to, by their keys.

    Raises:
        pickle.UnpicklingError: see :func:`scan`. What else is wrong with a pickle makes the
            unpickler raise nearly anything.
    """
    end = scan(data, start, most)
    unpickler = Unpickler(io.BytesIO(data[start:end]), foreign)
    return unpickler.load(), end, unpickler.storages
