"""Ties, as the class says them, against the parameters of the real class before and after it ties them."""

from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.models.checkpoints import safetensors_file
from pytest_llmmem.models.checkpoints.model_config import ModelConfig
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.estimates.ties import class_ties, tied_elements
from tests.conftest import needs

VOCAB, HIDDEN = 100, 8


def tied(folder: Path, names: list[str], **config: Any) -> int:
    """Matrices of the embedding's size that are allocated beyond those of a checkpoint with these names."""
    safetensors_file.write_holes(
        folder / "model.safetensors", [tensor(name, "float32", (VOCAB, HIDDEN)) for name in names]
    )
    elements = tied_elements(read_checkpoint(folder), ModelConfig.of(config | {"vocab_size": VOCAB}))
    return elements // (VOCAB * HIDDEN)


@needs("transformers")
@pytest.mark.parametrize(
    ("architecture", "model_type", "names", "matrices"),
    [
        ("Qwen2ForCausalLM", "qwen2", ["model.embed_tokens.weight"], 1),
        ("Qwen2ForCausalLM", "qwen2", ["model.embed_tokens.weight", "lm_head.weight"], 0),
        ("Qwen2ForSequenceClassification", "qwen2", ["model.embed_tokens.weight"], 0),
        ("BertForMaskedLM", "bert", ["bert.embeddings.word_embeddings.weight"], 1),
        ("T5ForConditionalGeneration", "t5", ["shared.weight"], 3),
        ("BartForConditionalGeneration", "bart", ["model.shared.weight"], 2),
        ("BartModel", "bart", ["shared.weight"], 2),
        ("GPTNeoXForCausalLM", "gpt_neox", ["gpt_neox.embed_in.weight", "embed_out.weight"], 0),
        ("LlavaForConditionalGeneration", "llava", ["model.language_model.embed_tokens.weight"], 1),
    ],
)
def test_the_class_says_what_it_allocates_and_then_ties(
    tmp_path: Path, architecture: str, model_type: str, names: list[str], matrices: int
) -> None:
    assert tied(tmp_path, names, architectures=[architecture], model_type=model_type) == matrices


def test_a_config_that_ties_nothing_is_believed(tmp_path: Path) -> None:
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": False}

    assert tied(tmp_path, ["model.embed_tokens.weight"], **config) == 0


def test_of_a_class_that_is_not_installed_the_config_says_it(tmp_path: Path) -> None:
    config = {"architectures": ["OwnForCausalLM"], "model_type": "own/../../type", "tie_word_embeddings": True}

    assert tied(tmp_path, ["model.embed_tokens.weight"], **config) == 1


@needs("transformers")
def test_the_class_itself_has_the_same_ties() -> None:
    from transformers import BertForMaskedLM, T5ForConditionalGeneration

    for known in (BertForMaskedLM, T5ForConditionalGeneration):
        config = ModelConfig.of({"architectures": [known.__name__], "model_type": known.config_class.model_type})
        said = known._tied_weights_keys
        assert dict.fromkeys(class_ties(config)[0]) == dict.fromkeys(said)
