"""A sample of transformers' types, as ``tools/zoo.py`` examines all of them: synthesized, compared, loaded and run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs

pytestmark = needs("torch", "transformers", "accelerate", "fork")

PROJECT = Path(__file__).parents[1]
SAMPLE = (
    *("llama", "gpt2", "gpt_neox", "bloom", "opt", "mixtral", "deepseek_v3", "jamba", "mamba", "gpt_oss"),
    *("bert", "albert", "electra", "xlnet", "t5", "bart", "pegasus", "whisper", "speech_to_text", "wav2vec2"),
    *("hubert", "audio-spectrogram-transformer", "encodec", "clap", "vit", "swin", "convnext", "dinov2", "sam", "clip"),
    *(
        "siglip",
        "blip",
        "llava",
        "qwen2_vl",
        "vilt",
        "layoutlm",
        "lxmert",
        "decision_transformer",
        "autoformer",
        "rwkv",
    ),
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("zoo")
    known = (argument for model_type in SAMPLE for argument in ("--type", model_type))
    command = [sys.executable, "tools/zoo.py", "--out", str(folder), *known]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=600)
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.parametrize("model_type", SAMPLE)
def test_a_type_is_synthesized_as_it_is_saved_and_runs(outcomes: dict[str, dict[str, Any]], model_type: str) -> None:
    outcome = outcomes[model_type]

    assert outcome["differences"] == {"float32": None, "bfloat16": None}
    assert outcome["forward"] == "passed"
    assert all(abs(difference) < 30 * 10**6 for difference in outcome["beyond"].values())
