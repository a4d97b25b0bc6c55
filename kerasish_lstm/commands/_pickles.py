"""What a torch file claims, before torch reads it.

torch's restricted unpickler runs no code, but believes sizes: a few bytes can ask it to unpack or
to allocate gigabytes, or to hash a tuple of tuples of tuples that has more parts than atoms.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

from ..errors import FileFormatError
from ..files._open import ZIP_MAGIC, LimitedZip, damaged_if_it_fails

MAX_PICKLE_BYTES = 4 * 2**20
MAX_OPCODES = 500_000  # a tensor takes 50
MAX_COST = 2_000_000  # parts that are hashed or handed to a function
_PICKLES = 5  # of a file that torch wrote before 1.6: three of the head, the dict, the storages


def check(path: Path) -> None:
    """Refuse a torch file whose claims are out of proportion.

    Raises:
        FileFormatError: a zip whose members are compressed, lie over each other or claim more than
            there is; a pickle that is too long or asks for too much.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            file.seek(0)
            for _ in range(_PICKLES):
                _scan(file, path)
            return
    with damaged_if_it_fails(path):
        for pickle in _pickles(path):
            _scan(io.BytesIO(pickle), path)


def _pickles(path: Path) -> list[bytes]:
    """The pickles of a zip, whose members are as torch writes them: stored, each in its place."""
    on_disk = path.stat().st_size
    with LimitedZip(path) as file, zipfile.ZipFile(file) as archive:
        file.limit = None
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise FileFormatError(
                    f"{path.name}: {member.filename!r} is compressed (method "
                    f"{member.compress_type}). torch stores members as they are; refused as a "
                    "decompression bomb. Load it and save it again with torch.save."
                )
        if (claimed := sum(max(m.file_size, m.compress_size) for m in members)) > on_disk:
            raise FileFormatError(
                f"{path.name}: its members claim {claimed} bytes, in {on_disk} bytes on disk. "
                "Refused as a decompression bomb."
            )
        found = [m for m in members if m.filename.lower().endswith(".pkl")]  # torch looks so too
        if (size := sum(m.file_size for m in found)) > MAX_PICKLE_BYTES:
            raise _too_long(path, size)
        return [archive.read(member) for member in found]


def _too_long(path: Path, size: int) -> FileFormatError:
    return FileFormatError(
        f"{path.name}: its pickle has {size} bytes; at most {MAX_PICKLE_BYTES} are read. Save the "
        "state dict alone: torch.save(module.state_dict(), ...)."
    )


class _Part:
    """A value on the unpickler's stack: how many parts it has, each as often as it is reached."""

    def __init__(self, weight: int = 1, parts: tuple[_Part, ...] = ()) -> None:
        self.weight = min(weight, MAX_COST + 1)
        self.parts = parts

    def grow(self, more: int) -> None:
        self.weight = min(self.weight + more, MAX_COST + 1)

    @property
    def handed_over(self) -> int:
        """What a function can go through; a list in it may have grown since."""
        return self.weight + sum(part.weight for part in self.parts)


class _Stop(Exception):
    """An opcode that torch does not know; there it raises an error too."""


def _scan(file: IO[bytes], path: Path) -> None:
    """One pickle, without building anything.

    Raises:
        FileFormatError: it is none, is too long or costs too much.
    """
    machine, begin = _Machine(), file.tell()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            machine.step(opcode.name, argument)
            if file.tell() - begin > MAX_PICKLE_BYTES:
                raise _too_long(path, file.tell() - begin)
            if number > MAX_OPCODES or machine.cost > MAX_COST:
                raise FileFormatError(
                    f"{path.name}: its pickle asks for too much for a state dict. Refused as a "
                    "bomb. Save the state dict alone: torch.save(module.state_dict(), ...)."
                )
            if machine.called:
                raise FileFormatError(
                    f"{path.name}: its pickle calls {machine.called}, which no state dict needs. "
                    "Save the state dict alone: torch.save(module.state_dict(), ...)."
                )
    except _Stop:
        return
    except (ValueError, LookupError, TypeError, EOFError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(
            f"{path.name} is no state dict that can be read without running code from it: "
            f"{str(error)[:200]}. Save module.state_dict() with torch.save."
        ) from error


class _Machine:
    """The stack and the memo of the unpickler, of weights alone."""

    def __init__(self) -> None:
        self.stack: list[_Part] = []
        self.below: list[list[_Part]] = []  # one for each open mark
        self.memo: dict[int, _Part] = {}
        self.cost = 0
        self.called = ""

    def _to_mark(self) -> list[_Part]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            text = len(argument) // 8 if isinstance(argument, str) else 0
            self.stack.append(_Part(1 + text))
            if name == "GLOBAL" and argument.split(" ")[-1] == "bytearray":
                self.called = "bytearray"  # of any size
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name in _TUPLES:
            size = _TUPLES[name]
            items = self._to_mark() if size is None else [self.stack.pop() for _ in range(size)]
            self.stack.append(_Part(1 + sum(i.weight for i in items), tuple(items)))
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            count = {"APPEND": 1, "SETITEM": 2}.get(name)
            items = self._to_mark() if count is None else [self.stack.pop() for _ in range(count)]
            if name.startswith("SET"):
                self.cost += sum(i.weight for i in items if i.parts)  # a key is hashed
            self.stack[-1].grow(sum(i.weight for i in items))
        elif name in ("REDUCE", "NEWOBJ", "BUILD"):
            given = self.stack.pop()
            self.cost += given.handed_over
            kept = self.stack.pop()
            self.stack.append(kept if name == "BUILD" else _Part(1 + given.handed_over))
        elif name == "BINPERSID":
            self.cost += self.stack.pop().weight
            self.stack.append(_Part())
        elif name not in ("PROTO", "STOP"):
            raise _Stop


_CONSTANTS = frozenset((
    "GLOBAL", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT",
    "EMPTY_SET", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING",
    "LONG1",
))  # fmt: skip
_TUPLES: dict[str, int | None] = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
