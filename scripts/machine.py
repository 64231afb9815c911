"""What numbers were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "gymnasium", "stable-baselines3")


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Processor and its vector instructions, cores, threads in use, operating system, and the GPU where networks are on one."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # AVX2, say: what a processor's name may leave open
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        **({} if device == "cpu" else {"accelerator": torch.cuda.get_device_name(device)}),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
