"""The storage tracker around the loops of others: Trainer's, accelerate's, and one of two models."""
# ruff: noqa: E402 -- imported after the skip

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.models.steps.adapters import quietly
from pytest_llmmem.models.steps.tracker import StorageTracker
from tests.models.steps.sample_steps import LLAMA, make_real

LENGTH = 32


class Texts(torch.utils.data.Dataset):  # type: ignore[misc]
    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> dict[str, Any]:
        tokens = torch.full((LENGTH,), number)
        return {"input_ids": tokens, "labels": tokens}


def trainer(folder: Path, **arguments: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    settings = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=1, max_steps=3, report_to=[], use_cpu=True, disable_tqdm=True,
        logging_strategy="no", dataloader_pin_memory=False, **{"save_strategy": "no"} | arguments,
    )  # fmt: skip
    return Trainer(model=make_real(LLAMA), args=settings, train_dataset=Texts(), eval_dataset=Texts())


def left_over(memory: StepMemory) -> float:
    """The share of the peak that is neither model nor training, when the last step is over."""
    return memory.phases[-1].end_by_kind.get("temporary", 0) / memory.peak_bytes


def test_trainer_with_accumulation_and_evaluation_is_told_apart(tmp_path: Path) -> None:
    with quietly():
        training = trainer(tmp_path, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=1)
        with StorageTracker() as tracker:
            training.train()
    memory = tracker.memory()

    assert memory.gradients_bytes == memory.trainable_bytes
    assert memory.optimizer_bytes == pytest.approx(2 * memory.trainable_bytes, rel=0.001)
    assert memory.steps >= 3
    assert left_over(memory) < 0.02


def test_what_a_checkpoint_brings_back_is_the_optimizer_s(tmp_path: Path) -> None:
    with quietly():
        trainer(tmp_path, save_strategy="steps", save_steps=2).train()
        resumed = trainer(tmp_path)
        with StorageTracker() as tracker:
            resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    memory = tracker.memory()

    assert memory.optimizer_bytes == pytest.approx(2 * memory.trainable_bytes, rel=0.001)


def test_accelerate_s_loop_is_told_apart() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = make_real(LLAMA)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    tokens = torch.ones(1, LENGTH, dtype=torch.long)

    with StorageTracker(model) as tracker:
        for _ in range(2):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            del loss
    memory = tracker.memory()

    assert memory.gradients_bytes == memory.trainable_bytes
    assert left_over(memory) < 0.02


def test_a_policy_and_its_frozen_reference_are_told_apart() -> None:
    policy, reference = make_real(LLAMA), make_real(LLAMA).requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters())
    tokens = torch.ones(2, LENGTH, dtype=torch.long)

    with StorageTracker(policy, reference, optimizer) as tracker:
        for _ in range(2):
            with torch.no_grad():
                expected = reference(input_ids=tokens, use_cache=False).logits
            loss = (policy(input_ids=tokens, use_cache=False).logits - expected).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del loss, expected
    memory = tracker.memory()

    assert memory.parameters_bytes == pytest.approx(2 * memory.trainable_bytes, rel=0.01)
    assert memory.gradients_bytes == memory.trainable_bytes
    assert left_over(memory) < 0.02
