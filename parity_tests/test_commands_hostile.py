"""Hostile torch and safetensors files: the commands refuse each, fast, and with little memory.

    python -m parity_tests.test_commands_hostile DIR NAMES    load them; a line of JSON for each

As in :mod:`parity_tests.test_hostile`, each file is loaded in a process of its own.
"""

from __future__ import annotations

import base64
import faulthandler
import json
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, save_safetensors

from .hostile import LOADS, child, limit_memory, write_outside
from .test_hostile import MAX_CPU, MAX_MIB, linux, outcomes

pytest.importorskip("typer")
safe_open = pytest.importorskip("safetensors").safe_open
save_file = pytest.importorskip("safetensors.torch").save_file

F, U = 2, 3
Maker = Callable[[Path], Any]


def plain(**more: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    return dict(torch.nn.LSTM(F, U, **more).state_dict())


def state(**more: Any) -> Maker:
    """An nn.LSTM's state dict, with other entries too."""
    return lambda path: torch.save(plain() | more, path)


def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Maker:
    return lambda path: torch.save({k: change(t) for k, t in plain().items()}, path)


def entries(**more: Any) -> Maker:
    return lambda path: torch.save(more, path)


def claimed(units: int) -> dict[str, torch.Tensor]:
    """One number, said to be all weights of that many units."""
    one = torch.zeros(1)
    shapes = {"weight_ih": (4 * units, units), "weight_hh": (4 * units, units)}
    shapes |= {"bias_ih": (4 * units,), "bias_hh": (4 * units,)}
    return {f"{k}_l0": one.expand(*shape) for k, shape in shapes.items()}


def shared(path: Path) -> None:
    """Real weights, and 2000 LSTMs that are all of them."""
    weights = dict(torch.nn.LSTM(64, 64).state_dict())
    torch.save({f"a{n}.{k}": t for n in range(2000) for k, t in weights.items()}, path)


def deflated(path: Path) -> None:
    real = path.with_suffix(".real")
    torch.save(dict(torch.nn.LSTM(1500, 1500).state_dict().items()) | {"z": torch.zeros(1)}, real)
    with zipfile.ZipFile(real) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            data = source.read(name)
            out.writestr(name, data if len(data) < 10**6 else bytes(len(data)))
    real.unlink()


def overlapping(path: Path) -> None:
    """A directory of many members that are one and the same 1 MiB."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", b"\x80\x02}.")
        out.writestr("archive/data/0", bytes(2**20))
        for number in range(1, 100):
            again = zipfile.ZipInfo(f"archive/data/{number}")
            first = out.getinfo("archive/data/0")
            again.file_size = again.compress_size = first.file_size
            again.header_offset, again.CRC = first.header_offset, first.CRC
            out.filelist.append(again)


def pickled(data: bytes) -> Maker:
    """A zip as torch writes it, around a pickle."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as out:
            out.writestr("archive/data.pkl", b"\x80\x02" + data + b".")
            out.writestr("archive/version", b"3\n")

    return make


def doubled(times: int) -> bytes:
    """{((..., ...), (..., ...)): 1}: a key of 2**times parts, whose hash goes through all."""
    pairs = b"".join(b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(times))
    return b"})q\x00" + pairs + b"K\x01s"


LONG_LIST = b"]q\x00(" + b"K\x01" * 100_000 + b"e"
MANY_SIZES = b"](" + LONG_LIST + b"ctorch\nSize\nh\x00\x85R" * 10_000 + b"e"
BYTEARRAY = b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"


def of_old_torch(path: Path) -> None:
    torch.save(claimed(4000), path, _use_new_zipfile_serialization=False)


def old_key(path: Path) -> None:
    path.write_bytes(b"\x80\x02" + doubled(60) + b".")


def safetensors(
    change: Callable[[dict[str, Any]], Any] | None = None,
    golden: str | None = None,
    text: str | None = None,
) -> Maker:
    """A file of one layer, its head changed."""

    def make(path: Path) -> None:
        save_safetensors({"x": LSTM(F, U)}, path)
        with safe_open(path, "pt") as file:
            head = json.loads(file.metadata()["kerasish_lstm"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        if change is not None:
            change(head)
        metadata = {"kerasish_lstm": json.dumps(head) if text is None else text}
        save_file(tensors, path, metadata | ({"kerasish_lstm_golden": golden} if golden else {}))

    return make


def array(*shape: int, dtype: str = "float32", **other: Any) -> dict[str, Any]:
    data = base64.b64encode(np.zeros(shape, dtype).tobytes()).decode()
    return {"shape": list(shape), "dtype": dtype, "data": data} | other


def golden(x: Any = None, mask: Any = None, results: Any = None, records: int = 1) -> Maker:
    one = {"x": x or array(1, 2, F), "mask": mask, "results": [array(1, U)]}
    one |= {} if results is None else {"results": results}
    return safetensors(golden=json.dumps({"keras": "3", "layers": {"x": [one] * records}}))


TABLE: dict[str, tuple[Maker, str]] = {
    # Keys
    "a layer of another number.pt": (
        state(weight_ih_l90000000=torch.zeros(1)), "weight_ih_l90000000: .*no such entry"
    ),
    "a number of 5000 digits.pt": (
        state(**{f"weight_ih_l{'9' * 5000}": torch.zeros(1)}), "no such entry"
    ),
    "no layer 1.pt": (
        lambda path: torch.save(
            {k: t for k, t in plain(num_layers=3).items() if "_l1" not in k}, path
        ),
        "weight_hh_l2: .*no such entry",
    ),
    "no layer 0.pt": (
        lambda path: torch.save(
            {k: t for k, t in plain(num_layers=2).items() if "_l0" not in k}, path
        ),
        "no weight_ih_l0",
    ),
    "two of one name.pt": (
        lambda path: torch.save(plain() | {f".{k}": t for k, t in plain().items()}, path),
        "two LSTMs would be called 'lstm'",
    ),
    # Sizes
    "expanded.pt": (entries(**claimed(4000)), "claims the shape .* stores 4. Refused"),
    "expanded a little.pt": (entries(**claimed(20)), "claims the shape .* stores 4. Refused"),
    "expanded, of torch 1.5.pt": (of_old_torch, "claims the shape .* stores 4. Refused"),
    "many of one storage.pt": (shared, "claim more than 33554432 bytes"),
    "deflated.pt": (deflated, "is compressed"),
    "over each other.pt": (overlapping, "its members claim .* bytes on disk"),
    "no units.pt": (
        entries(weight_ih_l0=torch.zeros(0, 5), weight_hh_l0=torch.zeros(0, 0)), r"\(0, 5\)"
    ),
    "no features.pt": (
        entries(weight_ih_l0=torch.zeros(4, 0), weight_hh_l0=torch.zeros(4, 1)), r"\(4, 0\)"
    ),
    "one axis.pt": (
        entries(weight_ih_l0=torch.zeros(4), weight_hh_l0=torch.zeros(4, 1)), "holds no LSTM"
    ),
    # Kinds of tensors
    "float8.pt": (each(lambda t: t.to(torch.float8_e5m2)), "holds float8_e5m2; weights are of"),
    "complex.pt": (each(lambda t: t.to(torch.complex64)), "holds complex64; weights are of"),
    "integers.pt": (each(lambda t: t.to(torch.int32)), "holds int32; weights are of float16"),
    "several dtypes.pt": (state(bias_hh_l0=torch.zeros(4 * U).half()), "of several dtypes"),
    "meta.pt": (each(lambda t: t.to("meta")), "on the meta device"),
    "sparse.pt": (each(lambda t: t.to_sparse()), "sparse"),
    "quantized.pt": (each(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)), "quantiz"),
    # Pickles
    "tuples of tuples.pt": (pickled(doubled(60)), "asks for too much"),
    "tuples of tuples, of torch 1.5.pt": (old_key, "asks for too much"),
    "many sizes.pt": (pickled(MANY_SIZES), "asks for too much"),
    "a bytearray.pt": (pickled(BYTEARRAY), "calls bytearray"),
    "many opcodes.pt": (pickled(b"](" + b"N" * 3_000_000 + b"e"), "asks for too much"),
    "a long pickle.pt": (pickled(b"X" + (5 * 2**20).to_bytes(4, "little") + b"x" * 5 * 2**20), (
        "its pickle has 5242888 bytes"
    )),
    "whole.pt": (state(), LOADS),
    "whole, of torch 1.5.pt": (
        lambda path: torch.save(plain(), path, _use_new_zipfile_serialization=False), LOADS
    ),
    # The metadata of safetensors
    "whole.safetensors": (golden(), LOADS),
    "provenance is a list.safetensors": (
        safetensors(lambda head: head.update(provenance=[1])), "its provenance is a list"
    ),
    "provenance is a text.safetensors": (
        safetensors(lambda head: head.update(provenance="x")), "its provenance is a str"
    ),
    "a version that is none.safetensors": (
        safetensors(lambda head: head.update(provenance={"keras_version": {"a": 1}})),
        "keras_version=",
    ),
    "a size that is a flag.safetensors": (
        safetensors(lambda head: head["layers"]["x"].update(input_size=True)), "in another type"
    ),
    "a format that is a flag.safetensors": (
        safetensors(lambda head: head.update(format=True)), "lacks one of format"
    ),
    "many lists.safetensors": (
        safetensors(text='{"a":[' + ",".join(["[]"] * 10_000_000) + "]}"), "at most 16777216"
    ),
    "fewer lists.safetensors": (
        safetensors(text='{"a":[' + ",".join(["[]"] * 5_000_000) + "]}"), "too many parts"
    ),
    "golden is a list.safetensors": (safetensors(golden="[1]"), "its golden is a list"),
    "golden is a text.safetensors": (safetensors(golden='"x"'), "its golden is a str"),
    "golden is a number.safetensors": (safetensors(golden="5"), "its golden is a int"),
    "golden is null.safetensors": (safetensors(golden="null"), "its golden is a NoneType"),
    "golden of a number.safetensors": (safetensors(golden='{"layers": 5}'), "layers are a int"),
    "golden of a list.safetensors": (
        safetensors(golden='{"layers": [1, "a"]}'), "layers are a list"
    ),
    "golden of no Keras.safetensors": (
        safetensors(golden='{"keras": {"a": 1}, "layers": {"x": []}}'), "no version"
    ),
    "an input of no rows.safetensors": (
        golden(array(0, 2, F, shape=[0, 10**9, F])), "a list of sizes of 1 or more"
    ),
    "an input of no data.safetensors": (
        golden(array(1, 2, F, shape=[10**30])), "with 4 numbers"
    ),
    "an input of other features.safetensors": (golden(array(1, 2, F + 1)), "the last of 2"),
    "an input of other axes.safetensors": (golden(array(1, F)), "takes 3 axes"),
    "an input of many steps.safetensors": (golden(array(1, 50_000, F)), "at most 4096 steps"),
    "an input of flags.safetensors": (golden(array(1, 2, F, dtype="bool")), "dtype 'bool'"),
    "a mask of another size.safetensors": (
        golden(mask=array(7, dtype="bool")), r"a mask of shape \(7,\)"
    ),
    "results that are none.safetensors": (golden(results=5), "record 0 is none"),
    "large results.safetensors": (golden(results=[array(300_000)]), "1048576 are read"),
    "many records.safetensors": (golden(records=100), "it has 100 records"),
}  # fmt: skip


def load(path: Path) -> Any:
    """What inspect and verify do with a file."""
    from kerasish_lstm.commands._inspect import inspected
    from kerasish_lstm.commands._sources import open_file
    from kerasish_lstm.commands._verify import compared

    source = open_file(path)
    inspected(source)
    cpu = torch.device("cpu")
    compared(source, None, device=cpu, batch=1, steps=1, seed=0, keras=False)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each file; one that ended the process is named in its own test."""
    folder = tmp_path_factory.mktemp("hostile")
    write_outside(folder)
    for name, (make, _) in TABLE.items():
        make(folder / name)
    return outcomes(list(TABLE), "parity_tests.test_commands_hostile", str(folder))


@linux
@pytest.mark.filterwarnings("ignore")  # of torch, that quantized and sparse tensors will change
@pytest.mark.parametrize("name", TABLE)
def test_a_hostile_file(name: str, loaded: dict[str, dict[str, Any]]) -> None:
    """FileFormatError, or a load, in 2 s and 300 MiB; nothing run or opened elsewhere."""
    found, said = loaded[name], TABLE[name][1]
    assert "died" not in found, found["died"]
    what = f"{found['outcome']}: {found['message']}"
    if said == LOADS:
        assert found["outcome"] == LOADS, what
    else:
        assert "FileFormatError" in found["outcome"].split(","), what
        assert re.search(said, found["message"]), what
        assert len(found["message"]) < 1000, what
    assert found["cpu"] < MAX_CPU, found
    assert found["mib"] < MAX_MIB, found
    assert (found["events"], found["outside"]) == ([], [])


def main(folder: Path, names: list[str]) -> None:
    measure = child(folder)
    for ready in ("whole.pt", "whole.safetensors"):
        load(folder / ready)
    limit_memory(3 * 2**30)
    for name in names:
        print(json.dumps({"start": name}), flush=True)
        faulthandler.dump_traceback_later(30, exit=True)
        print(json.dumps(measure.run(folder / name, load)), flush=True)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
