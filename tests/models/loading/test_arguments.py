"""Arguments of ``from_pretrained`` that are misspelt."""

from pathlib import Path

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.loading.arguments import KNOWN, check_dtype, refused_argument
from tests.conftest import needs
from tests.models.loading.sample_loads import LLAMA, load, request, written


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("fp16", "dtype='fp16' is not a dtype: did you mean 'float16'?"),
        ("BF16", "did you mean 'bfloat16'?"),
        ("flaot32", "did you mean 'float32'?"),
        ("gguf", "write one like 'float16', or 'auto'"),
    ],
)
def test_a_dtype_that_is_none_is_said_with_the_one_that_was_meant(asked: str, said: str) -> None:
    with pytest.raises(ValueError, match="is not a dtype") as refused:
        check_dtype({"dtype": asked})

    assert said in str(refused.value)


@pytest.mark.parametrize("asked", ["float16", "torch.bfloat16", "auto", None, object()])
def test_other_dtypes_are_left_to_the_library(asked: object) -> None:
    check_dtype({"dtype": asked, "torch_dtype": asked})


@needs("torch", "transformers")
@pytest.mark.parametrize(
    ("name", "said"),
    [("dtpye", "did you mean 'dtype'?"), ("device_mpa", "did you mean 'device_map'?"), ("xyz", "leave it out")],
)
def test_an_argument_that_the_library_does_not_take_is_one_sentence(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=f"from_pretrained takes no argument '{name}': {said[:-1]}"):
        load(request(written(tmp_path, LLAMA), tmp_path, **{name: "float16"}))


def test_an_argument_of_another_call_or_of_another_version_is_the_library_s_own_error() -> None:
    error = TypeError("f() got an unexpected keyword argument 'load_in_8bit'")

    assert refused_argument(error, {"load_in_8bit": True}) is None
    assert refused_argument(TypeError("f() got an unexpected keyword argument 'x'"), {"y": 1}) is None
    assert refused_argument(TypeError("something else"), {"x": 1}) is None


@needs("transformers")
def test_every_argument_that_the_installed_version_names_is_known() -> None:
    import inspect

    from transformers import PreTrainedModel

    takes = inspect.signature(PreTrainedModel.from_pretrained).parameters
    assert takes.keys() - {"cls", "pretrained_model_name_or_path", "model_args", "kwargs"} <= KNOWN
