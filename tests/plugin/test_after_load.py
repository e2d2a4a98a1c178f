"""What follows a load and breaks a budget, each by a real run: the diagnosis names it, and without the fault there is none."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import Run, needs

pytestmark = needs("torch", "transformers", "real-time signals")

MODEL = """
    import gc, pytest, torch
    from transformers import LlamaConfig, LlamaForCausalLM

    @pytest.fixture(autouse=True)
    def one_thread(): torch.set_num_threads(1)  # several wait for each other on a busy machine

    SIZES = dict(num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4, vocab_size=8192, tie_word_embeddings=True)
    SMALL = LlamaConfig(hidden_size=64, intermediate_size=128, **SIZES)
    LARGE = LlamaConfig(hidden_size=1024, intermediate_size=4096, **SIZES)  # 101 MB
"""


def diagnoses(ran: Run) -> dict[str, str | None]:
    return {
        test.nodeid.partition("::")[2].partition("[")[0]: test.diagnosis.id if test.diagnosis else None
        for test in ran.record.tests
    }


@needs("accelerate")
def test_an_evaluation_that_keeps_all_logits(run: Callable[..., Run]) -> None:
    ran = run(
        MODEL
        + """
    from transformers import Trainer, TrainingArguments

    class Rows(torch.utils.data.Dataset):
        def __len__(self): return 48
        def __getitem__(self, i): return dict.fromkeys(("input_ids", "labels"), torch.ones(64, dtype=torch.long))

    def evaluate(folder, **options):
        arguments = TrainingArguments(str(folder), per_device_eval_batch_size=4, report_to=[], use_cpu=True)
        Trainer(LlamaForCausalLM(SMALL), arguments, eval_dataset=Rows(), compute_metrics=lambda p: {}, **options).evaluate()

    @pytest.mark.max_ram("70MB")
    def test_all(tmp_path): evaluate(tmp_path)

    @pytest.mark.max_ram("70MB")
    def test_less(tmp_path): evaluate(tmp_path, preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1))
        """,
        timeout_s=150,
    )

    assert diagnoses(ran) == {"test_all": "evaluation-keeps-outputs", "test_less": None}
    ran.result.assert_outcomes(failed=1, passed=1)


def test_caches_that_are_kept_and_an_older_model(run: Callable[..., Run]) -> None:
    ran = run(
        MODEL
        + """
    def outputs(keep):
        model, kept = LlamaForCausalLM(SMALL).eval(), []
        with torch.inference_mode():
            for _ in range(60):
                output = model(torch.ones(16, 128, dtype=torch.long), logits_to_keep=1)
                kept.append(output if keep else output.logits.argmax(-1))

    @pytest.mark.max_ram("70MB")
    def test_caches(): outputs(True)

    @pytest.mark.max_ram("70MB")
    def test_tokens(): outputs(False)

    @pytest.mark.max_ram("180MB")
    def test_rebound():
        model = LlamaForCausalLM(LARGE)
        model = LlamaForCausalLM(LARGE)

    @pytest.mark.max_ram("180MB")
    def test_deleted():
        model = LlamaForCausalLM(LARGE)
        del model
        gc.collect()
        model = LlamaForCausalLM(LARGE)
        """,
        timeout_s=150,
    )

    assert diagnoses(ran) == {
        "test_caches": "caches-kept",
        "test_tokens": None,
        "test_rebound": "older-model-alive",
        "test_deleted": None,
    }
    ran.result.assert_outcomes(failed=2, passed=2)
    assert ran["test_rebound"].diagnosis.happened.startswith("2 LlamaForCausalLM were alive")


def test_workers_of_a_dataloader_that_copy_a_list(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import numpy, pytest, torch

        class Samples(torch.utils.data.Dataset):
            def __init__(self, samples): self.samples = samples
            def __len__(self): return len(self.samples)
            def __getitem__(self, i): return len(self.samples[i])

        def read(samples):
            for _ in torch.utils.data.DataLoader(Samples(samples), batch_size=512, num_workers=2): pass

        @pytest.mark.max_ram("170MB")
        def test_list(): read([str(i) * 20 for i in range(500_000)])

        @pytest.mark.max_ram("170MB")
        def test_array():
            samples = numpy.zeros((500_000, 20), "u8")
            samples[:] = 1
            read(samples)
        """,
        timeout_s=150,
    )

    assert diagnoses(ran) == {"test_list": "dataloader-copies", "test_array": None}
    ran.result.assert_outcomes(failed=1, passed=1)


def test_an_optimizers_state_that_is_read_beside_its_copy(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    writing = """
import torch
model = torch.nn.Linear(4000, 4000, bias=False)
optimizer = torch.optim.AdamW(model.parameters())
model.weight.grad = torch.ones(4000, 4000)
optimizer.step()
torch.save(optimizer.state_dict(), "optimizer.pt")
"""
    subprocess.run([sys.executable, "-c", writing], cwd=pytester.path, check=True, timeout=100)

    ran = run(
        """
        import pytest, torch
        from pathlib import Path

        FILE = Path(__file__).with_name("optimizer.pt")  # 128 MB of float32
        pytestmark = pytest.mark.max_ram("190MB")

        def resume(**how):
            model = torch.nn.Linear(4000, 4000, bias=False, dtype=torch.bfloat16)  # 32 MB
            torch.optim.AdamW(model.parameters()).load_state_dict(torch.load(FILE, **how))

        def test_read(): resume()
        def test_mapped(): resume(mmap=True)
        """,
        "--llm-preload=torch._dynamo",
        timeout_s=120,
    )

    assert diagnoses(ran) == {"test_read": "optimizer-resumed", "test_mapped": None}
    ran.result.assert_outcomes(failed=1, passed=1)


@needs("accelerate", "safetensors")
def test_ties_and_a_plan_without_memory(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    run(
        MODEL
        + """
    from safetensors.torch import save_file

    def test_write():
        model = LlamaForCausalLM(SMALL)
        for folder in ("once", "twice"):
            model.save_pretrained(folder)
        save_file({name: each.clone() for name, each in model.state_dict().items()}, "twice/model.safetensors", {"format": "pt"})
        """,
        timeout_s=120,
    )
    loading = (
        MODEL
        + """
    def losing(path):
        model = LlamaForCausalLM.from_pretrained(path)
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        return model

    def test_plain(loaded_model): pass

    @pytest.mark.llm_load(loader=losing)
    def test_losing(loaded_model): pass

    @pytest.mark.llm_load(device_map="auto", max_memory={"disk": 0})
    def test_disk(loaded_model): pass

    @pytest.mark.in_worker
    def test_file(model_checkpoint, tmp_path):
        from safetensors.torch import save_file
        save_file(LlamaForCausalLM(SMALL).state_dict(), tmp_path / "model.safetensors")
        """
    )

    once = run(loading, f"--llm-model={pytester.path / 'once'}", timeout_s=120)
    twice = run(loading, f"--llm-model={pytester.path / 'twice'}", "-k", "plain", timeout_s=120)

    assert diagnoses(once) == {
        "test_plain": None,
        "test_losing": "tie-lost",
        "test_disk": "whole-model-on-disk",
        "test_file": "shared-tensors-saved",
    }
    assert diagnoses(twice) == {"test_plain": "tie-stored-twice"}
    once.result.assert_outcomes(passed=3, failed=1)
