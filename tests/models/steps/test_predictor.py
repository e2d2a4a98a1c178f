"""Predictions in a separate process."""

import os
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.predictor import predict_apart
from pytest_llmmem.models.steps.spec import PredictRequest, TrainSpec
from tests.conftest import needs

CRASHING = """
import ctypes, sys
if "pytest_llmmem.models.steps.program" in sys.orig_argv:
    ctypes.string_at(0)
"""


@needs("signals")
def test_a_process_that_dies_is_one_sentence_with_the_signal_and_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASHING, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(
        StepError, match=r"^the prediction failed \(SIGSEGV in sitecustomize\.py:4\): measure"
    ) as raised:
        predict_apart(PredictRequest(config={}, step=TrainSpec(), dtype="float32"))

    assert "\n" not in str(raised.value)
