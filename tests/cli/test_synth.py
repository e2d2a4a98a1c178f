"""``llmmem synth``."""

import json
from pathlib import Path

import pytest

from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.sources.presets import PRESETS
from tests.cli.conftest import Llmmem


def test_a_preset_is_written_as_it_is_published(llmmem: Llmmem) -> None:
    done = llmmem("synth", "polyglot-ko-1.3b", "made")

    checkpoint = read_checkpoint(Path("made"))
    assert (done.code, done.err) == (0, "")
    assert "2.66 GB float16 in 3 safetensors files" in done.out
    assert (checkpoint.parameters, len(checkpoint.shards)) == (1_331_810_304, 3)


def test_options_are_those_of_a_source(llmmem: Llmmem) -> None:
    done = llmmem("synth", "tiny-llama", "made", "--dtype", "float32", "--shard", "500kB", "--format", "bin", "--fill",
                  "random", "--json")  # fmt: skip

    checkpoint = read_checkpoint(Path("made"))
    assert (checkpoint.dtype, checkpoint.format, len(checkpoint.shards)) == ("float32", "bin", 2)
    assert done.document["path"] == str(Path("made").resolve())
    assert done.document["weights_bytes"] == checkpoint.weights_bytes
    assert done.document["shards"] == 2
    assert done.document["disk_bytes"] >= checkpoint.weights_bytes


@pytest.mark.parametrize("source", ["mine", "mine/config.json", "synthetic:mine"])
def test_a_config_and_its_folder_are_sources(llmmem: Llmmem, source: str) -> None:
    Path("mine").mkdir()
    Path("mine/config.json").write_text(json.dumps(PRESETS["tiny-neox"].config), encoding="utf-8")

    assert llmmem("synth", source, "made").code == 0
    assert read_checkpoint(Path("made")).model_type == "gpt_neox"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nothing", "made"), "SOURCE nothing: there is no preset 'nothing' and no file "),
        (
            ("tiny-llama", "made", "--dtype", "half"),
            "SOURCE tiny-llama: dtype=half is not known: write one of float64, ",
        ),
        (("tiny-llama", "made", "--shard", "huge"), "SOURCE tiny-llama: 'huge' is not a memory size"),
        (("tiny-llama", "made", "--fill", "a&b"), "SOURCE tiny-llama: fill=a&b is not known"),
        (("tiny-llama", "."), "DIR .: it is there already: name a folder that is not, or remove it"),
    ],
)
def test_what_cannot_be_made_is_answered_in_one_line(
    llmmem: Llmmem, arguments: tuple[str, ...], complaint: str
) -> None:
    done = llmmem("synth", *arguments)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"llmmem: {complaint}")
    assert done.err.count("\n") == 1
    assert not Path("made").exists()


def test_a_folder_that_cannot_be_made_is_answered_in_one_line(llmmem: Llmmem) -> None:
    Path("file").touch()

    done = llmmem("synth", "tiny-llama", "file/made")

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"llmmem: DIR {Path('file/made')}: it cannot be made (")
