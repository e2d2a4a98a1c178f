"""Load a model and run it: ``python -m pytest_llmmem.fit.program FOLDER LOAD FORWARDS OFFLOAD``.

It stops after its imports, after the load and at its end, says so on what was its standard output, and goes on when a line
comes on its standard input: so whoever started it can measure it from outside, and move it into a control group.
"""

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pytest_llmmem import probes
from pytest_llmmem.models.checkpoints.checkpoint import read_checkpoint
from pytest_llmmem.models.loading.load_model import load_model
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.strategies import STRATEGIES


class _Unmeasured:
    """A load that is measured from outside."""

    peak = None


def main(folder: str, load: str, forwards: str, offload: str) -> None:
    """Load, and run so often. ``offload`` is an empty folder, which the caller removes: this process may be killed."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no message

    def stop(at: str, **told: Any) -> None:
        messages.write(json.dumps({"at": at, **told}) + "\n")
        messages.flush()
        sys.stdin.readline()

    import torch

    request = LoadRequest(
        checkpoint=read_checkpoint(Path(folder)),
        offload_folder=Path(offload),
        host_available_bytes=probes.host_memory().available_bytes,
    )

    def begins() -> Any:
        # every import of the load has been done
        probes.reset_mark()
        stop("ready")
        return nullcontext(_Unmeasured())

    loaded = load_model(request, STRATEGIES[load], begins)
    stop("loaded", seconds=loaded.seconds)
    probes.reset_mark()
    stop("running")
    took = []
    with torch.inference_mode():
        for _ in range(int(forwards)):
            began = time.perf_counter()
            loaded.model(**_inputs(loaded.model))
            took.append(time.perf_counter() - began)
    stop("done", forwards=took)


def _inputs(model: Any) -> dict[str, Any]:
    """Eight tokens, or what the model calls its dummy inputs."""
    import torch

    if model.main_input_name != "input_ids":
        return {name: tensor.to(model.device) for name, tensor in model.dummy_inputs.items()}
    return {"input_ids": torch.ones(1, 8, dtype=torch.long, device=model.device)}


if __name__ == "__main__":
    main(*sys.argv[1:])
