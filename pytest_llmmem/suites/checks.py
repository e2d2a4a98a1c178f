"""Checks that need no test code: ``pytest --pyargs pytest_llmmem.checks --llm-model=SOURCE``, or ``llmmem check SOURCE``.

The part of a test's name after ``test_`` is the check's id: for ``-k``, for ``--llm-skip-check`` and for its page in
``docs/checks.md``, which says where each number comes from.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.core.sizes import format_beside, format_size
from pytest_llmmem.measuring.blocks import memory_budget
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.findings import findings
from pytest_llmmem.models.estimates.conversions import is_linear
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.plugin.collect.loads import Load, needs_config
from pytest_llmmem.plugin.state import settings_of

SLACK: Final = 200 * 10**6
"""Bytes that a load may take beside its weights, for imports and the allocator: ``docs/checks.md`` has what was measured."""
QUANTIZED: Final = 0.8
"""Share of the quantizable parameters that a load must quantize."""

pytestmark = pytest.mark.in_worker


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Raise an error if no model is given, instead of skipping every check."""
    if not settings_of(metafunc.config).model:
        msg = "the ready-made checks are of a model: pass --llm-model=SOURCE, or set llm_model in the ini file"
        raise pytest.Collector.CollectError(msg)


@pytest.fixture(autouse=True)
def skips_as_asked(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> None:
    """Skip the checks of ``--llm-skip-check``."""
    check = request.function.__name__.removeprefix("test_")
    if check in settings_of(pytestconfig).skip_check:
        pytest.skip(f"left out by --llm-skip-check={check}")


@pytest.fixture
def needs_steady_malloc(llm_load: Load, pytestconfig: pytest.Config) -> None:
    """Skip what would be chance: glibc keeps what quantizing frees, or gives it back, as it happens."""
    if is_quantized(llm_load) and settings_of(pytestconfig).malloc == "default":
        pytest.skip(f"what {llm_load.strategy!r} needs repeats only with --llm-malloc=steady")


def test_integrity(model_checkpoint: Checkpoint, pytestconfig: pytest.Config) -> None:
    """Index, shards and headers agree, and no file is shorter than its header says."""
    found = findings(model_checkpoint, needs_config=needs_config(pytestconfig))
    _report(finding for finding in found if finding.id != "duplicates")


def test_duplicates(model_checkpoint: Checkpoint) -> None:
    """Weights are there in one format only."""
    _report(finding for finding in findings(model_checkpoint) if finding.id == "duplicates")


@pytest.mark.usefixtures("needs_steady_malloc")
def test_load(loaded_model: LoadedModel) -> None:
    """The load needs what it keeps and one shard: no memory that the kernel cannot take back beyond that."""
    peak = peak_of(loaded_model).peak_bytes
    within("the load", peak, _promise(loaded_model), "the model, its largest shard and 200 MB", loaded_model)


@pytest.mark.usefixtures("needs_steady_malloc")
def test_resident(loaded_model: LoadedModel) -> None:
    """The same for all resident memory: shards that stay mapped to the end are in it."""
    peak = peak_of(loaded_model).peak_resident_bytes
    within(
        "the load was resident with",
        peak,
        _promise(loaded_model),
        "the model, its largest shard and 200 MB",
        loaded_model,
        advice=". Shards stay mapped until the load ends, as transformers 5 has it when it casts: load the checkpoint's own "
        "dtype, or leave the check 'resident' out",
    )


@pytest.mark.usefixtures("needs_steady_malloc")
def test_second_copy(loaded_model: LoadedModel) -> None:
    """At no time are two whole copies in memory."""
    limit = promised_bytes(loaded_model) * 3 // 2 + SLACK
    within("the load", peak_of(loaded_model).peak_bytes, limit, "one and a half models and 200 MB", loaded_model)


def test_forward(loaded_model: LoadedModel) -> None:
    """A first forward pass of eight tokens, or one picture, or a second of sound, takes one layer's worth beside the weights."""
    forward = forward_of(loaded_model)
    with memory_budget("2 * largest_layer + 200MB", name="forward"):
        forward()


def test_dtype(loaded_model: LoadedModel, llm_load: Load) -> None:
    """Weights have the dtype that was asked for, or else the checkpoint's."""
    needs_tensors(loaded_model)
    checkpoint = loaded_model.checkpoint
    wanted = llm_load.asked_dtype or loaded_model.promised_dtype
    found = str(loaded_model.dtype).removeprefix("torch.")
    if found != wanted:
        pytest.fail(
            f"the checkpoint is {checkpoint.dtype}, and {wanted} was to be loaded: the model is {found}, "
            f"{format_size(loaded_model.nbytes)} instead of {format_size(checkpoint.nbytes_in(str(wanted)))}: "
            f"pass dtype='{wanted}' to from_pretrained",
            pytrace=False,
        )


def test_meta(loaded_model: LoadedModel) -> None:
    """No weight was left without numbers."""
    left = loaded_model.nbytes_on("meta")
    if left:
        pytest.fail(
            f"{format_size(left)} of weights are on 'meta': they have no numbers, and the model fails where it uses them",
            pytrace=False,
        )


def test_quantization(loaded_model: LoadedModel, llm_load: Load) -> None:
    """A quantized load has quantized the parameters that its strategy supports."""
    if not is_quantized(llm_load):
        pytest.skip(f"{llm_load.strategy!r} quantizes nothing")
    share, possible = loaded_model.quantized_fraction, _linear_fraction(loaded_model.checkpoint)
    if share < QUANTIZED * possible:
        pytest.fail(
            f"{llm_load.strategy} quantized {share:.0%} of the parameters, {possible:.0%} are in linear layers and experts: "
            f"{loaded_model.bits_per_parameter:.1f} bits each, {format_size(loaded_model.nbytes)} in all: "
            "this version leaves those layers as they are (transformers 5 fuses a mixture's experts)",
            pytrace=False,
        )


def test_max_memory(loaded_model: LoadedModel) -> None:
    """Every device holds what it was allowed, and the processor no more than this machine or container has."""
    host = probes.host_memory()
    for device in set(loaded_model.device_map.values()) - {"disk", "meta"}:
        name = f"cuda:{device}" if isinstance(device, int) else str(device)
        held, cap = loaded_model.nbytes_on(name), loaded_model.max_memory.get(str(device))
        if cap is not None and held > cap:
            allowed, holds, _ = format_beside(cap, held)
            pytest.fail(f"{name} holds {holds}, its max_memory is {allowed}", pytrace=False)
        if name == "cpu" and held > host.total_bytes:
            there, planned, _ = format_beside(host.total_bytes, held)
            pytest.fail(
                f"the plan puts {planned} on the processor, and {host.limited_by} has {there}: "
                "accelerate plans with the host's memory and does not see a container's limit: pass max_memory",
                pytrace=False,
            )


def forward_of(loaded: LoadedModel) -> Callable[[], None]:
    """A small forward pass. Skips the test, with the reason, where what the model takes cannot be made."""
    from pytest_llmmem.models.loading.refused_inputs import refuses
    from pytest_llmmem.models.loading.sample_inputs import NoInputsError, sample_inputs

    try:
        inputs = sample_inputs(loaded.model)
    except NoInputsError as error:
        pytest.skip(str(error))

    def forward() -> None:
        import torch

        try:
            # FSDP keeps the buffers that it gathers layers into: made in inference mode, they serve no other mode
            with torch.no_grad():
                loaded.model(**inputs)
        except Exception as error:
            # every model of text takes tokens
            if inputs.keys() == {"input_ids"} or not refuses(loaded.model, inputs, error):
                raise
            name = type(loaded.model).__name__
            pytest.skip(f"inputs for {name} could not be built: it refuses {', '.join(inputs)}: {excerpt(error)}")

    return forward


def needs_tensors(loaded: LoadedModel) -> None:
    """Skip the test for a model whose weights are in an engine's own memory."""
    if loaded.dtype is None:
        pytest.skip(f"{type(loaded.model).__name__} has no tensors that torch could show")


def _linear_fraction(checkpoint: Checkpoint) -> float:
    """The share of quantizable parameters: linear layers, including those of experts, without the head."""
    linear = sum(tensor.elements for tensor in checkpoint.tensors if is_linear(tensor))
    return linear / max(1, checkpoint.parameters)


def _report(findings: Any) -> None:
    if texts := [finding.text for finding in findings]:
        pytest.fail("; ".join(texts), pytrace=False)


def peak_of(loaded: LoadedModel) -> Any:
    """Peak of the load. Skips the test where nothing is measured."""
    if loaded.peak is None:
        pytest.skip("nothing is measured with --llm-isolate=none")
    return loaded.peak


def _promise(loaded: LoadedModel) -> int:
    return promised_bytes(loaded) + loaded.checkpoint.largest_shard_bytes + SLACK


def promised_bytes(loaded: LoadedModel) -> int:
    """Bytes of the checkpoint's weights in the requested dtype, and of the buffers; else the bytes of the model."""
    promised = loaded.promised_nbytes
    return loaded.nbytes if promised is None else promised + loaded.buffer_nbytes


def within(what: str, used: int, limit: int, promise: str, loaded: LoadedModel, *, advice: str = "") -> None:
    """Fail the test when the load has used more than its limit."""
    if used > limit:
        peak = peak_of(loaded)
        allowed, needed, _ = format_beside(limit, used)
        pytest.fail(
            f"{what} {needed}, more than {promise} ({allowed}): the model takes "
            f"{format_size(loaded.nbytes)}, mapped files were {format_size(peak.peak_file_bytes)} at their peak{advice}",
            pytrace=False,
        )


def is_quantized(chosen: Load) -> bool:
    """Whether the load quantizes."""
    return chosen.bits is not None or "quantization_config" in chosen.options


def unreclaimable_bytes() -> int:
    """Current unreclaimable memory of this process."""
    import os
    from contextlib import closing

    with closing(probes.open_memory(os.getpid())) as memory:
        reading = memory.read()
    assert reading is not None, "a running process can read itself"
    return reading.unreclaimable_bytes
