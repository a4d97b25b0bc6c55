"""Hostile files, each made by a few lines here, and the process in which they are loaded.

    python -m parity_tests.hostile DIR               write every file of TABLE
    python -m parity_tests.hostile --load DIR NAMES  load them; one line of JSON for each
    python -m parity_tests.hostile --fuzz DIR ...    load mutated real files (see test_hostile.py)

What lies outside the file that is loaded is in DIR/outside; nothing may open it.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import faulthandler
import gc
import json
import marshal
import os
import pickle
import re
import resource
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasish_lstm.errors import (
    ConfigError,
    FileFormatError,
    KerasishError,
)

from .test_files import NAMES, F, U, archive, arrays, keras3, legacy, lstm, named, sequential

OUTSIDE = "outside"
EVIL = "evil_module_of_the_hostile_corpus"
KERNEL = "layers/lstm/cell/vars/0"
MIB = 2**20

Maker = Callable[[Path], Any]


def outside(path: Path, name: str) -> Path:
    """A file that no load may open."""
    return path.parent / OUTSIDE / name


def write_outside(folder: Path) -> None:
    """A secret, weights, and a module that tells when it is imported."""
    other = folder / OUTSIDE
    other.mkdir(parents=True, exist_ok=True)
    keras3(other / "secret.weights.h5")
    (other / "secret.bin").write_bytes(bytes(4096))
    (other / f"{EVIL}.py").write_text(
        f"open({str(other / 'RAN')!r}, 'w').close()\n"
        "def run(*a, **k): raise SystemExit(99)\nclass Evil(dict): __init__ = run\n"
    )


# HDF5


def changed(change: Callable[[h5py.File, Path], Any], **more: Any) -> Maker:
    """A weights file to which something was done; ``.keras`` around it where that is its name."""

    def make(path: Path) -> None:
        inner = path if path.suffix != ".keras" else path.with_suffix(".inner")
        keras3(inner, **more)
        with h5py.File(inner, "r+") as file:
            change(file, path)
        if inner != path:
            data = inner.read_bytes()
            inner.unlink()
            archive(path, sequential(lstm()), weights=data)

    return make


def instead(where: str, put: Callable[[h5py.File, str, Path], Any]) -> Maker:
    """A weights file with something else at a path."""

    def change(file: h5py.File, path: Path) -> None:
        if where in file:
            del file[where]
        put(file, where, path)

    return changed(change)


def assign(value: Any) -> Callable[[h5py.File, str, Path], Any]:
    return lambda file, where, path: file.__setitem__(where, value)


def dataset(*shape: int, dtype: Any = "f4", **more: Any) -> Callable[[h5py.File, str, Path], Any]:
    return lambda file, where, path: file.create_dataset(where, shape, dtype, **more)


def external_link(file: h5py.File, where: str, path: Path) -> None:
    target = "/layers/lstm" if where.endswith("lstm") else f"/{KERNEL}"
    file[where] = h5py.ExternalLink(str(outside(path, "secret.weights.h5")), target)


def external_data(file: h5py.File, where: str, path: Path) -> None:
    raw = [(str(outside(path, "secret.bin")), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(where, (F, 4 * U), "f4", external=raw)


def virtual(unlimited: bool) -> Callable[[h5py.File, str, Path], Any]:
    """An unlimited one opens its sources already when its shape is asked."""

    def put(file: h5py.File, where: str, path: Path) -> None:
        most = (None, 4 * U) if unlimited else (F, 4 * U)
        layout = h5py.VirtualLayout((F, 4 * U), "f4", maxshape=most)
        source = h5py.VirtualSource(
            str(outside(path, "secret.weights.h5")), KERNEL, (F, 4 * U), "f4", most
        )
        if unlimited:
            layout[: h5py.h5s.UNLIMITED, :] = source[: h5py.h5s.UNLIMITED, :]
        else:
            layout[:] = source
        file.create_virtual_dataset(where, layout)

    return put


def alias_of_root(file: h5py.File, path: Path) -> None:
    file["layers/lstm_1"] = file["/"]


def loop(file: h5py.File, path: Path) -> None:
    file["layers/lstm/again"] = file["layers/lstm"]


def ladder(file: h5py.File, path: Path) -> None:
    """Forty groups, and 2**40 paths to the last."""
    below = file.create_group("end")
    for n in range(40):
        group = file.create_group(f"layers/step_{n}")
        group["left"], group["right"] = below, below
        below = group


def shared_dataset(file: h5py.File, path: Path) -> None:
    del file["layers/lstm"]
    for n, array in enumerate(arrays()):
        file[f"kept/{n}"] = array
    for name in ("lstm", "lstm_1"):
        for n in range(3):
            file[f"layers/{name}/cell/vars/{n}"] = file[f"kept/{n}"]


def thousands_of_one(file: h5py.File, path: Path) -> None:
    """One array of 1 MiB that stands in 400 layers."""
    del file["layers/lstm"]
    file["kept/0"] = np.zeros((2**17 // U, 4 * U), "f4")
    file["kept/1"], file["kept/2"] = arrays()[1:]
    for layer in range(400):
        for n in range(3):
            file[f"layers/lstm_{layer}/cell/vars/{n}"] = file[f"kept/{n}"]


def empty_groups(count: int) -> Callable[[h5py.File, Path], Any]:
    def change(file: h5py.File, path: Path) -> None:
        for n in range(count):
            file.create_group(f"layers/g{n}")

    return change


INFLATES: list[bytes] = []


def zeros_deflated() -> bytes:
    """512 MiB of zeros in half a MiB, made once."""
    if not INFLATES:
        INFLATES.append(zlib.compress(bytes(512 * MIB), 9))
    return INFLATES[0]


def lying_chunk(file: h5py.File, where: str, path: Path) -> None:
    """96 bytes whose stored chunk inflates to 512 MiB."""
    made = file.create_dataset(
        where, (F, 4 * U), "f4", maxshape=(None, None), chunks=(1024, 4 * U), compression="gzip"
    )
    made.id.write_direct_chunk((0, 0), zeros_deflated())


def filtered(code: int, *values: int) -> Callable[[h5py.File, str, Path], Any]:
    """A dataset with an HDF5 filter that may not be registered."""

    def put(file: h5py.File, where: str, path: Path) -> None:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((F, 4 * U))
        properties.set_filter(code, h5py.h5z.FLAG_OPTIONAL, values)
        space = h5py.h5s.create_simple((F, 4 * U))
        made = h5py.h5d.create(file.id, where.encode(), h5py.h5t.IEEE_F32LE, space, properties)
        made.write_direct_chunk((0, 0), bytes(96))

    return put


def compressed(**more: Any) -> Maker:
    def change(file: h5py.File, path: Path) -> None:
        for n, array in enumerate(arrays()):
            del file[f"layers/lstm/cell/vars/{n}"]
            chunks = tuple(max(1, dim // 2 + 1) for dim in array.shape)
            where = f"layers/lstm/cell/vars/{n}"
            file.create_dataset(where, data=array.astype(">f8"), chunks=chunks, **more)

    return changed(change)


def tiny_float(file: h5py.File, where: str, path: Path) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    kind.set_ebias(1023)
    space = h5py.h5s.create_simple((F, 4 * U))
    h5py.h5d.create(file.id, where.encode(), kind, space)


def of_values(*values: float, dtype: str = "f4") -> Maker:
    weights = [a.astype(dtype) for a in arrays()]
    weights[0].reshape(-1)[: len(values)] = values
    return lambda path: keras3(path, weights=weights)


# Legacy HDF5

RAGGED = np.empty(2, object)
RAGGED[:] = [np.ones(3), np.ones(4)]
ONE = {"lstm": named("lstm")}


def legacy_with(change: Callable[[h5py.File, Path], Any], config: Any = None) -> Maker:
    def make(path: Path) -> None:
        legacy(path, ONE, config=config)
        with h5py.File(path, "r+") as file:
            change(file, path)

    return make


def attribute(name: str, value: Any, where: str = "/") -> Callable[[h5py.File, Path], Any]:
    def change(file: h5py.File, path: Path) -> None:
        item = file[where]
        if name in item.attrs:
            del item.attrs[name]
        item.attrs[name] = value(file) if callable(value) else value

    return change


def one_text_many_times(path: Path) -> None:
    """3000 layer names, all of them one text of 1 MiB: 3 GiB once they are read."""
    legacy(path, ONE)
    with h5py.File(path, "r+") as file:
        del file.attrs["layer_names"]
        names = ["A" * MIB, *["B"] * 2999]
        file.attrs.create("layer_names", names, dtype=h5py.string_dtype())
    data = bytearray(path.read_bytes())
    pair = re.escape(struct.pack("<I", MIB)) + b".{12}" + re.escape(struct.pack("<I", 1))
    found = re.search(pair, data, re.DOTALL)
    assert found is not None
    first = found.start()
    long, entry = bytes(data[first : first + 16]), first + 16
    while data[entry : entry + 4] == struct.pack("<I", 1):
        data[entry : entry + 16] = long
        entry += 16
    del found  # it holds the bytes
    path.write_bytes(data)


def text_of_4_gib(path: Path) -> None:
    """A text that claims a length of 4 GiB, which HDF5 allocates before it looks."""
    legacy(path, ONE)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<I", 5), data.index(b"keras_version"))
    data[at : at + 4] = struct.pack("<I", 2**32 - 16)
    path.write_bytes(data)


def endless_heap(path: Path) -> None:
    """A heap with a piece of no size, over which HDF5 1.14.6 never gets."""
    legacy(path, ONE)
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16
    while data[at : at + 2] != b"\0\0":
        at += 16 + -(-int.from_bytes(data[at + 8 : at + 16], "little") // 8) * 8
    size = int.from_bytes(data[at + 8 : at + 16], "little")
    data[at + 8 : at + 16] = (size - 128).to_bytes(8, "little")
    path.write_bytes(data)


def long_list(name: str, where: str, values: list[str]) -> Callable[[h5py.File, Path], Any]:
    """A list in the pieces in which Keras stores one."""

    def change(file: h5py.File, path: Path) -> None:
        item = file[where]
        del item.attrs[name]
        step = 2000  # of 16 bytes each; HDF5 takes 64 KiB
        for n in range(0, len(values), step):
            item.attrs[f"{name}{n // step}"] = [v.encode() for v in values[n : n + step]]

    return change


# Zip and JSON


def config_is(config: Any, **more: Any) -> Maker:
    return lambda path: (archive(path, config, **more), path.with_suffix(".h5").unlink())


def raw_config(text: bytes) -> Maker:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("metadata.json", '{"keras_version": "3.15.1"}')
            file.writestr("config.json", text)
            file.writestr("model.weights.h5", b"none")

    return make


def layer_with(**entries: Any) -> Maker:
    return config_is(sequential(lstm(**entries)))


def units_text(text: str) -> Maker:
    """units as this JSON says."""
    return config_is(json.dumps(sequential(lstm())).replace('"units": 2', f'"units": {text}'))


def packed_by(method: int) -> Maker:
    return config_is(sequential(lstm()), compression=method)


def lying_member(path: Path) -> None:
    """config.json says that it has 100 bytes, and inflates to 512 MiB."""
    raw_config(bytes(512 * MIB))(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 512 * MIB), struct.pack("<I", 100)))


def stored_member_of_two_sizes(path: Path) -> None:
    config_is(sequential(lstm()))(path)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"model.weights.h5") - 46
    data[at + 24 : at + 28] = struct.pack("<I", 2 * len(data))
    path.write_bytes(data)


def encrypted(path: Path) -> None:
    config_is(sequential(lstm()))(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)


def broken_checksum(path: Path) -> None:
    config_is(sequential(lstm()))(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"LSTM"', b'"LSTN"', 1))


def broken_deflate(path: Path) -> None:
    raw_config(json.dumps(sequential(*[lstm(f"l{n}") for n in range(50)])).encode())(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"config.json") + len(b"config.json") + 20
    data[at : at + 40] = bytes(range(40))
    path.write_bytes(data)


def many_members(path: Path) -> None:
    """200,000 entries in the directory, of no bytes each."""
    config_is(sequential(lstm()))(path)
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, *[0] * 7, 1, *[0] * 6) + b"x"
    more = entry * 200_000
    size, count = end - start + len(more), 3 + 200_000
    new_end = start + size
    zip64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, new_end, 1)
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:end] + more + zip64 + locator + last)


def members(*more: tuple[str, bytes]) -> Maker:
    return config_is(sequential(lstm()), more=more)


def symbolic_member(path: Path) -> None:
    config_is(sequential(lstm()))(path)
    with zipfile.ZipFile(path, "a") as file:
        info = zipfile.ZipInfo("assets/link")
        info.external_attr = 0o120777 << 16
        file.writestr(info, str(outside(path, "secret.bin")))


def nested_models(depth: int) -> dict[str, Any]:
    inner = lstm()
    for n in range(depth):
        inner = {**sequential(inner), "config": {"name": f"m{n}", "layers": [inner]}}
    return sequential(inner)


# Code in a config


def marshalled() -> str:
    """A lambda as Keras stores one: code that would write a file."""
    code = compile(f"import {EVIL}", "lambda", "exec")
    return base64.b64encode(marshal.dumps(code)).decode()


def of(class_name: str, module: str | None, config: Any, **more: Any) -> dict[str, Any]:
    return {"class_name": class_name, "module": module, "config": config, **more}


def lambda_layer(name: str = "lambda") -> dict[str, Any]:
    code = {"class_name": "__lambda__", "config": {"code": marshalled(), "defaults": None}}
    return of("Lambda", "keras.layers", {"name": name, "function": code})


SYSTEM = of("system", "os", f"touch {EVIL}", registered_name="system")
IMPORT = of("Evil", EVIL, {"name": "evil", "units": U}, registered_name="Evil")
TRICK = of("LSTM", EVIL, {"name": "lstm", "units": U}, registered_name=f"{EVIL}>Evil")
CODE = of("__lambda__", "builtins", {"value": marshalled()})
GET_FILE = of("function", "keras.utils", "get_file", registered_name="function")
UNSAFE = of("function", "keras.config", "enable_unsafe_deserialization")


def wrapped(kind: str, key: str, inner: Any, **more: Any) -> dict[str, Any]:
    return of(kind, "keras.layers", {"name": "outer", key: inner, **more})


OBJECT_KEYWORDS = (
    "activation", "recurrent_activation", "kernel_initializer", "recurrent_initializer",
    "bias_initializer", "kernel_regularizer", "recurrent_regularizer", "bias_regularizer",
    "activity_regularizer", "kernel_constraint", "recurrent_constraint", "bias_constraint",
    "dtype", "name", "seed", "units",
)  # fmt: skip


# Shards


def shard_map(entries: Any) -> Maker:
    """``x.weights.json`` beside a shard, and beside a link out."""

    def make(path: Path) -> None:
        keras3(path.with_name("x_00000.weights.h5"))
        link = path.with_name("link_00000.weights.h5")
        if not link.is_symlink():
            link.symlink_to(outside(path, "secret.weights.h5"))
        made = entries(path) if callable(entries) else entries
        text = {"metadata": {"total_size": 1}, "weight_map": made}
        path.write_text(json.dumps(text))

    return make


VARS = "/layers/lstm/cell/vars"


# Torch files


class _Runs:
    """A pickle that imports, and calls."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {EVIL}",)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight_ih_l0": _Runs()}))


