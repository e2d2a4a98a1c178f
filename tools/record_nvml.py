"""Record the answers of NVIDIA's driver on this machine, to compare the tests' replacement of NVML with them.

    python tools/record_nvml.py answers.json

Needs an NVIDIA GPU, nvidia-ml-py, and torch for it. Every function that the sampler calls is asked before, while and after a
process of ours holds 1 GB of the first card.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HOLDER = """
import torch

held = torch.empty(1_000_000_000, dtype=torch.uint8, device="cuda:0")
print(torch.cuda.get_device_properties(0).uuid, flush=True)
input()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 -- no module, no library, no driver: all are said alike
        print(f"NVML cannot be asked: {error}: nothing was recorded")
        return
    recorded = {"pid_namespace": os.readlink("/proc/self/ns/pid"), "before": ask(pynvml)}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    recorded |= {"torch_uuid": holder.stdout.readline().strip(), "holder_pid": holder.pid, "while": ask(pynvml)}
    recorded["holder_files"] = sorted({os.readlink(file) for file in Path(f"/proc/{holder.pid}/fd").iterdir()})
    holder.communicate("\n")
    recorded["after"] = ask(pynvml)
    options.file.write_text(json.dumps(recorded, indent=1))
    print(f"wrote {options.file}")


def ask(nvml: Any) -> dict[str, Any]:
    """Every answer by the name of its function, one per GPU."""
    count = nvml.nvmlDeviceGetCount()
    return {"nvmlDeviceGetCount": count, "cards": [dict(_of_card(nvml, index)) for index in range(count)]}


def _of_card(nvml: Any, index: int) -> Iterator[tuple[str, Any]]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    for name in (
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount",
        "nvmlDeviceGetComputeRunningProcesses",
    ):
        yield name, _answer(nvml, getattr(nvml, name), handle)


def _answer(nvml: Any, function: Callable[[Any], Any], handle: Any) -> Any:
    try:
        return _plain(function(handle))
    except nvml.NVMLError as error:
        return {"raised": type(error).__name__, "text": str(error)}


def _plain(answer: Any) -> Any:
    """Structures of C, and objects made of them, as objects of JSON."""
    if isinstance(answer, list | tuple):
        return [_plain(each) for each in answer]
    names = [name for name, *_ in getattr(answer, "_fields_", ())] or list(getattr(answer, "__dict__", ()))
    if names:
        return {name: _plain(getattr(answer, name)) for name in names}
    return answer.decode() if isinstance(answer, bytes) else answer


if __name__ == "__main__":
    main()
