"""The markers of training and inference steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pytest_llmmem.models.steps.spec import GenerateSpec, TrainSpec
from pytest_llmmem.plugin.markers import Marker


@dataclass(frozen=True, slots=True)
class LlmTrain(Marker):
    """train the model of this test for some steps, as train_step does; max_ram and max_vram know its terms."""

    name: ClassVar[str] = "llm_train"

    step: TrainSpec

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls,
        *,
        batch_size: int = 1,
        seq_len: int = 512,
        optimizer: str = "adamw",
        checkpointing: bool | str = False,
        accumulation: int = 1,
        lora: int | None = None,
        lora_targets: tuple[str, ...] = (),
        precision: str | None = None,
        autocast: str | None = None,
        images: int = 0,
        steps: int = 2,
    ) -> Self:
        return cls(
            TrainSpec(
                batch_size=batch_size,
                seq_len=seq_len,
                optimizer=optimizer,
                checkpointing=checkpointing,
                accumulation=accumulation,
                lora=lora,
                lora_targets=lora_targets,
                precision=precision,
                autocast=autocast,
                images=images,
                steps=steps,
            ).checked()
        )


@dataclass(frozen=True, slots=True)
class LlmGenerate(Marker):
    """generate text with the model of this test, as generate_step does; max_ram and max_vram know its terms."""

    name: ClassVar[str] = "llm_generate"

    step: GenerateSpec

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls,
        *,
        batch_size: int = 1,
        prompt: int = 128,
        new_tokens: int = 16,
        cache_implementation: str | None = None,
        cache_config: Mapping[str, Any] | None = None,
        max_cache_len: int | None = None,
    ) -> Self:
        return cls(
            GenerateSpec(
                batch_size=batch_size,
                prompt=prompt,
                new_tokens=new_tokens,
                cache_implementation=cache_implementation,
                cache_config=cache_config,
                max_cache_len=max_cache_len,
            ).checked()
        )
