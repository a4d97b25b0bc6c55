"""A fuzzer of real files: bytes, HDF5 items and attributes, and JSON, changed at random.

    python -m parity_tests.hostile_fuzz DIR SEED SECONDS [FIRST]

Prints a line of JSON for each finding and one at the end. Each mutant depends on SEED and its
number alone. It lies in DIR while it is loaded, so that a crash leaves the file behind.
"""

from __future__ import annotations

import faulthandler
import io
import json
import random
import re
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .conftest import REAL_FILES
from .hostile import LOADS, child, limit_memory, load, write_outside
from .test_files import arrays, keras3, legacy, lstm, named, sequential

HERE = Path(__file__).parent
DEMO = HERE.parent / "kerasish_lstm" / "demo" / "notebook.keras"
FIXTURES = HERE / "fixtures"
MAX_CPU, MAX_MIB = 2.0, 300
SIGNATURES = re.compile(rb"\x89HDF|TREE|SNOD|HEAP|GCOL|OHDR|OCHK|FRHP|FHDB|BTHD|PK..", re.DOTALL)
NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2, 3.5, 10**12, 10**400, 1e308, float("nan"), "", "LSTM", "a/b", "../x",
    "\0", "\ud800", "float16", "hard_sigmoid", [], [[]], {}, {"class_name": "LSTM"}, [1, 2, 3],
    {"class_name": "LSTM", "config": {"units": 2}}, {"class_name": "Model", "config": {}},
    {"class_name": "Bidirectional", "config": {"layer": {"class_name": "LSTM", "config": {}}}},
)  # fmt: skip
KINDS = (
    "LSTM", "LSTMCell", "CuDNNLSTM", "Bidirectional", "TimeDistributed", "RNN", "StackedRNNCells",
    "Sequential", "Functional", "Model", "Dense", "Lambda", "ConvLSTM2D", "system",
)  # fmt: skip


def sources(folder: Path) -> list[Path]:
    """Real files: the package's, those of the helpers, of Keras's versions, of other people."""
    folder.mkdir(exist_ok=True)
    two = {"a": named("a", 1), "b": named("b/lstm_cell", 2)}
    halves = [*named("forward_lstm", 1), *named("backward_lstm", 2)]
    around = {"class_name": "Bidirectional", "config": {"name": "both", "layer": lstm("x")}}
    keras3(folder / "w.weights.h5")
    keras3(folder / "big_endian.weights.h5", weights=[a.astype(">f8") for a in arrays()])
    legacy(folder / "two.h5", two, config=sequential(lstm("a"), lstm("b")))
    legacy(folder / "both.h5", {"both": halves}, config=sequential(around))
    legacy(folder / "weights.h5", two)
    with h5py.File(folder / "gzip.weights.h5", "w") as file:
        for n, array in enumerate(arrays()):
            where = f"layers/lstm/cell/vars/{n}"
            file.create_dataset(where, data=array, compression="gzip", shuffle=True)
    with h5py.File(folder / "latest.weights.h5", "w", libver="latest") as file:
        for n, array in enumerate(arrays()):
            file[f"layers/lstm/cell/vars/{n}"] = array
            file[f"layers/lstm/cell/vars/{n}"].attrs.update({f"a{k}": k for k in range(20)})
    found = [DEMO, *folder.iterdir()]
    for place in (FIXTURES, REAL_FILES):
        if place.is_dir():
            found += [p for p in place.rglob("*") if p.suffix in (".h5", ".keras", ".hdf5")]
    return sorted(found)


# Bytes