def pickled_in_a_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"weight_ih_l0": _Runs()}, protocol=2))
        file.writestr("archive/version", "3\n")


def pickled_module(path: Path) -> None:
    """A reference to a global of a module that must not be imported."""
    path.write_bytes(b"\x80\x02c" + EVIL.encode() + b"\nEvil\nq\x00)\x81q\x01.")


def _truncated(path: Path) -> None:
    path.write_bytes(keras3(path).read_bytes()[:1500])


E, C, K = FileFormatError, ConfigError, KerasishError
LOADS = "loads"
EITHER = "loads or KerasishError"
OTHER = "in another file"
BOMB = "decompression bomb"

# name of the file: (maker, the error's class, LOADS or EITHER, what its message says)
TABLE: dict[str, tuple[Maker, type[Exception] | str, str]] = {
    # Pointers out of the file
    "group external link.weights.h5": (instead("layers/lstm", external_link), E, "ExternalLink"),
    "group soft link.weights.h5": (
        instead("layers/lstm", assign(h5py.SoftLink("/vars"))), E, "SoftLink.*refused"
    ),
    "dangling soft link.weights.h5": (
        instead("layers/lstm", assign(h5py.SoftLink("/nowhere"))), E, "SoftLink.*refused"
    ),
    "soft link to itself.weights.h5": (
        instead("layers/lstm", assign(h5py.SoftLink("/layers/lstm"))), E, "SoftLink.*refused"
    ),
    "external link in a zip.keras": (instead(KERNEL, external_link), E, "ExternalLink.*refused"),
    "external data.weights.h5": (instead(KERNEL, external_data), E, OTHER),
    "external data in a zip.keras": (instead(KERNEL, external_data), E, OTHER),
    "virtual data.weights.h5": (instead(KERNEL, virtual(False)), E, OTHER),
    "virtual data without end.weights.h5": (instead(KERNEL, virtual(True)), E, OTHER),
    "legacy root is a link.h5": (
        legacy_with(
            lambda f, p: (
                f.move("model_weights", "kept"),
                f.__setitem__("model_weights", h5py.SoftLink("/kept")),
            ),
            sequential(lstm()),
        ),
        E, "SoftLink.*refused",
    ),
    # Hard links
    "two layers share a dataset.weights.h5": (changed(shared_dataset), LOADS, ""),
    "a loop of groups.weights.h5": (changed(loop), E, "one and the same"),
    "root in itself.weights.h5": (changed(alias_of_root), E, "one and the same"),
    "a ladder of groups.weights.h5": (changed(ladder), E, "one and the same"),
    "400 layers of one array.weights.h5": (changed(thousands_of_one), E, BOMB),
    # Bombs
    "2**40 rows.weights.h5": (
        instead(KERNEL, dataset(2**40, 4 * U, chunks=(2**20, 4 * U))), E, BOMB
    ),
    "2**63 rows.weights.h5": (
        instead(KERNEL, dataset(2**58, 4 * U, chunks=(1, 4 * U), dtype="f2")), E, BOMB
    ),
    "16 MiB in chunks of one number.weights.h5": (
        instead(KERNEL, dataset(2**19, 4 * U, chunks=(1, 1))), E, "chunks, which is too many"
    ),
    "a chunk of 1 GiB.weights.h5": (
        instead(KERNEL, dataset(F, 4 * U, maxshape=(None, None), chunks=(2**25, 4 * U))), E, BOMB
    ),
    "a chunk that inflates.weights.h5": (instead(KERNEL, lying_chunk), E, BOMB),
    "a chunk that inflates.keras": (instead(KERNEL, lying_chunk), E, BOMB),
    "gzipped zeros.weights.h5": (
        instead(
            KERNEL,
            lambda f, w, p: f.create_dataset(
                w, data=np.zeros((2**21, 4 * U), "f4"), chunks=(2**18, 8), compression="gzip"
            ),
        ),
        E, BOMB,
    ),
    "a size that lies.keras": (lying_member, E, r"config.json"),
    "stored, of two sizes.keras": (stored_member_of_two_sizes, E, "two sizes|bomb"),
    "JSON of zeros.keras": (raw_config(bytes(64 * MIB)), E, BOMB),
    "bzip2.keras": (packed_by(zipfile.ZIP_BZIP2), E, "compressed by method 12"),
    "lzma.keras": (packed_by(zipfile.ZIP_LZMA), E, "compressed by method 14"),
    "200000 members.keras": (many_members, E, "a zip whose directory has"),
    "one text 3000 times.h5": (one_text_many_times, E, "too long: 3000 texts"),
    "a text of 4 GiB.h5": (text_of_4_gib, E, "too long: 1 texts"),
    "an endless heap.h5": (endless_heap, E, "a piece of no size"),
    "25000 groups.weights.h5": (changed(empty_groups(25_000)), E, "more than 10000 groups"),
    # Filters
    "gzip and shuffle.weights.h5": (compressed(compression="gzip", shuffle=True), LOADS, ""),
    "gzip.weights.h5": (compressed(compression="gzip"), LOADS, ""),
    "in chunks.weights.h5": (compressed(), LOADS, ""),
    "lzf.weights.h5": (compressed(compression="lzf"), E, "filters.*32000"),
    "fletcher32.weights.h5": (compressed(fletcher32=True), E, "filters.*3"),
    "a filter of a plugin.weights.h5": (instead(KERNEL, filtered(32015)), E, "filters.*32015"),
    # Types
    "text.weights.h5": (instead(KERNEL, dataset(F, 4 * U, dtype=h5py.string_dtype())), E, "object"),
    "references.weights.h5": (
        instead(KERNEL, dataset(F, 4 * U, dtype=h5py.ref_dtype)), E, "holds object"
    ),
    "lists.weights.h5": (
        instead(KERNEL, dataset(F, 4 * U, dtype=h5py.vlen_dtype("f4"))), E, "holds object"
    ),
    "compound.weights.h5": (
        instead(KERNEL, dataset(F, 4 * U, dtype=[("a", "f4"), ("b", "f4")])), E, "holds"
    ),
    "compound of 2 bytes.weights.h5": (
        instead(KERNEL, dataset(F, 4 * U, dtype=[("a", "i1"), ("b", "i1")])), E, "holds"
    ),
    "booleans.weights.h5": (instead(KERNEL, dataset(F, 4 * U, dtype="?")), E, "holds bool"),
    "complex128.weights.h5": (instead(KERNEL, dataset(F, 4 * U, dtype="c16")), E, "holds complex"),
    "float128.weights.h5": (instead(KERNEL, dataset(F, 4 * U, dtype="f16")), E, "holds float128"),
    "an own kind of float.weights.h5": (instead(KERNEL, tiny_float), LOADS, ""),
    "big-endian float16.weights.h5": (of_values(0.5, dtype=">f2"), LOADS, ""),
    "nan and inf.weights.h5": (of_values(np.nan, np.inf, -np.inf), LOADS, ""),
    "nothing.weights.h5": (
        instead(KERNEL, assign(h5py.Empty("f4"))), E, "no LSTM|empty|shapes"
    ),
    "a number.weights.h5": (instead(KERNEL, assign(1.0)), E, "no LSTM|shapes"),
    "no features.weights.h5": (instead(KERNEL, dataset(0, 4 * U)), K, ""),
    "32 dimensions.weights.h5": (instead(KERNEL, dataset(*[1] * 32)), E, "no LSTM|shapes"),
    "a group for a dataset.weights.h5": (
        instead(KERNEL, lambda f, w, p: f.create_group(w)), E, "no LSTM|shapes"
    ),
    "a dataset for a group.weights.h5": (instead("layers/lstm", assign(1.0)), E, "no LSTM"),
    "a dtype for a dataset.weights.h5": (
        instead(KERNEL, assign(np.dtype("f4"))), E, "no LSTM|shapes"
    ),
    # Attributes
    "layer_names of floats.h5": (
        legacy_with(attribute("layer_names", [1.0, 2.0])), E, "'layer_names'.*not a list of texts"
    ),
    "layer_names of references.h5": (
        legacy_with(attribute("layer_names", lambda f: f["lstm"].ref)), E, "not a list of texts"
    ),
    "layer_names of lists.h5": (
        legacy_with(
            lambda f, p: (
                f.attrs.__delitem__("layer_names"),
                f.attrs.create("layer_names", RAGGED, dtype=h5py.vlen_dtype("f8")),
            )
        ),
        E, "not a list of texts",
    ),
    "layer_names is one text.h5": (legacy_with(attribute("layer_names", "lstm")), LOADS, ""),
    "layer_names is empty.h5": (
        legacy_with(attribute("layer_names", h5py.Empty("S1"))), E, "holds no LSTM"
    ),
    "no such layer.h5": (legacy_with(attribute("layer_names", [b"\xff\xfe"])), E, "holds no LSTM"),
    "names that climb.h5": (
        legacy_with(
            attribute("weight_names", [b"../../k/kernel:0", b"/etc/recurrent_kernel:0"], "lstm")
        ),
        E, "holds no LSTM",
    ),
    "a version of numbers.h5": (
        legacy_with(attribute("keras_version", 2), sequential(lstm())), E, "'keras_version'.*a text"
    ),
    "versions.h5": (
        legacy_with(attribute("keras_version", ["2.4", "3"]), sequential(lstm())), E, "not a text"
    ),
    "one layer 5000 times.h5": (
        legacy_with(long_list("layer_names", "/", ["lstm"] * 5000)), E, "'lstm' twice"
    ),
    "one weight 5000 times.h5": (
        legacy_with(long_list("weight_names", "lstm", [f"lstm/{n}:0" for n in NAMES] * 5000)),
        E, "twice",
    ),
    # JSON
    "deep.keras": (raw_config(b'{"a":' * 100_000), E, "no JSON: RecursionError"),
    "deep and whole.keras": (
        raw_config(b'{"class_name":"Sequential","config":' * 400 + b"1" + b"}" * 400), E, ""
    ),
    "models 60 deep.keras": (config_is(nested_models(60)), E, "units=2"),
    "models 70 deep.keras": (config_is(nested_models(70)), E, "more than 64 deep"),
    "empty lists.keras": (raw_config(b"[" + b"[]," * 5_000_000 + b"[]]"), E, "too many parts"),
    "20 MiB of blanks.keras": (raw_config(b" " * 20 * MIB), E, BOMB),
    "20000 layers.keras": (
        config_is(sequential(*[{"class_name": "Dense", "config": {}} for _ in range(20_000)])),
        K, "an LSTM's arrays|more than|too many",
    ),
    "20000 LSTMs.keras": (
        config_is(sequential(*[lstm(f"l{n}") for n in range(20_000)])), E, "units=2|too many|arrays"
    ),
    "UTF-16.keras": (raw_config(json.dumps(sequential()).encode("utf-16")), E, "damaged"),
    "no UTF-8.keras": (raw_config(b'{"a": "\xff"}'), E, "no JSON"),
    "a list.keras": (raw_config(b"[1]"), E, "layer 0 is no layer config|no list"),
    "null.keras": (raw_config(b"null"), E, "no list of layers"),
    "layers of layers.keras": (config_is(sequential([[]])), E, "no layer config"),
    "a layer named by a number.keras": (layer_with(name=7), K, ""),
    "a name that climbs.keras": (layer_with(name="../../etc/passwd"), LOADS, ""),
    "a name of 1 MiB.keras": (layer_with(name="n" * MIB), LOADS, ""),
    "a name that is no text.keras": (layer_with(name="\ud800"), LOADS, ""),
    "two of one name.keras": (config_is(sequential(lstm(), lstm())), K, ""),
    "units twice.keras": (units_text('7, "units": 2'), LOADS, ""),
    **{
        f"units {text[:12].replace('/', '')}.keras": (units_text(text), K, "units|no JSON")
        for text in (
            "NaN", "Infinity", "1e308", "-1", "0", "null", '"2"', "[2]", "{}", "2.5",
            "9223372036854775808", "9" * 4000, "9" * 5000,
        )
    },
    "rates beyond.keras": (layer_with(dropout=1e300, recurrent_dropout=-1e300), LOADS, ""),
    "a rate that is NaN.keras": (layer_with(dropout=float("nan")), K, "dropout"),
    "a seed of 10**300.keras": (layer_with(seed=10**300), K, "seed"),
    # Zip
    "encrypted.keras": (encrypted, E, "encrypted"),
    "a wrong checksum.keras": (broken_checksum, E, "damaged"),
    "a broken deflate.keras": (broken_deflate, E, "damaged"),
    "a member that climbs.keras": (
        members(("../outside/RAN", b"x"), ("/tmp/RAN", b"x"), ("C:\\RAN", b"x")), LOADS, ""
    ),
    "a symbolic link.keras": (symbolic_member, LOADS, ""),
    "two weights.keras": (
        members(("model.weights.h5", b"x")), E, "2 members called 'model.weights.h5'"
    ),
    "a hidden second config.keras": (
        members(("config.json\0.txt", b"{}")), E, "2 members called 'config.json'"
    ),
    # Shards
    "climbs.weights.json": (
        shard_map({VARS: f"../{OUTSIDE}/secret.weights.h5"}), E, r"weights\.json"
    ),
    "goes down.weights.json": (
        shard_map({VARS: f"{OUTSIDE}/secret.weights.h5"}), E, r"weights\.json"
    ),
    "absolute.weights.json": (
        shard_map(lambda p: {VARS: str(outside(p, "secret.weights.h5"))}), E, r"weights\.json"
    ),
    "backslash.weights.json": (
        shard_map({VARS: f"..\\{OUTSIDE}\\secret.weights.h5"}), E, r"weights\.json"
    ),
    "by a link.weights.json": (shard_map({VARS: "link_00000.weights.h5"}), E, ""),
    "a shard that is not there.weights.json": (shard_map({VARS: "x_00007.weights.h5"}), E, ""),
    "a shard that is no text.weights.json": (shard_map({VARS: {"x": 1}}), E, r"weights\.json"),
    "a map that is a list.weights.json": (shard_map([VARS]), E, r"weights\.json"),
    "the same shard 100000 times.weights.json": (
        shard_map({VARS: ["x_00000.weights.h5"] * 100_000}), LOADS, ""
    ),
    # Code
    "os.system.keras": (config_is(sequential(SYSTEM)), K, "an LSTM's arrays there"),
    "the model is os.system.keras": (config_is(SYSTEM), E, "'system'"),
    "an own class.keras": (config_is(sequential(IMPORT)), K, "Evil|arrays"),
    "an own class called LSTM.keras": (
        config_is(sequential(TRICK)), K, "code of the model's author"
    ),
    "a lambda.keras": (config_is(sequential(lambda_layer(), lstm())), LOADS, ""),
    "a lambda.h5": (
        lambda p: legacy(p, ONE, config=sequential(lambda_layer("l"), lstm())), LOADS, ""
    ),
    "a lambda as compile_config.keras": (
        config_is({**sequential(lstm()), "compile_config": {"loss": CODE, "optimizer": SYSTEM}}),
        LOADS, "",
    ),
    **{
        f"{keyword} is {what}.keras": (layer_with(**{keyword: value}), K, "")
        for keyword in OBJECT_KEYWORDS
        for what, value in (("os.system", SYSTEM), ("a lambda", CODE))
        if not keyword.endswith(("initializer", "regularizer", "constraint"))
    },
    **{
        # Kept as configs and never made: an LSTM without training needs none of them.
        f"{keyword} is {what}.keras": (layer_with(**{keyword: value}), EITHER, "")
        for keyword in OBJECT_KEYWORDS
        for what, value in (("os.system", SYSTEM), ("a lambda", CODE), ("get_file", GET_FILE))
        if keyword.endswith(("initializer", "regularizer", "constraint"))
    },
    "activation switches safety off.keras": (layer_with(activation=UNSAFE), C, "activation"),
    "activation is a dotted name.keras": (layer_with(activation=f"{EVIL}.run"), C, "activation"),
    "activation is registered.keras": (
        layer_with(activation=of("function", "builtins", f"{EVIL}>run")),
        C, "activation",
    ),
    **{
        f"{what} in a {kind} as {key}.keras": (
            config_is(sequential(wrapped(kind, key, value))), K, ""
        )
        for what, value in (("os.system", SYSTEM), ("an own LSTM", TRICK), ("a lambda", CODE))
        for kind, key in (
            ("Bidirectional", "layer"), ("Bidirectional", "backward_layer"),
            ("TimeDistributed", "layer"), ("RNN", "cell"), ("StackedRNNCells", "cells"),
            ("Wrapper", "layer"),
        )
    },
    "an own cell among stacked ones.keras": (
        config_is(
            sequential(
                wrapped("RNN", "cell", wrapped("StackedRNNCells", "cells", [lstm(), IMPORT, CODE]))
            )
        ),
        K, "",
    ),
    "a model in a wrapper.keras": (
        config_is(sequential(wrapped("TimeDistributed", "layer", sequential(SYSTEM, TRICK)))), K, ""
    ),
    # Torch
    "pickle.pt": (pickled, E, ""),
    "pickle in a zip.pt": (pickled_in_a_zip, E, ""),
    "a pickle that imports.pt": (pickled_module, E, ""),
}  # fmt: skip


