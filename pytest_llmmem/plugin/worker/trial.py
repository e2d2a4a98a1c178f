"""One strategy of ``first_load_that_fits``, tried in a worker of its own."""

import contextlib
import io
from typing import Any

import pytest

from pytest_llmmem.plugin.collect.loads import Load, strategy_of
from pytest_llmmem.plugin.state import MODELS
from pytest_llmmem.plugin.worker.load import load, scratch_folder
from pytest_llmmem.plugin.worker.messages import Loaded, Raised, Unusable
from pytest_llmmem.workers.child import ParentConnection
from pytest_llmmem.workers.messages import Opening


def try_load(item: pytest.Item, chosen: Load, connection: ParentConnection) -> None:
    """Load in the worker, make the weights resident, and report the result."""
    from pytest_llmmem.plugin.collect.models import source_of

    config = item.config
    models, source = config.stash[MODELS], source_of(item)
    assert source is not None, "only a test with a model tries loads"
    connection.switch(opens=(Opening("test"), Opening("load")))
    # no test runs, and so nothing is captured: progress bars would land in the middle of pytest's line
    output = contextlib.ExitStack()
    if config.getoption("capture") != "no":
        output.enter_context(contextlib.redirect_stdout(io.StringIO()))
        output.enter_context(contextlib.redirect_stderr(io.StringIO()))
    try:
        checkpoint = models.checkpoint(source)
        if reason := strategy_of(config, chosen).unavailable(checkpoint):
            connection.send(Unusable(reason))
            return
        with scratch_folder(config) as folder:
            loaded = load(config, checkpoint, chosen, lambda: contextlib.nullcontext(_Unmeasured()), folder)
            connection.switch(closes=1, opens=(Opening("touch"),))
            loaded.touch()
            connection.send(loaded_message(loaded))
    except Exception as error:  # noqa: BLE001 -- whatever a load raises is this trial's result
        connection.send(Raised.of(error))
    finally:
        output.close()
        connection.switch(closes=2)


def loaded_message(loaded: Any, hints: tuple[str, ...] = ()) -> Loaded:
    """Describe a model for the parent."""
    return Loaded(
        load=loaded.load,
        dtype=str(loaded.dtype).removeprefix("torch."),
        nbytes=loaded.nbytes,
        mapped_bytes=loaded.mapped_after_load_bytes,
        kept_bytes=loaded.kept_bytes,
        bits_per_parameter=loaded.bits_per_parameter,
        quantized_fraction=loaded.quantized_fraction,
        disk_bytes=loaded.disk_bytes,
        on_disk_bytes=loaded.nbytes_on("disk"),
        call=loaded.call,
        hints=hints,
    )


class _Unmeasured:
    """A load that the parent measures as a whole."""

    peak = None
