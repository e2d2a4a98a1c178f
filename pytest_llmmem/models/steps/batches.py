"""Batches of random tokens, with pictures for a vision-language model, on real tensors and on fake ones."""

from typing import Any

import torch

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.steps.spec import TrainSpec


def base_of(model: Any) -> Any:
    """The model inside of an adapter, or the model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def random_tokens(model: Any, batch_size: int, seq_len: int, *, device: str) -> torch.Tensor:
    """Random tokens of the model's vocabulary."""
    vocabulary = base_of(model).config.get_text_config().vocab_size
    return torch.randint(0, vocabulary, (batch_size, seq_len), device=device)


def random_batch(model: Any, step: TrainSpec, *, device: str) -> dict[str, torch.Tensor]:
    """The inputs and labels of one batch. Raises ``StepError`` for pictures that the model does not take."""
    tokens = random_tokens(model, step.batch_size, step.seq_len, device=device)
    batch = {"input_ids": tokens, "labels": tokens}
    if step.images:
        places = step.images * _places_of_a_picture(model)
        if places > step.seq_len:
            msg = f"images={step.images} take {places:,} positions, and seq_len is {step.seq_len:,}: write {places:,} or more"
            raise StepError(msg)
        config, base = base_of(model).config, base_of(model)
        # a token at random must not stand for a picture that is not there
        tokens[tokens == config.image_token_id] = 0
        tokens[:, :places] = config.image_token_id
        size = config.vision_config.image_size
        pictures = step.batch_size * step.images, config.vision_config.num_channels, size, size
        batch["pixel_values"] = torch.rand(pictures, dtype=base.dtype, device=device)
    return batch


def _places_of_a_picture(model: Any) -> int:
    """The number of tokens that stand for one picture: its patches, and one more where the class token is kept."""
    config = base_of(model).config
    strategy, vision = getattr(config, "vision_feature_select_strategy", None), getattr(config, "vision_config", None)
    if strategy is None or vision is None or hasattr(config, "image_grid_pinpoints"):
        msg = (
            f"images: the pictures of {type(base_of(model)).__name__} are not of LLaVA's kind, one size and one tile each: "
            "leave images out, or measure a loop of your own with training_memory"
        )
        raise StepError(msg)
    side: int = vision.image_size // vision.patch_size
    return side * side + (1 if strategy == "full" else 0)
