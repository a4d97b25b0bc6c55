"""Has Keras of many versions write files, with what its layers gave, into parity_tests/fixtures/.

    python -m parity_tests.make_fixtures                    # every version
    python -m parity_tests.make_fixtures keras-3.8.0        # one; the others' files stay
    python -m parity_tests.make_fixtures --folder envs      # keep the environments

The Kerases are installed with pip into a temporary folder, each into a folder of its own that goes
first on PYTHONPATH. Keras 3 and tf_keras run on the TensorFlow, NumPy and h5py of the Python that
runs this (TensorFlow 2.21, as in constraints.txt): Keras from 3.0.5 on works with them. Older ones
need an older TensorFlow, in a virtual environment of its own, and an older Python, as ``python3.7``
on the PATH or in ~/.pyenv/versions: there is no TensorFlow 1 for Python 3.8 or later and no 2.4 for
3.9, and the Keras 2 wheels below 2.12 fail on Python 3.11 (``inspect.ArgSpec``,
``collections.Iterable``) and on TensorFlow 2.21. A version whose Python is missing is passed over,
and its files stay. Downloads: 350 MB for the old TensorFlows, 10 MB for all else.

What each version writes, VERSIONS says: in each version every format that it has; nearly every
model in Keras 3 and tf_keras, a choice in the older ones. More would pass 2.5 MB, HDF5 being what
it is. What a version cannot write at all:

- legacy .h5 in Keras 3.0 of models within models, Bidirectional and stacked cells: the names of
  the arrays collide, and h5py refuses;
- legacy .h5 of weights alone in Keras 3; sharded weights before 3.10; .keras and .weights.h5
  before 2.12; whole subclassed models;
- 16-bit layers before tf.keras 2.12; subclassed models before tf.keras; stacked cells before 2.1;
  return_state in Keras 1.

``fixtures/index.json`` has for each file its version, its format and its model, and for each model
every layer with an LSTM: its name, class, weights (sha256 of their float32 bytes in the order of
``get_weights``) and the keys in ``arrays.npz`` of its outputs, call by call. The inputs are
``fixture_models.uniform(seed, shape)``, with zeros where the mask is False. Keras 1's weights are
in Keras 2's layout; CuDNNLSTM's are those of the LSTM that Keras makes of them, and so are its
outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .make_goldens import npz

FOLDER = Path(__file__).resolve().parent / "fixtures"

BASES = {  # of the old ones: the Python, and what is installed there
    "3.7": (
        "tensorflow==1.13.1",
        "h5py==2.10.0",
        "numpy==1.16.6",
        "scipy==1.3.3",
        "protobuf==3.20.3",
        "pyyaml",
    ),
    "3.8": ("tensorflow-cpu==2.4.4",),
    "3.11": ("tensorflow-cpu==2.12.1",),
}


@dataclass(frozen=True)
class Version:
    """A Keras: what is installed over its base (None: the Python that runs this), and its plan."""

    requirements: tuple[str, ...]
    plan: dict[str, str]  # {model: formats, with commas}
    library: str = "keras"
    base: str | None = None


VERSIONS = {
    "keras-1.2.2": Version(
        ("keras==1.2.2",),
        {"sequential": "h5", "bidirectional": "h5 weights"},
        base="3.7",
    ),
    "keras-2.0.9": Version(
        ("keras==2.0.9",),
        {"sequential": "h5", "nested": "h5 weights"},
        base="3.7",
    ),
    "keras-2.2.4": Version(
        ("keras==2.2.4", "keras-applications", "keras-preprocessing"),
        {
            "sequential": "h5 weights",
            "nested": "h5",
            "bidirectional": "h5",
            "stacked": "h5 weights",
            "time_distributed": "h5",
            "stateful": "h5",
            "cudnn": "h5",
        },
        base="3.7",
    ),
    "keras-2.3.1": Version(
        ("keras==2.3.1", "keras-applications", "keras-preprocessing"),
        {
            "trained": "h5",
            "stacked": "h5",
            "encoder_decoder": "h5 weights",
        },
        base="3.7",
    ),
    "tf.keras-2.4.4": Version(
        (),
        {
            "nested": "h5",
            "bidirectional": "h5",
            "stacked": "h5",
            "time_distributed": "h5 weights",
            "frozen": "h5 weights",
        },
        library="tensorflow.keras",
        base="3.8",
    ),
    "tf.keras-2.12.1": Version(
        (),
        {
            "nested": "keras",
            "bidirectional": "keras",
            "stacked": "weights.h5",
            "frozen": "h5",
            "time_distributed": "h5 weights",
            "low_precision": "keras",
        },
        base="3.11",
    ),
    "tf_keras-2.21.0": Version(
        ("tf_keras==2.21.0",),
        {
            "sequential": "h5 weights",
            "bidirectional": "keras",
            "stacked": "keras",
            "time_distributed": "keras",
            "nested": "h5 weights",
            "many": "weights.h5",
            "frozen": "h5",
            "subclassed": "h5 weights",
            "encoder_decoder": "keras",
            "low_precision": "weights.h5",
            "stateful": "h5",
        },
        library="tf_keras",
    ),
    "keras-3.0.5": Version(
        ("keras==3.0.5", "dm-tree", "attrs"),
        {
            "trained": "keras",
            "bidirectional": "keras",
            "stacked": "keras",
            "time_distributed": "h5",
            "nested": "keras",
            "many": "h5",
            "frozen": "weights.h5",
            "subclassed": "weights.h5",
            "encoder_decoder": "h5",
            "low_precision": "keras",
            "stateful": "weights.h5",
        },
    ),
    "keras-3.3.3": Version(
        ("keras==3.3.3",),
        {
            "sequential": "weights.h5",
            "bidirectional": "weights.h5",
            "stacked": "h5",
            "time_distributed": "keras",
            "nested": "h5",
            "frozen": "h5",
            "subclassed": "weights.h5",
            "encoder_decoder": "keras",
            "low_precision": "h5",
            "stateful": "keras",
        },
    ),
    "keras-3.6.0": Version(
        ("keras==3.6.0",),
        {
            "sequential": "keras",
            "bidirectional": "weights.h5",
            "stacked": "weights.h5",
            "time_distributed": "h5",
            "nested": "weights.h5",
            "frozen": "h5",
            "subclassed": "weights.h5",
            "encoder_decoder": "h5",
            "low_precision": "weights.h5",
            "stateful": "h5",
        },
    ),
    "keras-3.8.0": Version(
        ("keras==3.8.0",),
        {
            "bidirectional": "keras",
            "stacked": "h5",
            "time_distributed": "h5",
            "stateful": "weights.h5",
            "nested": "keras",
            "encoder_decoder": "weights.h5",
            "low_precision": "keras",
        },
    ),
    "keras-3.10.0": Version(
        ("keras==3.10.0",),
        {
            "bidirectional": "h5",
            "stacked": "weights.json",
            "time_distributed": "h5",
            "nested": "h5",
            "frozen": "weights.h5",
            "subclassed": "weights.h5",
            "encoder_decoder": "keras",
            "low_precision": "h5",
            "stateful": "keras",
        },
    ),
    "keras-3.15.1": Version(
        ("keras==3.15.1",),
        {
            "trained": "h5",
            "bidirectional": "keras",
            "stacked": "keras",
            "time_distributed": "weights.json",
            "nested": "weights.json",
            "many": "weights.h5",
            "frozen": "h5",
            "subclassed": "weights.h5",
            "encoder_decoder": "weights.json",
            "low_precision": "weights.h5",
            "stateful": "h5",
        },
    ),
}


def find_python(version: str) -> str | None:
    """The path of a Python 3.x, or None."""
    if version == "{}.{}".format(*sys.version_info):
        return sys.executable
    for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), reverse=True):
        return str(path)
    return shutil.which(f"python{version}")


def install(label: str, folder: Path) -> tuple[str, Path] | None:
    """The Python that a version runs on and the folder of its packages; None without a Python."""
    version = VERSIONS[label]
    python = sys.executable
    if version.base is not None:
        found = find_python(version.base)
        if found is None:
            return None
        home = folder / f"python-{version.base}"
        python = str(home / "bin" / "python")
        if not home.exists():
            subprocess.run([found, "-m", "venv", str(home)], check=True)
            _pip(python, *BASES[version.base])
    packages = folder / label
    if version.requirements and not packages.exists():
        _pip(python, "--no-deps", "--target", str(packages), *version.requirements)
    return python, packages


def _pip(python: str, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-cache-dir", *arguments], check=True)


def write(label: str, python: str, packages: Path, folder: Path) -> dict[str, Any]:
    """Runs a version's plan into a folder; what answers.json says."""
    plan = {model: forms.split(",") for model, forms in VERSIONS[label].plan.items()}
    environment = dict(os.environ)
    environment |= {
        "PYTHONPATH": str(packages),
        "PYTHONNOUSERSITE": "1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    folder.mkdir()
    script = str(Path(__file__).with_name("fixture_models.py"))
    library = VERSIONS[label].library
    subprocess.run(
        [python, script, library, str(folder), json.dumps(plan)],
        check=True, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    found: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    return found


def merge(label: str, written: Path, found: dict[str, Any]) -> None:
    """Puts a version's files and answers in the place of those that fixtures/ has of it."""
    FOLDER.mkdir(exist_ok=True)
    index: dict[str, Any] = {"versions": {}, "files": [], "models": {}}
    arrays: dict[str, np.ndarray] = {}
    if (FOLDER / "index.json").exists():
        index = json.loads((FOLDER / "index.json").read_text())
        with np.load(FOLDER / "arrays.npz") as archive:
            arrays = {k: archive[k] for k in archive.files if not k.startswith(f"{label}/")}
    with np.load(written / "answers.npz") as archive:
        arrays |= {key: archive[key] for key in archive.files}
    versions = index["versions"] | {label: found["about"]}
    files = [f for f in index["files"] if f["version"] != label]
    for file in found["files"]:
        about = {name: found["about"][name] for name in ("keras", "backend")}
        model = {"model": f"{label}/{file['model']}"}
        files.append({"version": label} | about | file | model)
    models = {k: v for k, v in index["models"].items() if not k.startswith(f"{label}/")}
    models |= {f"{label}/{name}": layers for name, layers in found["models"].items()}
    order = list(VERSIONS)
    index = {
        "command": "python -m parity_tests.make_fixtures",
        "versions": {v: versions[v] for v in order if v in versions},
        "files": sorted(files, key=lambda f: (order.index(f["version"]), f["file"])),
        "models": dict(sorted(models.items(), key=lambda m: order.index(m[0].partition("/")[0]))),
    }
    shutil.rmtree(FOLDER / label, ignore_errors=True)
    shutil.copytree(written, FOLDER / label, ignore=shutil.ignore_patterns("answers.*"))
    (FOLDER / "arrays.npz").write_bytes(npz(arrays))
    (FOLDER / "index.json").write_text(_json(index))


def _json(index: dict[str, Any]) -> str:
    """A line for each version, file and model's layer."""
    dump = json.dumps

    def block(items: list[str], ends: str) -> str:
        return ends[0] + "\n  " + ",\n  ".join(items) + "\n " + ends[1]

    versions = [f"{dump(k)}: {dump(v)}" for k, v in index["versions"].items()]
    files = [dump(f) for f in index["files"]]
    models = [
        f"{dump(k)}: [\n   " + ",\n   ".join(map(dump, v)) + "]" for k, v in index["models"].items()
    ]
    parts = [
        f' "command": {dump(index["command"])}',
        f' "versions": {block(versions, "{}")}',
        f' "files": {block(files, "[]")}',
        f' "models": {block(models, "{}")}',
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("versions", nargs="*", metavar="version", help=f"of {', '.join(VERSIONS)}")
    parser.add_argument("--folder", type=Path, help="keep the environments here, and use them")
    arguments = parser.parse_args()
    unknown = set(arguments.versions) - set(VERSIONS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(VERSIONS)}")
    with tempfile.TemporaryDirectory() as temporary:
        home = (arguments.folder or Path(temporary, "environments")).resolve()
        home.mkdir(parents=True, exist_ok=True)
        for label in arguments.versions or VERSIONS:
            installed = install(label, home)
            if installed is None:
                print(f"{label}: passed over, there is no Python {VERSIONS[label].base} here")
                continue
            found = write(label, *installed, Path(temporary, label))
            merge(label, Path(temporary, label), found)
            print(f"{label}: {len(found['files'])} files", *found["about"]["failed"].items())
    size = sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file())
    print(f"{size} bytes in all")


if __name__ == "__main__":
    main()
