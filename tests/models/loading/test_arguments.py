"""Arguments of ``from_pretrained`` that are misspelt."""

from pathlib import Path

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.loading.arguments import KNOWN, check_values, name_of_dtype, refused_argument
from pytest_llmmem.models.loading.pipelines import check_arguments
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
        check_values({"dtype": asked})

    assert said in str(refused.value)


@pytest.mark.parametrize("asked", ["float16", "torch.bfloat16", "auto", None, object()])
def test_other_dtypes_are_left_to_the_library(asked: object) -> None:
    check_values({"dtype": asked})
    check_values({"torch_dtype": asked})


def test_two_names_of_the_dtype_are_refused() -> None:
    with pytest.raises(ValueError, match="two names of one argument: leave torch_dtype out"):
        check_values({"dtype": "float16", "torch_dtype": "bfloat16"})


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        ("8GB", "max_memory='8GB' does not name devices: write one like {'cpu': '8GB', 0: '20GB'}"),
        ({"cpu": "lots"}, "max_memory['cpu']='lots' is not a memory size: write one like '8GB', or bytes"),
        ({0: None}, "max_memory[0]=None is not a memory size"),
    ],
)
def test_a_max_memory_that_is_none_is_one_sentence(caps: object, said: str) -> None:
    with pytest.raises(ValueError, match="max_memory") as refused:
        check_values({"max_memory": caps})

    assert said in str(refused.value)
    check_values({"max_memory": {"cpu": "10GiB", 0: 4_000_000_000}})


@pytest.mark.parametrize("device_map", [["cpu"], ("cuda:0", "cpu"), {"cpu"}, 0.5])
def test_a_device_map_that_maps_nothing_is_one_sentence(device_map: object) -> None:
    with pytest.raises(ValueError, match=r"maps no module to a device: write 'auto', a device like"):
        check_values({"device_map": device_map})


@pytest.mark.parametrize("device_map", [None, "auto", 0, {"": "cpu"}])
def test_other_device_maps_are_left_to_the_library(device_map: object) -> None:
    check_values({"device_map": device_map})


def test_the_name_of_a_dtype_is_known_where_there_is_one() -> None:
    asked = ("float16", "torch.bfloat16", "auto", None, {"text_config": "float16"})

    assert [name_of_dtype(each) for each in asked] == ["float16", "bfloat16", None, None, None]


@needs("torch", "transformers")
@pytest.mark.parametrize("strategy", ["default", "naive"])
@pytest.mark.parametrize(
    ("name", "said"),
    [("dtpye", "did you mean 'dtype'?"), ("device_mpa", "did you mean 'device_map'?"), ("xyz", "leave it out")],
)
def test_an_argument_that_the_library_does_not_take_is_one_sentence(
    tmp_path: Path, name: str, said: str, strategy: str
) -> None:
    with pytest.raises(CheckpointError, match=f"from_pretrained takes no argument '{name}': {said[:-1]}"):
        load(request(written(tmp_path, LLAMA), tmp_path, **{name: "float16"}), strategy)


def test_a_misspelt_argument_of_a_pipeline_is_refused_because_diffusers_would_ignore_it() -> None:
    class Pipeline:
        def __init__(self, unet: object, scheduler: object) -> None: ...

    check_arguments(Pipeline, ["torch_dtype", "variant", "unet", "of_a_later_version"])
    with pytest.raises(
        CheckpointError, match=r"Pipeline\.from_pretrained takes no argument 'varaint': did you mean 'variant'"
    ):
        check_arguments(Pipeline, ["varaint"])
    with pytest.raises(CheckpointError, match="did you mean 'scheduler'"):
        check_arguments(Pipeline, ["schedular"])


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
