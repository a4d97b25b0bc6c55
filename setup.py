"""Builds the native engine where a C++ compiler is, and installs without it elsewhere.

It is a library of plain C functions, loaded by ctypes: one build serves every Python and every
torch. ``KERASISH_LSTM_BUILD=0`` leaves it out; ``KERASISH_LSTM_BUILD=1`` makes a failure an error.
``CXX`` names the compiler, which must have GCC's vector types: g++ or clang++.

It is put into this folder too, whatever is installed: python started here imports the package of
this folder. Where it is not built, a file in its place says why.
"""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("kerasish_lstm/native")
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wno-psabi"]
X86 = platform.machine().lower() in ("x86_64", "amd64")
# name: bytes of a vector, rows of a block, flags
SETS = {"base": (16, 3 if X86 else 6, [])}
if X86:
    SETS["avx2"] = (32, 3, ["-mavx2", "-mfma"])
    wide = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw"]
    SETS["avx512"] = (64, 6, [*wide, "-mavx2", "-mfma", "-mprefer-vector-width=512"])


def compiler() -> list[str]:
    """The command of the C++ compiler.

    Raises:
        FileNotFoundError: there is none.
    """
    given = shlex.split(os.environ.get("CXX", ""))
    if given:
        return given
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        raise FileNotFoundError("neither g++ nor clang++ is on the path")
    return [found]


def build(library: Path, objects: Path, extra: list[str]) -> None:
    """Compile the engine.

    Raises:
        FileNotFoundError: there is no compiler.
        OSError, subprocess.CalledProcessError: it failed.
    """
    command = [*compiler(), *FLAGS, *(["-DKL_X86"] if X86 else []), *extra]
    objects.mkdir(parents=True, exist_ok=True)
    library.parent.mkdir(parents=True, exist_ok=True)
    running = []
    made = [str(objects / "dispatch.o")]
    running.append([*command, "-c", str(SOURCES / "dispatch.cpp"), "-o", made[0]])
    for name, (width, rows, flags) in SETS.items():
        made.append(str(objects / f"engine_{name}.o"))
        own = [f"-DKL_SET=kl_{name}", f"-DKL_BYTES={width}", f"-DKL_ROWS={rows}", *flags]
        running.append([*command, *own, "-c", str(SOURCES / "engine.cpp"), "-o", made[-1]])
    processes = [subprocess.Popen(one, stderr=subprocess.PIPE, text=True) for one in running]
    said = [process.communicate()[1] for process in processes]
    for process, one, errors in zip(processes, running, said, strict=True):
        sys.stderr.write(errors)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, one, stderr=errors)
    subprocess.run([*command, "-shared", *made, "-o", str(library)], check=True)


def first_error(error: Exception) -> str:
    """That compiling failed, and the compiler's first error."""
    lines = str(getattr(error, "stderr", None) or "").splitlines()
    return f"compiling it failed: {next((x for x in lines if 'error' in x), error)}"


class BuildNative(build_ext):
    """Builds it as ``kerasish_lstm/native/engine.so``, for every set of instructions."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        library = Path(self.get_ext_fullpath(ext.name))
        library.unlink(missing_ok=True)  # an older one would be taken for this one
        wish = os.environ.get("KERASISH_LSTM_BUILD", "")
        why = "KERASISH_LSTM_BUILD=0 left it out"
        if wish != "0":
            why = self.attempt(library, must=wish == "1")
        note = library.with_name("not_built.json")
        note.unlink(missing_ok=True)
        if why:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({"why": why, "on_purpose": wish == "0"}))
        for made in (library, note):
            here = SOURCES / made.name
            if made.resolve() != here.resolve():
                replace(here, made)

    def attempt(self, library: Path, must: bool) -> str:
        """Build it; says why it could not be built, or nothing."""
        try:
            build(library, Path(self.build_temp), [])
        except (OSError, subprocess.CalledProcessError) as error:
            if must:
                raise
            why = first_error(error)
            if isinstance(error, FileNotFoundError):
                said = f"{error.filename} is not there" if error.filename else error
                why = f"no C++ compiler was found: {said}"
            print(
                f"kerasish_lstm: the native engine was not built: {why}. The package works "
                "without it, slower on a CPU.",
                file=sys.stderr,
            )
            return why
        return ""

    def copy_extensions_to_source(self) -> None:
        """Nothing is left to do: build_extension has put it there."""


def replace(there: Path, made: Path) -> None:
    """Put a copy of a file at a path in one step, or remove what is there if there is no file.

    A process that has the older engine loaded keeps it.
    """
    if not made.exists():
        there.unlink(missing_ok=True)
        return
    new = there.with_name(f".{there.name}.{os.getpid()}")
    shutil.copy(made, new)
    new.replace(there)


class AnyPython(bdist_wheel):
    """The library needs no Python of its own: one wheel a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "kerasish_lstm.native.engine",
            sources=["kerasish_lstm/native/dispatch.cpp", "kerasish_lstm/native/engine.cpp"],
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
        )
    ],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": AnyPython},
)
