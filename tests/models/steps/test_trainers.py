"""The storage tracker around the loops of others: Trainer's, accelerate's, Lightning's, and loops of several models."""
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
    assert memory.gradients_bytes == memory.trainable_bytes
    assert left_over(memory) < 0.02


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


def tokens_of(batch: int = 2) -> Any:
    return torch.ones(batch, LENGTH, dtype=torch.long)


def test_a_gradient_scaler_is_told_apart() -> None:
    model = make_real(LLAMA)
    optimizer, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu")

    with StorageTracker(model, optimizer) as tracker:
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(input_ids=tokens_of(), labels=tokens_of(), use_cache=False).loss
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            loss.item()
            del loss
    memory = tracker.memory()

    assert memory.steps == 3
    assert memory.gradients_bytes == memory.trainable_bytes
    assert left_over(memory) < 0.02


def test_two_optimizers_of_one_model_are_told_apart() -> None:
    model = make_real(LLAMA)
    embedding = model.get_input_embeddings().weight
    others = [each for each in model.parameters() if each is not embedding]
    optimizers = torch.optim.SGD([embedding], lr=0.1), torch.optim.AdamW(others)

    with StorageTracker(model) as tracker:
        for _ in range(3):
            model(input_ids=tokens_of(), labels=tokens_of(), use_cache=False).loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    memory = tracker.memory()

    assert memory.steps == 3
    assert memory.optimizer_bytes == pytest.approx(2 * (memory.trainable_bytes - embedding.nbytes), rel=0.001)
    assert memory.gradients_bytes == memory.trainable_bytes
    assert left_over(memory) < 0.02


def test_a_policy_that_generates_and_is_judged_by_others_is_told_apart() -> None:
    """The loop of GRPO: completions of the policy, rewards of another model, and a frozen reference."""
    policy, reference, judge = make_real(LLAMA), make_real(LLAMA).requires_grad_(False), make_real(LLAMA)
    judge.requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters())

    with StorageTracker(policy, reference, judge, optimizer) as tracker, quietly():
        for _ in range(2):
            with torch.no_grad():
                texts = policy.generate(tokens_of(), max_new_tokens=4, min_new_tokens=4, pad_token_id=0)
                rewards = judge(input_ids=texts, use_cache=False).logits.mean((1, 2))
                expected = reference(input_ids=texts, use_cache=False).logits.log_softmax(-1)
            told = policy(input_ids=texts, use_cache=False).logits.log_softmax(-1)
            advantages = (rewards - rewards.mean())[:, None, None]
            (((told - expected) ** 2).mean() - (advantages * told).mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
            del texts, rewards, expected, told, advantages
    memory = tracker.memory()

    assert memory.steps == 2
    assert memory.parameters_bytes == pytest.approx(3 * memory.trainable_bytes, rel=0.01)
    assert memory.gradients_bytes == memory.trainable_bytes
    assert memory.optimizer_bytes == pytest.approx(2 * memory.trainable_bytes, rel=0.001)
    assert memory.kv_cache_bytes > 0
    assert left_over(memory) < 0.02


def test_lightning_s_loop_is_told_apart(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = make_real(LLAMA)

        def training_step(self, batch: Any, _number: int) -> Any:
            return self.model(**batch, use_cache=False).loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters())

    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=3, accumulate_grad_batches=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, gradient_clip_val=1.0,
    )  # fmt: skip
    with quietly(), StorageTracker() as tracker:
        trainer.fit(Module(), torch.utils.data.DataLoader(Texts(), batch_size=1))
    memory = tracker.memory()

    assert memory.steps == 3
    assert memory.gradients_bytes == memory.trainable_bytes
    assert memory.optimizer_bytes == pytest.approx(2 * memory.trainable_bytes, rel=0.001)
    assert left_over(memory) < 0.02
