"""A value for each argument of a small forward pass: tokens, pixels, patches, audio, time series."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pytest_llmmem.models.loading.sample_pictures import (
    FRAMES_OF_VIDEO,
    grid,
    image_token,
    patch_positions,
    patches,
    pixels,
    shows_video,
    video,
)
from pytest_llmmem.models.loading.sample_sizes import TOKENS, size_in
from pytest_llmmem.models.loading.sample_sound import FRAMES, spectrogram, spectrogram_mask, waveform

_DECODED: Final = 4
"""Tokens for a decoder."""


def _tokens(_model: Any, config: Any, takes: Any) -> Any:
    import torch

    codebooks = getattr(config, "num_codebooks", None)
    if codebooks is not None and hasattr(config, "codebook_vocab_size"):
        return torch.ones(1, TOKENS, codebooks + 1, dtype=torch.long)  # text, and sound from each codebook
    placeholder, places = _placeholders(config, takes)
    return torch.tensor([[placeholder] * places + [1] * TOKENS])


def _text(_model: Any, _config: Any, _takes: Any) -> Any:
    import torch

    return torch.ones(1, TOKENS, dtype=torch.long)


def _placeholders(config: Any, takes: Any) -> tuple[int, int]:
    """The token that stands for a part of a picture, and how often, for a model that has one picture in each text."""
    if "image_embeds_position_mask" in takes:
        return 1, config.latent_query_num
    if "qformer_config" in vars(config) and isinstance(token := image_token(config), int):
        return token, config.num_query_tokens * (FRAMES_OF_VIDEO if shows_video(config) else 1)
    return 1, 0


def _places(model: Any, config: Any, takes: Any) -> Any:
    """Where the tokens stand for a picture."""
    _token, places = _placeholders(config, takes)
    mask = _tokens(model, config, takes)
    mask[:, places:] = 0
    return mask


def _decoder_tokens(_model: Any, config: Any, _takes: Any) -> Any:
    import torch

    channels = getattr(getattr(config, "decoder_config", None), "num_channels", None)
    shape = (1, _DECODED) if channels is None else (1, _DECODED, channels)
    return torch.ones(shape, dtype=torch.long)


def _series(_model: Any, config: Any, _takes: Any) -> Any:
    """Past values of a time series."""
    import torch

    length = size_in(config, "context_length", default=64) + max(getattr(config, "lags_sequence", None) or [0])
    channels = getattr(config, "num_input_channels", None)
    return torch.zeros((1, length) if channels is None else (1, length, channels))


def _zeros(*sizes: int | str) -> Callable[[Any, Any, Any], Any]:
    """Zeros of a shape: numbers, and names of numbers in the config."""

    def make(_model: Any, config: Any, _takes: Any) -> Any:
        import torch

        return torch.zeros([size if isinstance(size, int) else getattr(config, size) for size in sizes])

    return make


def _of_layers(_model: Any, config: Any, _takes: Any) -> Any:
    """Hidden states of the layers of another model, side by side."""
    import torch

    return torch.zeros(1, TOKENS, config.hidden_size * len(config.target_layer_ids))


MAKERS: Final[Mapping[str, Callable[[Any, Any, Any], Any]]] = {
    "input_ids": _tokens,
    "qformer_input_ids": _text,
    "decoder_input_ids": _decoder_tokens,
    "bbox": lambda *_: _zeros(1, TOKENS, 4)(*_).long(),
    "pixel_values": pixels,
    "pixel_values_videos": video,
    "prompt_pixel_values": pixels,
    "prompt_masks": pixels,
    "hidden_states": patches,
    "grid_thw": grid,
    "image_grid_thw": grid,
    "spatial_shapes": lambda *_: grid(*_)[:, 1:],
    "pixel_attention_mask": lambda *_: patch_positions(*_)[..., 0] * 0 + 1,
    "pixel_position_ids": patch_positions,
    "image_attention_mask": lambda *_: _text(*_)[..., None],
    "image_embeds_position_mask": _places,
    "target_sizes": lambda *_: grid(*_)[:, 1:],
    "task_inputs": _zeros(1, "task_seq_len"),
    "merge_sizes": lambda *_: grid(*_)[0, :1],
    "visual_feats": _zeros(1, 4, "visual_feat_dim"),
    "visual_pos": _zeros(1, 4, "visual_pos_dim"),
    "query_embeds": _zeros(1, 4, "hidden_size"),
    "encoder_hidden_states": _zeros(1, 4, "encoder_hidden_size"),
    "inputs_embeds": _zeros(1, TOKENS, "hidden_size"),
    "noise_embeds": _zeros(1, TOKENS, "hidden_size"),
    "context_hidden_states": _of_layers,
    "latents": _zeros(1, "hidden_size", TOKENS),
    "audio_mel": _zeros(1, FRAMES, "input_feat_size"),
    "audio_mel_mask": lambda *_: _zeros(1, FRAMES)(*_).bool(),
    "input_values": waveform,
    "input_features": spectrogram,
    "input_features_mask": spectrogram_mask,
    "past_values": _series,
    "past_time_features": lambda *_: _series(*_)[..., None].expand(-1, -1, _[1].num_time_features),
    "past_observed_mask": lambda *_: _series(*_) + 1,
    "past_values_padding": lambda *_: _series(*_).long(),
    "freq": lambda *_: _zeros(1, 1)(*_).long(),
    "states": _zeros(1, 4, "state_dim"),
    "actions": _zeros(1, 4, "act_dim"),
    "rewards": _zeros(1, 4, 1),
    "returns_to_go": _zeros(1, 4, 1),
    "timesteps": lambda *_: _zeros(1, 4)(*_).long(),
    "attention_mask": _zeros(1, 4),
}
"""The function that makes each argument, from the model, its config and its arguments."""