def of_bytes(data: bytes, random_: random.Random) -> bytes:
    """A few bytes changed, mostly near HDF5's own structures; or cut, copied, put in."""
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        marks = [m.start() for m in SIGNATURES.finditer(changed)]
        near = random_.choice(marks) if marks else 0
        at = min(len(changed) - 1, near + random_.randrange(512))
        if random_.random() < 0.2:
            at = random_.randrange(len(changed))
        what = random_.randrange(7)
        if what == 0:
            changed[at] ^= 1 << random_.randrange(8)
        elif what == 1:
            changed[at] = random_.randrange(256)
        elif what == 2:
            size = random_.choice((1, 2, 4, 8))
            number = random_.choice((*NUMBERS, len(data), at)) & (256**size - 1)
            changed[at : at + size] = number.to_bytes(size, "little")
        elif what == 3:
            other = random_.choice(marks) if marks else random_.randrange(len(changed))
            size = random_.choice((4, 8, 24, 64, 512))
            changed[at : at + size] = changed[other : other + size]
        elif what == 4 and marks:
            # an address that leads elsewhere
            changed[at : at + 8] = struct.pack("<Q", random_.choice(marks))
        elif what == 5 and random_.random() < 0.3:
            del changed[random_.randrange(len(changed)) :]
        elif what == 6 and random_.random() < 0.3:
            changed[at:at] = random_.randbytes(random_.randrange(1, 64))
    return bytes(changed)


# JSON


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        found.append((value, key))
        if isinstance(inner, dict | list):
            _places(inner, found)
    return found


def of_json(text: str | bytes, random_: random.Random) -> str:
    """A few entries of a config changed, removed, doubled or swapped."""
    value = json.loads(text)
    for _ in range(random_.choice((1, 1, 1, 2, 5))):
        places = _places(value, []) if isinstance(value, dict | list) else []
        if not places:
            break
        wanted = ("class_name", "config", "units", "name", "layers", "layer", "cell", "cells")
        likely = [p for p in places if p[1] in wanted]
        holder, key = random_.choice(likely if likely and random_.random() < 0.5 else places)
        what = random_.randrange(6)
        if what == 0:
            holder[key] = random_.choice(VALUES)
        elif what == 1:
            del holder[key]
        elif what == 2:
            other, where = random_.choice(places)
            holder[key] = json.loads(json.dumps(other.get(where) if isinstance(other, dict) else 1))
        elif what == 3 and isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        elif what == 4 and isinstance(holder[key], int | float):
            holder[key] = -holder[key] + random_.choice((0, 1, 2**31))
        else:
            kinds = [p for p in places if p[1] == "class_name"]
            if kinds:
                holder, key = random_.choice(kinds)
                holder[key] = random_.choice(KINDS)
    return json.dumps(value)


# HDF5


def _attribute(random_: random.Random) -> Any:
    return random_.choice(
        (
            1, 2.5, "text", b"\xff", "", h5py.Empty("f4"), np.zeros(3), np.zeros((2, 2), "i1"),
            ["a", "b"], [b"kernel:0", b"recurrent_kernel:0", b"bias:0"], ["x"] * 500, "{", "[]",
            np.array([b"lstm"] * 50), "3.0.0", "1.2.2", np.bool_(True), ["../a", "/", ".", ""],
        )
    )  # fmt: skip


