"""A value for each argument of a small forward pass: tokens, pixels, patches, audio, time series."""

from collections.abc import Callable, Mapping
from typing import Any, Final

_TOKENS: Final = 8
_DECODED: Final = 4
"""Tokens for a decoder."""
_SAMPLES: Final = 16_000
"""Samples of a waveform: one second, enough for the convolutions of every audio model."""
_FRAMES: Final = 128
"""Frames of a spectrogram, where the config sets none."""
_PARTS: Final = (
    "vision_config", "backbone_config", "encoder", "audio_config", "speech_config", "encoder_config", "semantic_model_config",
)  # fmt: skip
"""Attributes of a config that hold the config of what sees or hears."""


def _size(config: Any, *names: str, default: int) -> int:
    """The first of these numbers that the config, or the config of a part, has."""
    for each in (config, *(getattr(config, part, None) for part in _PARTS)):
        for name in names:
            if isinstance(value := getattr(each, name, None), int) and not isinstance(value, bool):
                return value
    return default


def _tokens(_model: Any, _config: Any, _takes: Any) -> Any:
    import torch

    return torch.ones(1, _TOKENS, dtype=torch.long)


def _decoder_tokens(_model: Any, config: Any, _takes: Any) -> Any:
    import torch

    channels = getattr(getattr(config, "decoder_config", None), "num_channels", None)
    shape = (1, _DECODED) if channels is None else (1, _DECODED, channels)
    return torch.ones(shape, dtype=torch.long)


def _pixels(model: Any, config: Any, takes: Any) -> Any:
    import torch

    if not {"grid_thw", "image_grid_thw", "spatial_shapes", "pixel_position_ids"}.isdisjoint(takes):
        patches = _patches(model, config, takes)
        return patches if {"grid_thw", "image_grid_thw"} & takes.keys() else patches[None]
    channels, height, width, frames = _picture(config)
    if "prompt_pixel_values" in takes:
        height //= 2  # the model puts the two pictures on top of each other
    shape = (1, channels, height, width)
    return torch.zeros(shape if frames is None else (1, frames, *shape[1:]))


def _video(_model: Any, config: Any, _takes: Any) -> Any:
    import torch

    channels, height, width, frames = _picture(config)
    return torch.zeros(1, frames or _size(config, "frames_per_clip", "num_frames", default=2), channels, height, width)


def _picture(config: Any) -> tuple[int, int, int, int | None]:
    """Channels, height, width, and frames where the config has them."""
    for each in (config, *(getattr(config, part, None) for part in _PARTS)):
        size = getattr(each, "image_size", None) or getattr(each, "crop_size", None)
        if size is None:
            continue
        sizes = (size, size) if isinstance(size, int) else tuple(size.values() if isinstance(size, dict) else size)[-2:]
        frames = getattr(each, "num_frames", None)
        channels = _size(each, "num_channels", "in_channels", "in_chans", default=3)
        return channels, *sizes, frames if isinstance(frames, int) else None
    return _size(config, "num_channels", "in_channels", "in_chans", default=3), 224, 224, None


def _patches(_model: Any, config: Any, _takes: Any) -> Any:
    """A picture as its patches, one in a row."""
    import torch

    side = _grid_side(config)
    patch = _size(config, "patch_size", default=14)
    channels = _size(config, "in_channels", "num_channels", "in_chans", default=3)
    return torch.zeros(side * side, channels * _size(config, "temporal_patch_size", default=1) * patch * patch)


def _grid_side(config: Any) -> int:
    return 2 * _size(config, "spatial_merge_size", "pooling_kernel_size", default=1)


def _grid(_model: Any, config: Any, _takes: Any) -> Any:
    import torch

    return torch.tensor([[1, _grid_side(config), _grid_side(config)]])


def _patch_positions(_model: Any, config: Any, _takes: Any) -> Any:
    import torch

    side = _grid_side(config)
    return torch.cartesian_prod(torch.arange(side), torch.arange(side))[None]


def _waveform(_model: Any, config: Any, _takes: Any) -> Any:
    import torch

    bins, length = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
    if isinstance(bins, int) and isinstance(length, int) and hasattr(config, "patch_size"):
        return torch.zeros(1, length, bins)  # a spectrogram as image patches
    channels = getattr(config, "audio_channels", None)
    if channels is None and (hasattr(config, "codebook_size") or hasattr(config, "upsampling_ratios")):
        channels = 1  # a codec
    return torch.zeros((1, _SAMPLES) if channels is None else (1, channels, _SAMPLES))


