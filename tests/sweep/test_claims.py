"""What a cell claims of its node."""

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.sweep.claims import Claim, claim_of
from pytest_llmmem.sweep.sweep_file import read_sweep_file
from tests.sweep.jobs import MB

PEAKS = {"peak_bytes": 10 * MB, "peak_resident_bytes": 1000 * MB, "forward_resident_bytes": 500 * MB}


def claim(folder: Path, more: str = "", *, base: int = 300 * MB, document: object = None, **load: Any) -> Claim:
    (folder / "sweep.toml").write_text(f"models = ['synthetic:tiny-llama']\n{more}")
    known = {
        "weights_bytes": 400 * MB, "largest_shard_bytes": 100 * MB, "largest_layer_bytes": 10 * MB, "parameters": 2 * MB,
        "loads": [{"load": "default", **PEAKS, **load}],
    }  # fmt: skip
    look = {"stdout": json.dumps(known if document is None else document)}
    return claim_of("default", read_sweep_file(folder / "sweep.toml"), base_bytes=base, look=look)


def test_the_largest_predicted_peak_and_a_margin_is_claimed_beside_the_base(tmp_path: Path) -> None:
    assert claim(tmp_path) == Claim(memory_bytes=1600 * MB, growth_bytes=1300 * MB)


def test_a_budget_of_the_file_takes_the_place_of_the_prediction(tmp_path: Path) -> None:
    assert claim(tmp_path, "max_ram = '2 * weights + 50MB'") == Claim(memory_bytes=1150 * MB, growth_bytes=850 * MB)


def test_the_files_memory_is_claimed_as_it_is_and_its_tests_get_what_pytest_leaves(tmp_path: Path) -> None:
    assert claim(tmp_path, "memory = '1GB'") == Claim(memory_bytes=1000 * MB, growth_bytes=700 * MB)


def test_memory_that_pytest_alone_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="memory is 250 MB, and pytest alone takes 300 MB: raise it"):
        claim(tmp_path, "memory = '250MB'")


def test_a_load_that_cannot_be_predicted_is_assumed_to_need_three_times_its_weights(tmp_path: Path) -> None:
    found = claim(tmp_path, forward_resident_bytes=None)

    assert found.growth_bytes == 1.1 * 1200 * MB + 200 * MB
    assert found.note == "not predicted: 3 times its weights are assumed"


@pytest.mark.parametrize("document", [[], "", {"schema": 1}])
def test_a_model_whose_headers_cannot_be_read_is_run_all_the_same(tmp_path: Path, document: object) -> None:
    found = claim(tmp_path, document=document)

    assert found.growth_bytes == 200 * MB
    assert "its headers cannot be read" in found.note


def test_a_term_that_is_not_known_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"max_ram = '2 \* weights': 'weights' is not known here"):
        claim(tmp_path, "max_ram = '2 * weights'", document=[])