def write(folder: Path, names: Iterable[str] = ()) -> None:
    """Every file of the table, or those named."""
    write_outside(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of double names
        for name in names or TABLE:
            TABLE[name][0](folder / name)


# The process that loads them


class Watch:
    """What is opened in a folder, by whoever, as Linux's inotify tells it. Elsewhere: nothing."""

    def __init__(self, folder: Path) -> None:
        self._file = -1
        if sys.platform == "linux":
            libc = ctypes.CDLL(None)
            self._file = libc.inotify_init1(os.O_NONBLOCK)
            libc.inotify_add_watch(self._file, os.fsencode(folder), 0x0FFF & ~0x10)

    def seen(self) -> list[str]:
        found = []
        try:
            data = os.read(self._file, 65536) if self._file >= 0 else b""
        except BlockingIOError:
            data = b""
        while data:
            size = struct.unpack_from("IIII", data)[3]
            found.append(data[16 : 16 + size].rstrip(b"\0").decode())
            data = data[16 + size :]
        return found


_WATCHED = (
    "marshal.loads", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename",
    "os.mkdir", "os.symlink", "shutil", "socket", "subprocess", "urllib", "exec", "import", "open",
)  # fmt: skip


class Measure:
    """Time, growth of the peak memory, imports and calls of one load after another."""

    def __init__(self, folder: Path) -> None:
        self.watch = Watch(folder / OUTSIDE)
        self.events: list[str] | None = None
        self.path: Path | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.events is None or not event.startswith(_WATCHED):
            return
        if event == "open":
            name, mode, flags = arguments
            written = (flags or 0) & (os.O_WRONLY | os.O_RDWR) or set(mode or "r") & set("wax+")
            own = isinstance(name, int) or str(name).startswith(str(self.path.parent / "x_"))
            if not written and (own or Path(os.fsdecode(name)) == self.path):
                return
            if not written and str(name).endswith((".py", ".pyc", ".so")):
                return  # a part of the interpreter or torch; "import" tells which
        self.events.append(f"{event}{arguments!r}"[:200])

    def run(self, path: Path, load: Callable[[Path], Any]) -> dict[str, Any]:
        gc.collect()
        before = set(sys.modules)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        base = _rss("VmRSS")
        self.path, self.events = path, []
        start, cpu = time.perf_counter(), time.process_time()
        try:
            load(path)
            outcome, message = LOADS, ""
        except Exception as error:  # any at all: the test judges it
            outcome = ",".join(c.__name__ for c in type(error).__mro__[:-2])
            message = f"{error}"[:2000]
            del error
        cpu, wall = time.process_time() - cpu, time.perf_counter() - start
        events, self.events = self.events, None
        return {
            "name": path.name, "outcome": outcome, "message": message, "cpu": cpu, "wall": wall,
            "mib": (_rss("VmHWM") - base) / 2**10, "events": events,
            "outside": self.watch.seen(), "imported": sorted(set(sys.modules) - before),
        }  # fmt: skip


def _rss(entry: str) -> int:
    """In KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1])
    raise KeyError(entry)


def load(path: Path) -> Any:
    """Any file, as the package's users load it."""
    from kerasish_lstm import load_keras

    if path.suffix in (".pt", ".safetensors"):
        from kerasish_lstm.commands._sources import open_file

        return open_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_keras(path)


def child(folder: Path) -> Measure:
    """This process, made ready: one thread, no core dump, an end to memory and to patience."""
    import torch

    import kerasish_lstm  # noqa: F401

    torch.set_num_threads(1)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.append(str(folder / OUTSIDE))
    # What an ordinary file and an ordinary error import lazily.
    ready = folder / "ready"
    ready.mkdir(exist_ok=True)
    config_is(sequential(lstm()))(ready / "m.keras")
    config_is(sequential(lstm(units=3)))(ready / "e.keras")
    legacy(ready / "m.h5", ONE, config=sequential(lstm()))
    torch.save({"weight_ih_l0": torch.zeros(4, 1)}, ready / "m.pt")
    for path in sorted(ready.iterdir()):
        with contextlib.suppress(KerasishError):
            load(path)
    gc.collect()
    gc.freeze()  # what is there now need not be looked at before each load
    return Measure(folder)


def limit_memory(more: int) -> None:
    """A bomb that goes off ends in a MemoryError."""
    most = _rss("VmSize") * 2**10 + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _load_all(folder: Path, names: list[str]) -> None:
    measure = child(folder)
    limit_memory(3 * 2**30)
    for name in names or TABLE:
        print(json.dumps({"start": name}), flush=True)
        faulthandler.dump_traceback_later(30, exit=True)
        print(json.dumps(measure.run(folder / name, load)), flush=True)
        faulthandler.cancel_dump_traceback_later()


def main(arguments: list[str]) -> None:
    if arguments[0] == "--load":
        _load_all(Path(arguments[1]).resolve(), arguments[2:])
    else:
        Path(arguments[0]).mkdir(parents=True, exist_ok=True)
        write(Path(arguments[0]).resolve())


if __name__ == "__main__":
    main(sys.argv[1:])
