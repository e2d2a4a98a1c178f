"""``llmmem estimate``."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.record_parts import ModelRecord, Phase
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.models.checkpoints.safetensors_file import write_holes
from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.estimates.loader_versions import LOADS
from pytest_llmmem.models.sources.presets import PRESETS
from tests.cli.conftest import Llmmem
from tests.conftest import needs

MODEL = "synthetic:polyglot-ko-1.3b"
WEIGHTS_BYTES = 2_663_620_608


def report(
    load: str = "float16",
    *,
    peak_bytes: int,
    peak_resident_bytes: int | None = None,
    weights_bytes: int = WEIGHTS_BYTES,
    malloc: str = "steady",
) -> Path:
    """A session of one test that loaded the model."""
    test = TestRecord(
        nodeid="test_a.py::test_load",
        outcome="passed",
        duration_s=1.0,
        ending=Ending(kind="completed"),
        ram=None,
        phases=(Phase(name="load", peak_bytes=peak_bytes, seconds=1.0, peak_resident_bytes=peak_resident_bytes),),
        model=ModelRecord(source="./mine", load=load, weights_bytes=weights_bytes, largest_shard_bytes=0, parameters=0),
    )
    other = replace(test, nodeid="test_a.py::test_nothing", model=None, phases=())
    session = SessionRecord(environment={"transformers": "5.23.0", "malloc": malloc}, tests=(test, other))
    path = Path("report.json")
    path.write_text(json.dumps(session.to_json()), encoding="utf-8")
    return path


@needs("loads that map their shards")
def test_each_way_to_load_has_a_row(llmmem: Llmmem) -> None:
    done = llmmem("estimate", MODEL, "--transformers", "5.23.0")

    assert (done.code, done.err) == (0, "")
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in done.out.splitlines() if line.strip()}
    assert set(LOADS) <= set(rows)
    assert rows["mixed"] == "7.99 GB 2.66 GB 10.7 GB 21.3 GB"
    assert rows["sharded"] == "float16 2.66 GB 2.68 GB 3.68 GB 2.69 GB"


def test_json_says_the_same_in_bytes(llmmem: Llmmem) -> None:
    document = llmmem("estimate", MODEL, "--json", "--transformers", "5.23.0").document

    assert document["bytes_in"]["float32"] == 2 * document["bytes_in"]["float16"] == 4 * document["parameters"]
    assert document["bytes_in"]["nf4"] < document["bytes_in"]["int8"] < document["bytes_in"]["float16"]
    assert [load["load"] for load in document["loads"]] == list(LOADS)
    assert {load["transformers"] for load in document["loads"]} == {"5.23.0"}
    assert document["training"][0]["total_bytes"] == 16 * document["parameters"]


def test_loads_and_dtype_can_be_chosen(llmmem: Llmmem) -> None:
    arguments = ("--load", "default", "--load", "sharded", "--dtype", "float32")

    loads = llmmem("estimate", MODEL, *arguments, "--json", "--transformers", "5.23.0").document["loads"]

    assert [(load["load"], load["dtype"], load["weights_bytes"]) for load in loads] == [
        ("default", "float32", 2 * WEIGHTS_BYTES),
        ("sharded", "float32", 2 * WEIGHTS_BYTES),
    ]


def test_what_is_not_predicted_is_said(llmmem: Llmmem) -> None:
    done = llmmem("estimate", MODEL, "--load", "default", "--transformers", "4.40.1")

    assert done.code == 0
    assert "not predicted" in done.out


def test_a_405b_checkpoint_is_estimated_from_its_191_headers(llmmem: Llmmem) -> None:
    config = PRESETS["llama-3.1-70b"].config | {
        "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126, "num_attention_heads": 128
    }  # fmt: skip
    Path("405b").mkdir()
    Path("405b/config.json").write_text(json.dumps(config), encoding="utf-8")
    assert llmmem("synth", "405b", "made").code == 0

    document = llmmem("estimate", "made", "--json").document

    assert document["parameters"] == 405_853_388_800
    assert len(llmmem("inspect", "made", "--json").document["shards"]) == 191


def test_a_shard_that_is_not_there_is_said_to_be_left_out(llmmem: Llmmem) -> None:
    assert llmmem("synth", "tiny-llama", "made", "--shard", "300kB").code == 0
    Path("made/model-00002-of-00002.safetensors").unlink()

    done = llmmem("estimate", "made")

    assert done.code == 1
    assert "found: not counted: model-00002-of-00002.safetensors is not there" in done.out


def test_a_measured_load_that_needed_as_much_as_predicted_holds(llmmem: Llmmem) -> None:
    done = llmmem("estimate", MODEL, "--against", report("bfloat16", peak_bytes=2_690_000_000))

    assert done.code == 0
    assert "2.68 GB    2.69 GB    1.00" in done.out


@needs("loads that map their shards")
def test_resident_peaks_are_compared_where_they_were_measured(llmmem: Llmmem) -> None:
    measured = report("bfloat16", peak_bytes=2_690_000_000, peak_resident_bytes=8_000_000_000)

    done = llmmem("estimate", MODEL, "--against", measured, "--json")

    assert done.code == 1
    assert [(row["count"], row["held"]) for row in done.document["measured"]] == [
        ("unreclaimable", True),
        ("resident", False),
    ]
    assert "bfloat16 needed 2.65 GB resident more than predicted" in done.document["findings"][0]["text"]


@needs("loads that map their shards")
def test_a_load_that_needed_as_much_as_another_dtype_is_asked_about_its_dtype(llmmem: Llmmem) -> None:
    done = llmmem("estimate", MODEL, "--against", report("float16", peak_bytes=5_340_000_000), "--json")

    (finding,) = done.document["findings"]
    assert done.code == 1
    assert finding["text"] == (
        "test_a.py::test_load: float16 needed 5.33 GB unreclaimable more than predicted, as much as a load into float32: "
        "is the dtype really float16?"
    )
    assert [(row["count"], row["held"]) for row in done.document["measured"]] == [("unreclaimable", False)]


@needs("loads that map their shards")
@pytest.mark.parametrize(("malloc", "advice"), [("default", "--llm-malloc=steady"), ("steady", "look for a copy")])
def test_a_load_that_needed_more_is_told_where_to_look(llmmem: Llmmem, malloc: str, advice: str) -> None:
    done = llmmem("estimate", MODEL, "--against", report("nf4", peak_bytes=2_000_000_000, malloc=malloc))

    assert done.code == 1
    assert "nf4 needed 1.08 GB unreclaimable more than predicted" in done.out
    assert advice in done.out


def test_a_report_of_another_model_is_wrong_usage(llmmem: Llmmem) -> None:
    done = llmmem("estimate", MODEL, "--against", report(peak_bytes=1, weights_bytes=1))

    assert (done.code, done.out) == (2, "")
    assert (
        "--against report.json: it has no load of synthetic:polyglot-ko-1.3b that can be predicted, but ./mine: "
        in done.err
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("polyglot",), "MODEL polyglot: there is no folder "),
        ((MODEL, "--dtype", "int8"), "'int8' is not a dtype to load in: write one of float64, float32, "),
        ((MODEL, "--load", "magic"), "'magic' is not a load that can be estimated: write one of default, "),
        ((MODEL, "--against", "nowhere.json"), "nowhere.json: it cannot be read "),
    ],
)
def test_wrong_usage_is_answered_in_one_line(llmmem: Llmmem, arguments: tuple[str, ...], complaint: str) -> None:
    done = llmmem("estimate", *arguments)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"llmmem: {complaint}")
    assert done.err.count("\n") == 1


def test_a_quantized_checkpoint_has_one_sentence_in_place_of_peaks(llmmem: Llmmem, tmp_path: Path) -> None:
    config = {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    packed = [tensor("l.qweight", "int32", (32, 128)), tensor("l.scales", "float16", (2, 128))]
    write_holes(tmp_path / "model.safetensors", packed)

    shown = llmmem("estimate", str(tmp_path)).out
    document = llmmem("estimate", str(tmp_path), "--json").document

    assert "no peak is predicted: the library that reads gptq decides what becomes of the weights" in shown
    assert "not predicted" not in shown
    assert (document["quantization"], document["parameters"]) == ("gptq", 256 * 128)
    assert document["bytes_in"]["int8"] is None
    assert document["bytes_in"]["float16"] == 2 * 256 * 128
