"""Arguments that do nothing are named, and do nothing in the version that is installed."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.ineffective_arguments import noop_arguments
from pytest_llmmem.models.sources.source import parse_source, resolve
from tests.conftest import needs

installed = needs("torch", "transformers", "accelerate")


def folder(base: Path, name: str = "tiny-llama?fill=random") -> Path:
    return resolve(parse_source(f"synthetic:{name}", base=base), cache=base / "synthetic")


def load(path: Path, **options: Any) -> Any:
    import transformers

    return transformers.LlamaForCausalLM.from_pretrained(path, **options)


def hints(
    options: dict[str, Any] | None = None, *, environ: dict[str, str] | None = None, since: str
) -> tuple[str, ...]:
    return noop_arguments(options or {}, environ or {}, transformers=since)


@pytest.mark.parametrize(
    ("argument", "last", "first"),
    [
        ("low_cpu_mem_usage", "4.50.3", "4.51.0"),
        ("_fast_init", "4.50.3", "4.51.0"),
        ("offload_state_dict", "4.56.2", "4.57.1"),
        ("from_tf", "4.57.6", "5.0.0"),
        ("from_flax", "4.57.6", "5.0.0"),
        ("safe_serialization", "4.57.6", "5.0.0rc1"),
    ],
)
def test_an_argument_is_named_from_the_version_on_that_ignores_it(argument: str, last: str, first: str) -> None:
    assert hints({argument: True}, since=last) == ()
    (hint,) = hints({argument: False}, since=first)
    assert hint.startswith(f"{argument} has no effect since transformers ")
    assert f"(installed: {first}): " in hint


def test_the_sentence_says_since_when_and_what_to_do() -> None:
    assert hints({"low_cpu_mem_usage": True}, since="5.23.0") == (
        "low_cpu_mem_usage has no effect since transformers 4.51 (installed: 5.23.0): leave it out",
    )


@pytest.mark.parametrize(
    ("variable", "effective", "without"),
    [
        ("HF_ENABLE_PARALLEL_LOADING", ("4.53.0", "4.57.6"), ("4.52.4", "5.0.0", "5.23.0")),
        ("HF_PARALLEL_LOADING_WORKERS", ("4.53.0", "4.57.6"), ("4.52.4", "5.0.0", "5.23.0")),
        ("HF_DEACTIVATE_ASYNC_LOAD", ("5.0.0", "5.23.0"), ("4.57.6",)),
    ],
)
def test_a_variable_is_named_before_and_after_the_versions_that_know_it(
    variable: str, effective: tuple[str, ...], without: tuple[str, ...]
) -> None:
    assert [hints(environ={variable: "1"}, since=each) for each in effective] == [()] * len(effective)
    for each in without:
        (hint,) = hints(environ={variable: "1"}, since=each)
        assert variable in hint
        assert each in hint


def test_what_is_not_given_is_not_named() -> None:
    assert hints({"low_cpu_mem_usage": None}, environ={"HF_ENABLE_PARALLEL_LOADING": ""}, since="5.23.0") == ()
    assert hints({"dtype": "auto", "use_safetensors": True}, environ={"HOME": "/root"}, since="5.23.0") == ()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_memory": {"cpu": "4GB"}}, ["max_memory"]),
        ({"max_memory": {"cpu": "4GB"}, "device_map": {"": "cpu"}}, ["max_memory"]),
        ({"max_memory": {"cpu": "4GB"}, "device_map": "cpu"}, ["max_memory"]),
        ({"max_memory": {"cpu": "4GB"}, "device_map": "auto"}, []),
        ({"offload_folder": "x"}, ["offload_folder"]),
        ({"offload_folder": "x", "device_map": {"": "disk"}}, []),
    ],
)
def test_what_only_a_plan_reads_is_named_without_one(options: dict[str, Any], named: list[str]) -> None:
    assert [hint.split()[0] for hint in hints(options, since="5.23.0")] == named


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'main' is no version of transformers"):
        hints(since="main")


@installed
@pytest.mark.parametrize("argument", ["low_cpu_mem_usage", "_fast_init", "offload_state_dict", "from_tf", "from_flax"])
def test_the_installed_transformers_ignores_what_is_named(tmp_path: Path, argument: str) -> None:
    if not hints({argument: True}, since=version("transformers")):
        pytest.skip("it has an effect in the installed version")
    path = folder(tmp_path)

    plain, given = load(path), load(path, **{argument: True})

    assert given.dtype == plain.dtype
    assert all(bool((a == b).all()) for a, b in zip(plain.parameters(), given.parameters(), strict=True))


@installed
def test_the_installed_transformers_writes_safetensors_whatever_it_is_told(tmp_path: Path) -> None:
    named = bool(hints({"safe_serialization": False}, since=version("transformers")))

    load(folder(tmp_path)).save_pretrained(tmp_path / "saved", safe_serialization=False)

    assert (read_checkpoint(tmp_path / "saved").format == "safetensors") is named


@installed
@pytest.mark.parametrize(
    "variable", ["HF_ENABLE_PARALLEL_LOADING", "HF_PARALLEL_LOADING_WORKERS", "HF_DEACTIVATE_ASYNC_LOAD"]
)
def test_the_installed_transformers_reads_no_variable_that_is_named(variable: str) -> None:
    import transformers

    sources = Path(transformers.__file__).parent.glob("*.py")
    is_read = any(variable in source.read_text(encoding="utf-8") for source in sources)

    assert is_read is not bool(hints(environ={variable: "1"}, since=version("transformers")))


@installed
@pytest.mark.parametrize("device_map", [None, {"": "cpu"}])
def test_the_installed_transformers_reads_no_max_memory_without_a_plan(tmp_path: Path, device_map: object) -> None:
    model = load(folder(tmp_path), max_memory={"cpu": 0}, device_map=device_map)

    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
