"""What a run ran on: the commit, the machine, versions, devices and torch's switches."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "kerasish_lstm", "torch", "numpy", "h5py", "keras", "tensorflow", "tf_keras", "jax",
    "hypothesis", "pytest",
)  # fmt: skip


def described() -> dict[str, Any]:
    """Everything; None stands for what is not there."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": _git(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"name": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {name: _version(name) for name in PACKAGES},
        "cuda": _cuda(),
        "switches": {
            "torch.backends.cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
            "torch.backends.cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "torch.are_deterministic_algorithms_enabled()": (
                torch.are_deterministic_algorithms_enabled()
            ),
            "torch.backends.cudnn.deterministic": torch.backends.cudnn.deterministic,
            "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        },
        "tf32": "pinned off by the suite in every test on CUDA",
    }


def _output(*command: str) -> str | None:
    """What a program prints, or None where there is no such program or it fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _git() -> dict[str, Any]:
    commit = _output("git", "rev-parse", "HEAD")
    changed = _output("git", "status", "--porcelain")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    if package == "kerasish_lstm":  # in a bare checkout it is not installed
        import kerasish_lstm

        return kerasish_lstm.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cuda() -> dict[str, Any]:
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    devices = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "name": device.name,
                "capability": f"{device.major}.{device.minor}",
                "memory_gib": round(device.total_memory / 2**30, 1),
            }
        )
    return {
        "devices": devices,
        "driver": driver.splitlines()[0] if driver else None,
        "version": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
    }