def of_hdf5(data: bytes, random_: random.Random) -> bytes:
    """A few items or attributes of a whole file changed by h5py itself."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(random_.choice((1, 1, 2, 5))):
            where = random_.choice(["/", *names])
            if where not in file:
                continue
            item, what = file[where], random_.randrange(9)
            keys = [*item.attrs, "layer_names", "weight_names", "keras_version", "model_config"]
            key = random_.choice(keys)
            if what == 0:
                item.attrs[key] = _attribute(random_)
            elif what == 1 and key in item.attrs:
                if key == "model_config":
                    item.attrs[key] = of_json(item.attrs[key], random_)
                else:
                    del item.attrs[key]
            elif where == "/":
                continue
            elif what == 2:
                del file[where]
            elif what == 3:
                file.move(where, random_.choice(["moved", f"{where}_1", "layers/lstm_7"]))
            elif what == 4:
                other = random_.choice(["/", *names])
                name = f"{other}/lstm/cell/vars/{random_.randrange(4)}"
                if other in file and name not in file and isinstance(file[other], h5py.Group):
                    file[name] = item
            elif what == 5:
                del file[where]
                links = (h5py.SoftLink("/"), h5py.ExternalLink("/etc/passwd", "/"))
                file[where] = random_.choice(links)
            elif isinstance(item, h5py.Dataset):
                _change_dataset(file, where, random_)
    return buffer.getvalue()


def _change_dataset(file: h5py.File, where: str, random_: random.Random) -> None:
    if file[where].dtype.kind != "f" or file[where].size > 10**6:
        return
    array, shape = file[where][()], list(file[where].shape)
    del file[where]
    if random_.random() < 0.4:
        kind = random_.choice(("f2", "f4", ">f4", ">f8", "i4", "c8", "S3", "?", "f16"))
        with np.errstate(all="ignore"):
            file[where] = array.real.astype(kind)
        return
    if shape and random_.random() < 0.8:
        at = random_.randrange(len(shape))
        shape[at] = random_.choice((0, 1, shape[at] + 1, shape[at] * 2, 2**20, 2**33))
    else:
        shape = random_.choice(([], [1], [4, 4, 4], [*shape, 1]))
    chunks = tuple(max(1, min(s, 64)) for s in shape) if shape else None
    packing = random_.choice((None, "gzip", "lzf")) if shape else None
    file.create_dataset(where, shape, "f4", chunks=chunks, compression=packing)


# The loop


def mutant(paths: list[Path], seed: str, number: int) -> tuple[str, bytes]:
    """One mutant: its name and bytes."""
    random_ = random.Random(f"{seed}/{number}")
    path = random_.choice(paths)
    data = path.read_bytes()
    of_content: list[Callable[[bytes, random.Random], Any]] = [of_bytes, of_hdf5]
    try:
        if not data.startswith(b"PK"):
            return path.name, random_.choice([*of_content, of_bytes])(data, random_)
        if random_.random() < 0.2:
            return path.name, of_bytes(data, random_)
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        if random_.random() < 0.6:
            members["config.json"] = of_json(members["config.json"], random_).encode()
        else:
            made = random_.choice(of_content)(members["model.weights.h5"], random_)
            members["model.weights.h5"] = made
    except (OSError, ValueError, KeyError, RuntimeError, TypeError):
        return path.name, of_bytes(data, random_)  # what h5py itself does not write
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", random_.choice((0, 0, 8))) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path.name, buffer.getvalue()


def main(folder: Path, seed: str, seconds: float, number: int = 0) -> None:
    """Load mutants for so many seconds."""
    write_outside(folder)
    measure = child(folder)
    paths = sources(folder / "sources")
    limit_memory(3 * 2**30)
    until = time.monotonic() + seconds
    first, loaded, worst, most = number, 0, 0.0, 0.0
    while time.monotonic() < until:
        name, data = mutant(paths, seed, number)
        path = folder / f"{number}-{name}"
        path.write_bytes(data)
        print(json.dumps({"number": number}), flush=True)
        faulthandler.dump_traceback_later(30, exit=True)
        found = measure.run(path, load)
        faulthandler.cancel_dump_traceback_later()
        names = found["outcome"].split(",")
        loaded += names == [LOADS]
        worst, most = max(worst, found["cpu"]), max(most, found["mib"])
        if (
            not {LOADS, "KerasishError"} & set(names)
            or found["cpu"] > MAX_CPU
            or found["mib"] > MAX_MIB
            or found["events"] or found["outside"] or found["imported"]
        ):  # fmt: skip
            print(json.dumps({"finding": number} | found), flush=True)
        else:
            path.unlink()
        number += 1
    done = {"files": number - first, "loaded": loaded, "cpu": worst, "mib": most}
    print(json.dumps({"done": done}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], float(sys.argv[3]), *map(int, sys.argv[4:]))
