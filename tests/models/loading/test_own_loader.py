"""A function of the user's own as a loader: which are accepted, how they are called, and what is said of the others."""

from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.loading.own_loader import check_options, checked_loader, import_loader, name_of
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.strategy import loader_strategy
from tests.conftest import needs
from tests.models.loading.sample_loads import LLAMA, load, request, written


def by_path(path, *, scale=1):
    return {"weight": path}


@pytest.fixture
def asked(tmp_path: Path) -> LoadRequest:
    return request(written(tmp_path, LLAMA), tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("serving", "'serving' does not name a function: write 'package.module:function'"),
        (":load", "does not name a function"),
        ("no_such_package.serving:load", r"no_such_package.serving cannot be imported .*pythonpath"),
        ("pathlib:Pth", "pathlib has no 'Pth': did you mean 'Path'\\?"),
        ("pathlib:Path.hme", "Path has no 'hme': did you mean 'home'\\?"),
        ("sys:path", "is not a function"),
    ],
)
def test_what_names_no_function_is_said(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        import_loader(text)


def test_a_module_that_raises_is_not_called_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_written.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ValueError, match=r"ModuleNotFoundError: No module named 'no_such_library'.*: mend it"):
        import_loader("half_written:load")


def test_a_function_a_class_and_a_method_are_loaders() -> None:
    assert import_loader("tests.models.loading.test_own_loader:by_path").__name__ == "by_path"
    assert import_loader("pathlib:Path") is Path
    assert import_loader("pathlib:Path.home")() == Path.home()


def test_what_gives_a_coroutine_or_a_generator_is_refused() -> None:
    async def later(path: Path) -> None: ...

    def parts(path: Path) -> Any:
        yield path

    with pytest.raises(ValueError, match="gives a coroutine"):
        checked_loader(later)
    with pytest.raises(ValueError, match="gives a generator"):
        checked_loader(parts)


def test_arguments_that_the_function_does_not_take_are_said_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"by_path takes no argument 'scael': did you mean 'scale'\?"):
        check_options(by_path, {"scael": 2})
    with pytest.raises(ValueError, match="cannot be called with a path: missing a required argument: 'other'"):
        check_options(lambda path, other: None, {})
    check_options(by_path, {"scale": 2})
    check_options(lambda path, **anything: None, {"scael": 2})
    check_options(dict, {})


def test_what_it_is_given_is_told_from_its_first_parameter(asked: LoadRequest) -> None:
    def as_text(path: str) -> Any:
        return [path]

    def as_request(request) -> Any:
        return [request]

    def as_annotated(what: LoadRequest) -> Any:
        return [what]

    def as_path(where, *, deep=False) -> Any:
        return [where, deep]

    def given(function: Any, **options: Any) -> Any:
        return loader_strategy(function, options).load(asked)

    assert given(as_text) == [str(asked.checkpoint.path)]
    assert given(as_request) == given(as_annotated) == [asked]
    assert given(as_path, deep=True) == [asked.checkpoint.path, True]


def test_a_loader_that_returns_nothing_or_something_to_be_awaited_is_said(asked: LoadRequest) -> None:
    async def model() -> None: ...

    for nothing in (None, "a model", 7, Path(), dict, {}):
        with pytest.raises(
            CheckpointError, match=r"which has no tensors: return the model, or whatever holds them"
        ) as raised:
            loader_strategy(lambda path, nothing=nothing: nothing).load(asked)
        assert f"returned {nothing!r}, " in str(raised.value)
    with pytest.raises(CheckpointError, match="returned a coroutine: run it inside the loader"):
        loader_strategy(lambda path: model()).load(asked)


@needs("torch", "safetensors")
def test_a_dict_of_tensors_is_a_loaded_model(asked: LoadRequest) -> None:
    def state(path: Path) -> Any:
        from safetensors.torch import load_file

        return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}

    strategy = loader_strategy(state)
    loaded = load(asked, strategy.name, own=(strategy,))

    assert loaded.nbytes == loaded.checkpoint.weights_bytes
    assert str(loaded.dtype) == "torch.float32"
    assert loaded.device_map == {"": "cpu"}
    assert loaded.bits_per_parameter == 32
    assert loaded.quantized_fraction == 0
    assert loaded.call == f"{name_of(state).replace(':', '.')}({str(asked.checkpoint.path)!r})"
    loaded.touch()
    assert loaded.mapped_nbytes in {0, None}
    loaded.release()


@needs("torch", "transformers")
def test_the_call_of_a_strategy_of_one_s_own_is_what_it_has_called(asked: LoadRequest, tmp_path: Path) -> None:
    from pytest_llmmem.models.loading.strategy import Strategy

    through_us = Strategy(name="us", summary="", load=lambda request: request.from_pretrained(dtype="float16"))
    by_itself = Strategy(name="itself", summary="", load=lambda request: {"model": request.initialized()})

    by_us = load(asked, "us", own=(through_us,)).call
    assert by_us == f"LlamaForCausalLM.from_pretrained({str(asked.checkpoint.path)!r}, dtype=torch.float16)"
    assert "from_pretrained" not in load(request(asked.checkpoint, tmp_path), "itself", own=(by_itself,)).call
