"""Tests with ``train_step``, ``generate_step`` and ``training_memory``."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pytest_llmmem.models.sources.source import parse_source
from pytest_llmmem.models.sources.synthetic import SyntheticSpec, write_synthetic
from tests.conftest import Run, needs

pytestmark = needs("torch", "transformers")

TINY = "--llm-model=synthetic:tiny-llama?dtype=float32"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "steps-cache"))


@pytest.fixture
def run(run: Callable[..., Run]) -> Callable[..., Run]:
    """With time for a prediction, which imports torch in a process of its own."""
    return partial(run, timeout_s=240)


def test_a_step_is_measured_by_kind_and_predicted_to_the_byte(run: Callable[..., Run]) -> None:
    done = run(
        """
        import pytest

        @pytest.mark.llm_train(batch_size=2, seq_len=64)
        def test_step(train_step):
            predicted = train_step.predict()
            assert train_step.steps == 2
            assert predicted.peak_bytes == train_step.peak_bytes
            assert predicted.activations_bytes == train_step.activations_bytes > 0
            assert train_step.gradients_bytes == train_step.trainable_bytes
        """,
        TINY,
    )

    done.result.assert_outcomes(passed=1)
    (measured,) = done["test_step[tiny-llama?dtype=float32]"].steps
    assert measured.predicted is not None
    assert {each.phase for each in measured.phases} == {"forward", "backward", "optimizer"}
    assert all(each.process_peak_bytes for each in measured.phases)
    assert measured.largest_by_kind == measured.predicted.largest_by_kind


def test_a_limit_in_terms_of_the_step_is_predicted_before_the_test_runs(run: Callable[..., Run]) -> None:
    done = run(
        """
        import pytest

        @pytest.mark.llm_train(seq_len=32, optimizer="sgd")
        @pytest.mark.max_ram("3 * trainable@float32 + gradients + optimizer + activations + 300MB")
        def test_holds(train_step): ...

        @pytest.mark.llm_generate(prompt=16, new_tokens=4)
        @pytest.mark.max_ram("kv_cache + 300MB")
        def test_generates(generate_step):
            assert generate_step.kv_cache_bytes == generate_step.predict().kv_cache_bytes
        """,
        TINY,
    )

    done.result.assert_outcomes(passed=2)
    record = done["test_holds[tiny-llama?dtype=float32]"]
    trainable = record.steps[0].trainable_parameters
    assert record.budgets[0].limit_bytes > 4 * 4 * trainable + 300_000_000
    layers, heads, head, length, size = 4, 2, 16, 19, 4
    (generated,) = done["test_generates[tiny-llama?dtype=float32]"].steps
    assert generated.kv_cache_bytes == 2 * layers * heads * head * length * size


def test_the_cache_that_the_model_asks_for_is_measured_and_predicted_and_known_to_limits(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    spec = parse_source("synthetic:tiny-llama?dtype=float32", base=tmp_path).target
    assert isinstance(spec, SyntheticSpec)
    folder = tmp_path / "asking"
    write_synthetic(spec, folder)
    asked = {"cache_implementation": "static", "max_cache_len": 100}
    (folder / "generation_config.json").write_text(json.dumps(asked), encoding="utf-8")

    done = run(
        """
        import pytest

        @pytest.mark.llm_generate(prompt=16, new_tokens=4)
        @pytest.mark.max_ram("kv_cache + 300MB")
        def test_generates(generate_step):
            assert generate_step.kv_cache_bytes == generate_step.predict().kv_cache_bytes
        """,
        f"--llm-model={folder}",
    )

    done.result.assert_outcomes(passed=1)
    layers, heads, head, room, size = 4, 2, 16, 100, 4
    cache_bytes = 2 * layers * heads * head * room * size + layers * 8
    record = done["test_generates[asking]"]
    assert record.steps[0].kv_cache_bytes == cache_bytes
    assert record.budgets[0].limit_bytes == cache_bytes + 300_000_000


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        ("@pytest.mark.llm_train(batch_size=0)", "llm_train: batch_size=0 is not a number of them"),
        ("@pytest.mark.llm_train(batch=1)", "llm_train: got an unexpected keyword argument 'batch'"),
        ("@pytest.mark.llm_train(optimizer='lion')", "llm_train: optimizer='lion' is not known: write one of adamw"),
        ("@pytest.mark.llm_train(seq_len=257)", "the model has 256 positions"),
        (
            "@pytest.mark.llm_generate()",
            "llm_generate: this test runs no such step: let it use the fixture generate_step",
        ),
        (
            "@pytest.mark.max_ram('activations + 1GB')",
            "nothing says what 'activations' is: mark the test with llm_train",
        ),
        (
            "@pytest.mark.llm_train(seq_len=8)\n@pytest.mark.max_ram('kv_cache + 1GB')",
            "nothing says what 'kv_cache' is: mark the test with llm_generate",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(run: Callable[..., Run], marks: str, told: str) -> None:
    done = run(f"import pytest\n{marks}\ndef test_step(train_step): ...", TINY)

    assert told in " ".join(done.text.replace("E  ", "").split())
    assert "INTERNALERROR" not in done.text
    assert "entries are hidden" not in done.text
    assert sum(done.result.parseoutcomes().get(name, 0) for name in ("failed", "error", "errors")) == 1


def test_a_loop_of_one_s_own_is_measured(run: Callable[..., Run]) -> None:
    done = run(
        """
        def test_loop(training_memory):
            import torch
            model = torch.nn.Linear(256, 256)
            optimizer = torch.optim.AdamW(model.parameters())
            with training_memory(model, optimizer) as spent:
                for _ in range(3):
                    model(torch.ones(4, 256)).sum().backward()
                    optimizer.step()
                    optimizer.zero_grad()
            assert spent.parameters_bytes == 257 * 256 * 4
            assert spent.optimizer_bytes == 2 * 257 * 256 * 4 + 2 * 4
            assert spent.peak_of_step(3) == spent.peak_of_step(2)
        """
    )

    done.result.assert_outcomes(passed=1)
    assert done["test_loop"].steps[0].name == "training_memory"


def test_a_recipe_is_predicted_without_loading_anything(run: Callable[..., Run]) -> None:
    done = run(
        """
        import pytest

        @pytest.mark.llm_load("bfloat16")
        @pytest.mark.llm_train(seq_len=512, checkpointing=True, optimizer="adamw8bit")
        def test_recipe(predicted_step):
            assert predicted_step.device == "cuda"
            assert predicted_step.parameters_bytes < 3 * 10**9
        """,
        "--llm-model=synthetic:polyglot-ko-1.3b",
    )

    done.result.assert_outcomes(passed=1)
    record = done["test_recipe[polyglot-ko-1.3b-bfloat16]"]
    assert record.steps[0].name == "predicted_step"
    assert record.ram is not None
    assert record.ram.peak_bytes < 500_000_000


def test_a_prediction_in_a_test_is_that_of_the_code_of_its_process(run: Callable[..., Run]) -> None:
    done = run(
        """
        import pytest

        @pytest.fixture
        def mlp_twice(monkeypatch):
            from transformers.models.llama.modeling_llama import LlamaMLP
            forward = LlamaMLP.forward
            monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: forward(self, x) + forward(self, x))

        @pytest.mark.llm_train(seq_len=64)
        def test_before(predicted_step): ...

        @pytest.mark.llm_train(seq_len=64)
        def test_changed(mlp_twice, predicted_step): ...
        """,
        TINY,
    )

    done.result.assert_outcomes(passed=2)
    before, changed = (done[f"{name}[tiny-llama?dtype=float32]"].steps[0] for name in ("test_before", "test_changed"))
    assert changed.activations_bytes > 1.2 * before.activations_bytes


def test_a_block_that_is_still_open_says_when_its_numbers_are_known(run: Callable[..., Run]) -> None:
    done = run(
        """
        def test_loop(training_memory):
            with training_memory() as spent:
                spent.peak_bytes
        """
    )

    done.result.assert_outcomes(failed=1)
    assert "is known when it has ended" in done.text


def test_steps_are_measured_in_pytest_s_own_process_too(run: Callable[..., Run]) -> None:
    done = run(
        """
        import pytest

        @pytest.mark.llm_train(seq_len=16)
        def test_step(train_step):
            assert train_step.peak_bytes == train_step.predict().peak_bytes
        """,
        TINY,
        "--llm-isolate=none",
    )

    done.result.assert_outcomes(passed=1)
    assert done["test_step[tiny-llama?dtype=float32]"].steps


@needs("forked workers")
def test_a_cold_worker_s_first_use_of_torch_is_not_charged_to_its_steps(run: Callable[..., Run]) -> None:
    done = run(
        """
        from pathlib import Path
        import pytest

        def file_pages():
            (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile")]
            return int(line.split()[1]) * 1024

        @pytest.mark.llm_train(batch_size=2, seq_len=64)
        def test_measured(train_step): ...

        def test_same_steps_unprepared(loaded_model):
            import torch
            loaded_model.touch()
            model = loaded_model.model.train()
            optimizer, tokens = torch.optim.AdamW(model.parameters()), torch.ones((2, 64), dtype=torch.long)
            before = file_pages()
            for _ in range(2):
                model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            Path("became-resident").write_text(str(file_pages() - before))
        """,
        TINY,
    )

    done.result.assert_outcomes(passed=2)
    (measured,) = done["test_measured[tiny-llama?dtype=float32]"].steps
    excess = max((each.process_peak_bytes or 0) - each.peak_bytes for each in measured.phases)
    assert excess < int(Path("became-resident").read_text(encoding="ascii"))


def test_a_step_would_change_a_model_that_is_shared(run: Callable[..., Run]) -> None:
    done = run("def test_step(train_step): ...", TINY, "--llm-scope=module")

    done.result.assert_outcomes(errors=1)
    assert "train_step changes its model, which --llm-scope shares with other tests" in done.text


def test_without_a_model_a_step_is_skipped(run: Callable[..., Run]) -> None:
    run("def test_step(train_step): ...").result.assert_outcomes(skipped=1)
