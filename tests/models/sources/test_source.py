"""What ``--llm-model`` accepts, and what it becomes on disk."""

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import SourceError
from pytest_llmmem.models.sources.hub import HubModel
from pytest_llmmem.models.sources.presets import PRESETS
from pytest_llmmem.models.sources.source import parse_source, resolve
from pytest_llmmem.models.sources.synthetic import SyntheticSpec
from tests.conftest import needs


def spec_of(text: str, base: Path = Path()) -> SyntheticSpec:
    target = parse_source(text, base=base).target
    assert isinstance(target, SyntheticSpec)
    return target


@pytest.mark.parametrize("name", ["my-model", "./my-model", "org/my-model", "모델", "with space", "a.b-1.3b"])
def test_a_folder_that_is_there_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)

    source = parse_source(name, base=tmp_path)

    assert (source.kind, source.text, source.label) == ("folder", name, Path(name).name)
    assert resolve(source, cache=tmp_path / "unused") == (tmp_path / name).resolve()


def test_absolute_folders_and_the_home_folder_do_not_start_at_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "mine").mkdir()

    found = {
        resolve(parse_source(text, base=Path("elsewhere")), cache=tmp_path)
        for text in ("~/mine", str(tmp_path / "mine"))
    }

    assert found == {(tmp_path / "mine").resolve()}


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("org/name", "org/name", None),
        ("EleutherAI/polyglot-ko-1.3b@main", "EleutherAI/polyglot-ko-1.3b", "main"),
        ("org/name@refs/pr/1", "org/name", "refs/pr/1"),
    ],
)
def test_an_owner_and_a_name_are_a_hub_id(tmp_path: Path, text: str, repo: str, revision: str | None) -> None:
    source = parse_source(text, base=tmp_path)

    assert (source.kind, source.label) == ("hub", text)
    assert source.target == HubModel(repo=repo, revision=revision)


@pytest.mark.parametrize(
    "text",
    ["./x", "../x", "/x/y", "~/not-there", "~no-such-user/x", "x", "a/b/c", "org/name@", "x\\y", "C:\\models\\x"],
)
def test_what_is_neither_is_refused_with_what_is_accepted(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        SourceError,
        match=r"^--llm-model=.*: there is no folder .* no Hub id: write a folder, a file of tensors, a Hub id like",
    ):
        parse_source(text, base=tmp_path / "base")


def test_nothing_is_not_the_folder_that_one_is_in(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"^--llm-model= is empty, as from a variable that is not set: write a folder"
    ):
        parse_source("", base=tmp_path)


def test_the_name_of_a_preset_alone_is_answered_with_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="write 'synthetic:tiny-llama'"):
        parse_source("tiny-llama", base=tmp_path)


def test_a_file_of_tensors_is_a_source_and_a_config_is_answered_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").touch()
    (tmp_path / "config.json").touch()

    source = parse_source("weights.pt", base=tmp_path)

    assert (source.label, source.target) == ("weights.pt", tmp_path / "weights.pt")
    with pytest.raises(SourceError, match="this is no file of tensors: name the folder of the checkpoint"):
        parse_source("config.json", base=tmp_path)


def test_a_preset_has_the_dtype_and_shards_of_its_model_unless_told_otherwise() -> None:
    plain = spec_of("synthetic:llama-3.1-8b")
    told = spec_of("synthetic:llama-3.1-8b?dtype=float16&shard=2GB&format=bin&fill=random")

    assert (plain.dtype, plain.shard_bytes, plain.format, plain.fill) == ("bfloat16", 5 * 10**9, "safetensors", "holes")
    assert (told.dtype, told.shard_bytes, told.format, told.fill) == ("float16", 2 * 10**9, "bin", "random")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_label_of_a_preset_is_its_name_and_what_was_told(preset: str) -> None:
    assert parse_source(f"synthetic:{preset}", base=Path()).label == preset
    assert (
        parse_source(f"synthetic:{preset}?dtype=float32&format=bin", base=Path()).label
        == f"{preset}?dtype=float32&format=bin"
    )


