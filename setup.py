"""Builds the native engine where a C++ compiler is, and installs without it elsewhere.

It is a library of plain C functions, loaded by ctypes: one build serves every Python and every
torch. ``KERASISH_LSTM_BUILD=0`` leaves it out; ``KERASISH_LSTM_BUILD=1`` makes a failure an error.
``CXX`` names the compiler, which must have GCC's vector types: g++ or clang++.
"""

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
        OSError: there is none.
    """
    given = shlex.split(os.environ.get("CXX", ""))
    if given:
        return given
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        raise OSError("neither g++ nor clang++ is on the path")
    return [found]


def build(library: Path, objects: Path, extra: list[str]) -> None:
    """Compile the engine.

    Raises:
        OSError, subprocess.CalledProcessError: no compiler, or it failed.
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
    processes = [subprocess.Popen(one) for one in running]
    for process, one in zip(processes, running, strict=True):
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, one)
    subprocess.run([*command, "-shared", *made, "-o", str(library)], check=True)


class BuildNative(build_ext):
    """Builds it as ``kerasish_lstm/native/engine.so``, for every set of instructions."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        wish = os.environ.get("KERASISH_LSTM_BUILD", "")
        library = Path(self.get_ext_fullpath(ext.name))
        library.unlink(missing_ok=True)  # an older one would be taken for this one
        if wish == "0":
            return
        try:
            build(library, Path(self.build_temp), [])
        except (OSError, subprocess.CalledProcessError) as error:
            if wish == "1":
                raise
            print(
                f"kerasish_lstm: the native engine was not built ({error}). The package works "
                "without it, slower on a CPU.",
                file=sys.stderr,
            )

    def copy_extensions_to_source(self) -> None:
        (SOURCES / "engine.so").unlink(missing_ok=True)
        if any(Path(path).exists() for path in self.get_outputs()):
            super().copy_extensions_to_source()


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
