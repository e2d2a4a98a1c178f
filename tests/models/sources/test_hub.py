"""Models of the Hub, without the Hub: which files are wanted, and what is said when it cannot be reached."""

from pathlib import Path

import pytest

from pytest_llmmem.core.errors import SourceError
from pytest_llmmem.models.sources.hub import files_to_fetch
from pytest_llmmem.models.sources.source import parse_source, resolve

BESIDES = ("config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "modeling_own.py")
SAFETENSORS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")
BIN = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json")
NEVER = (
    "README.md",
    "consolidated.safetensors",
    "original/params.json",
    "onnx/model.onnx",
    "training_args.bin",
    "flax_model.msgpack",
)


def test_safetensors_are_fetched_and_nothing_of_the_other_format() -> None:
    assert set(files_to_fetch((*NEVER, *BIN, *BESIDES, *SAFETENSORS))) == {*SAFETENSORS, *BESIDES}


def test_bin_files_are_fetched_where_there_is_nothing_else() -> None:
    assert set(files_to_fetch((*NEVER, *BIN, *BESIDES))) == {*BIN, *BESIDES}


def test_a_repository_without_weights_gives_nothing() -> None:
    assert files_to_fetch((*NEVER, *BESIDES)) == ()


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_model_that_is_nowhere_to_be_had_is_refused_with_what_to_do(tmp_path: Path, hub_cache: Path) -> None:
    source = parse_source("org/name@v1", base=tmp_path)

    with pytest.raises(
        SourceError, match=r"^--llm-model=org/name@v1: .*offline mode is enabled.* HF_HOME .*synthetic:"
    ) as error:
        resolve(source, cache=tmp_path / "cache")

    assert len(str(error.value).splitlines()) == 1
    assert not hub_cache.exists()


def test_a_model_that_was_fetched_beforehand_needs_no_network(tmp_path: Path, hub_cache: Path) -> None:
    snapshot = hub_cache / "models--org--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = hub_cache / "models--org--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)

    assert resolve(parse_source("org/name", base=tmp_path), cache=tmp_path / "cache") == snapshot