def _spectrogram(model: Any, config: Any, _takes: Any) -> Any:
    import torch

    shape, _frames = _spectrogram_shape(model, config)
    return torch.zeros(shape)


def _spectrogram_mask(model: Any, config: Any, _takes: Any) -> Any:
    import torch

    _shape, frames = _spectrogram_shape(model, config)
    return torch.ones(1, frames, dtype=torch.long)


def _spectrogram_shape(model: Any, config: Any) -> tuple[tuple[int, ...], int]:
    """The shape of a spectrogram, and its frames. Frequencies come first where a convolution takes them as channels."""
    import torch

    heard = next((getattr(config, part) for part in _HEARING if hasattr(config, part)), config)
    bins = _size(heard, *_BINS, default=0)
    if isinstance(size := getattr(heard, "spec_size", None), int):
        return (1, 1, 4 * size, bins), 4 * size
    channels = [each.in_channels for each in model.modules() if isinstance(each, torch.nn.Conv1d)]
    if not bins:
        bins = next((each for each in channels if each in _USUAL_BINS), _USUAL_BINS[0])
    if bins not in channels or hasattr(heard, "input_feat_per_channel"):
        return (1, _FRAMES, bins), _FRAMES  # its projection is linear, or it transposes by itself
    positions = getattr(heard, "max_source_positions", None)
    frames = 2 * positions if isinstance(positions, int) else _FRAMES
    return (1, bins, frames), frames


_USUAL_BINS: Final = (128, 80)
"""Frequencies of a spectrogram, where the config sets none."""
_HEARING: Final = ("audio_config", "speech_config", "encoder_config")
_BINS: Final = (
    "input_size", "num_mel_bins", "input_feat_per_channel", "feature_size", "feature_projection_input_dim",
    "input_feat_size", "input_dim",
)  # fmt: skip


def _series(_model: Any, config: Any, _takes: Any) -> Any:
    """Past values of a time series."""
    import torch

    length = _size(config, "context_length", default=64) + max(getattr(config, "lags_sequence", None) or [0])
    channels = getattr(config, "num_input_channels", None)
    return torch.zeros((1, length) if channels is None else (1, length, channels))


def _zeros(*sizes: int | str) -> Callable[[Any, Any, Any], Any]:
    """Zeros of a shape: numbers, and names of numbers in the config."""

    def make(_model: Any, config: Any, _takes: Any) -> Any:
        import torch

        return torch.zeros([size if isinstance(size, int) else getattr(config, size) for size in sizes])

    return make


MAKERS: Final[Mapping[str, Callable[[Any, Any, Any], Any]]] = {
    "input_ids": _tokens,
    "qformer_input_ids": _tokens,
    "decoder_input_ids": _decoder_tokens,
    "bbox": lambda *_: _zeros(1, _TOKENS, 4)(*_).long(),
    "pixel_values": _pixels,
    "pixel_values_videos": _video,
    "prompt_pixel_values": _pixels,
    "prompt_masks": _pixels,
    "hidden_states": _patches,
    "grid_thw": _grid,
    "image_grid_thw": _grid,
    "spatial_shapes": lambda *_: _grid(*_)[:, 1:],
    "pixel_attention_mask": lambda *_: _patch_positions(*_)[..., 0] * 0 + 1,
    "pixel_position_ids": _patch_positions,
    "merge_sizes": lambda *_: _grid(*_)[0, :1],
    "visual_feats": _zeros(1, 4, "visual_feat_dim"),
    "visual_pos": _zeros(1, 4, "visual_pos_dim"),
    "query_embeds": _zeros(1, 4, "hidden_size"),
    "encoder_hidden_states": _zeros(1, 4, "encoder_hidden_size"),
    "audio_mel": _zeros(1, _FRAMES, "input_feat_size"),
    "audio_mel_mask": lambda *_: _zeros(1, _FRAMES)(*_).bool(),
    "input_values": _waveform,
    "input_features": _spectrogram,
    "input_features_mask": _spectrogram_mask,
    "past_values": _series,
    "past_time_features": lambda *_: _series(*_)[..., None].expand(-1, -1, _[1].num_time_features),
    "past_observed_mask": lambda *_: _series(*_) + 1,
    "states": _zeros(1, 4, "state_dim"),
    "actions": _zeros(1, 4, "act_dim"),
    "rewards": _zeros(1, 4, 1),
    "returns_to_go": _zeros(1, 4, 1),
    "timesteps": lambda *_: _zeros(1, 4)(*_).long(),
    "attention_mask": _zeros(1, 4),
}
"""What each argument is made by, from the model, its config and its arguments."""