@pytest.mark.parametrize("name", ["mine", "mine/config.json", "./mine", "mine.json"])
def test_a_config_is_found_by_its_own_name_or_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    for path in (tmp_path / "mine" / "config.json", tmp_path / "mine.json"):
        path.write_text(json.dumps(PRESETS["tiny-neox"].config | {"dtype": "float32"}))

    source = parse_source(f"synthetic:{name}", base=tmp_path)

    assert source.label == "mine"
    assert spec_of(f"synthetic:{name}", base=tmp_path).dtype == "float32"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nothing", "there is no preset 'nothing' and no file"),
        ("", "there is no preset ''"),
        ("tiny-llama?dtype=fp16", "dtype=fp16 is not known: write one of float64, float32"),
        ("tiny-llama?dtype=int8", "dtype=int8 is not known"),
        ("tiny-llama?format=gguf", "format=gguf is not known: write one of safetensors, bin"),
        ("tiny-llama?fill=ones", "fill=ones is not known: write one of holes, random"),
        ("tiny-llama?shard=big", "'big' is not a memory size"),
        ("tiny-llama?shard=0", "shard=0 holds nothing"),
        ("tiny-llama?colour=red", "'colour' is no option of a synthetic checkpoint"),
        ("tiny-llama?format=bin&dtype=float8_e5m2", "a .bin file of float8_e5m2 cannot be made"),
        ("broken.json", "is not JSON"),
        ("list.json", "holds a JSON list instead of an object"),
        ("quantised.json", "was quantized by 'gptq'"),
    ],
)
def test_a_synthetic_source_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "quantised.json").write_text('{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}')

    with pytest.raises(SourceError) as error:
        parse_source(f"synthetic:{text}", base=tmp_path)

    assert str(error.value).startswith(f"--llm-model=synthetic:{text}: ")
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ('{"model_type": 7}', "'model_type' is 7, and not a name"),
        ('{"model_type": "llama", "architectures": 7}', "'architectures' is 7, and not a list of names of classes"),
        ('{"model_type": "llama", "torch_dtype": "%s"}' % ("x" * 10**6), "is not known: write one of"),
        ("[" * 100_000, "more than 64 objects and arrays in each other"),
        ("\x1b[2J", "is not JSON"),
    ],
    ids=["type", "architectures", "dtype", "nested", "escape"],
)
def test_a_config_that_means_harm_is_refused_in_a_sentence(tmp_path: Path, config: str, why: str) -> None:
    (tmp_path / "config.json").write_text(config)

    with pytest.raises(SourceError, match=why) as error:
        parse_source("synthetic:config.json", base=tmp_path)

    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


@needs("named pipes")
@pytest.mark.parametrize("text", ["synthetic:config.json", "synthetic:."])
def test_a_pipe_is_not_read_for_a_config(tmp_path: Path, text: str) -> None:
    os.mkfifo(tmp_path / "config.json")

    with pytest.raises(SourceError, match="there is no preset"):
        parse_source(text, base=tmp_path)


def test_a_synthetic_checkpoint_is_made_once_even_when_several_ask(tmp_path: Path) -> None:
    source = parse_source("synthetic:tiny-llama", base=tmp_path)

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: resolve(source, cache=tmp_path / "cache"), range(8)))

    (folder,) = folders
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {folder.name, f"{folder.name}.lock"}


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(SourceError, match=r"^--llm-model=synthetic:tiny-llama: it cannot be made in .*cache"):
        resolve(parse_source("synthetic:tiny-llama", base=tmp_path), cache=tmp_path / "cache")


def test_a_source_survives_the_way_to_a_worker() -> None:
    source = parse_source("synthetic:tiny-llama?shard=100kB", base=Path())

    assert pickle.loads(pickle.dumps(source)) == source


def test_making_and_reading_a_checkpoint_imports_no_model_library(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from pytest_llmmem.models.checkpoints import reader\n"
        "from pytest_llmmem.models.sources import source as sources\n"
        f"source = sources.parse_source('synthetic:tiny-neox?format=bin', base=Path()); cache = Path({str(tmp_path)!r})\n"
        "reader.read_checkpoint(sources.resolve(source, cache=cache))\n"
        "print({'torch', 'transformers', 'numpy', 'safetensors', 'huggingface_hub', 'pytest'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
