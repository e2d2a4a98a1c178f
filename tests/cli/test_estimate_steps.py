"""``llmmem estimate --train`` and ``--generate``."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.conftest import Llmmem
from tests.conftest import needs

TINY = "synthetic:tiny-llama"

pytestmark = needs("torch", "transformers")


def test_a_training_step_is_predicted_phase_by_phase(llmmem: Llmmem) -> None:
    done = llmmem("estimate", TINY, "--train", "--batch", 2, "--seq", 64)

    assert (done.code, done.err) == (0, "")
    words = {line.split()[0] for line in done.out.splitlines() if line.strip()}
    assert {"forward", "backward", "optimizer", "peak", "weights"} <= words
    assert "batch_size 2, seq_len 64, optimizer adamw" in done.out


def test_json_has_every_step_and_the_largest_batch(llmmem: Llmmem) -> None:
    document = llmmem(
        "estimate", TINY, "--train", "--seq", 64, "--fits", "40MB", "--grid", "1,2x32,64", "--json"
    ).document

    assert {phase["phase"] for phase in document["memory"]["phases"]} == {"forward", "backward", "optimizer"}
    (fits,) = document["fits"]
    assert fits["batch_size"] > 8
    cells = {(cell["batch_size"], cell["seq_len"]): cell["peak_bytes"] for cell in document["grid"]}
    assert cells[1, 64] == document["peak_bytes"] <= cells[2, 64]


def test_the_largest_batch_fits_and_one_more_does_not(llmmem: Llmmem) -> None:
    (fits,) = llmmem("estimate", TINY, "--train", "--seq", 64, "--fits", "40MB", "--json").document["fits"]
    largest = fits["batch_size"]

    grid = llmmem("estimate", TINY, "--train", "--seq", 64, "--grid", f"{largest},{largest + 1}x64", "--json").document[
        "grid"
    ]

    assert grid[0]["peak_bytes"] <= 40_000_000 < grid[1]["peak_bytes"]


def test_a_length_beyond_the_positions_is_too_long_and_the_other_cells_are_there(llmmem: Llmmem) -> None:
    done = llmmem("estimate", TINY, "--train", "--seq", 64, "--grid", "1x64,512")

    assert done.code == 0
    assert "too long" in done.out


def test_a_second_time_the_prediction_is_not_made_anew(llmmem: Llmmem, tmp_path: Path) -> None:
    first = llmmem("estimate", TINY, "--generate", "--seq", 16, "--json").document
    (kept,) = (tmp_path / "cache" / "pytest-llmmem" / "predictions").glob("*.json")
    kept.write_text(
        json.dumps(json.loads(kept.read_text()) | {"fits": [{"limit_bytes": 1, "batch_size": 7, "seq_len": 64}]})
    )

    second = llmmem("estimate", TINY, "--generate", "--seq", 16, "--json").document

    assert (first["fits"], second["fits"][0]["batch_size"]) == ([], 7)


def test_no_prediction_is_kept_while_a_library_is_editable(
    llmmem: Llmmem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / f"transformers-{version('transformers')}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: transformers\nVersion: {version('transformers')}\n", encoding="utf-8")
    (metadata / "direct_url.json").write_text(
        '{"url": "file:///src", "dir_info": {"editable": true}}', encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert llmmem("estimate", TINY, "--generate", "--seq", 16, "--json").code == 0

    assert not (tmp_path / "cache" / "pytest-llmmem" / "predictions").exists()


def test_a_limit_below_the_weights_is_found(llmmem: Llmmem) -> None:
    done = llmmem("estimate", TINY, "--train", "--fits", "100kB")

    assert done.code == 1
    assert "found: --fits 100 kB: the weights alone take" in done.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--batch", 2), "--batch needs --train or --generate"),
        (("--train", "--generate"), "write one of them"),
        (("--generate", "--lora", 4), "--lora needs --train"),
        (("--train", "--batch", 0), "batch_size=0"),
        (("--train", "--optimizer", "lion"), "optimizer='lion' is not known"),
        (("--train", "--seq", 257), "the model has 256 positions"),
        (("--train", "--grid", "3"), "--grid 3: write batch sizes, an x, and lengths"),
        (("--train", "--fits", "8GBB"), "--fits: '8GBB'"),
        (("--train", "--load", "offload"), "--load offload: a step is predicted after one of"),
        (("--train", "--device", "tpu"), "--device tpu: a step is predicted by the rules of cpu or cuda"),
    ],
)
def test_what_cannot_be_is_one_sentence(llmmem: Llmmem, options: tuple[object, ...], told: str) -> None:
    done = llmmem("estimate", TINY, *options)

    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert done.err.count("\n") == 1


def test_a_config_that_no_transformers_knows_is_said(llmmem: Llmmem) -> None:
    Path("config.json").write_text('{"model_type": "nope", "hidden_size": 4}', encoding="utf-8")

    done = llmmem("estimate", ".", "--train")

    assert done.code == 2
    assert "builds no model from this config" in done.err
