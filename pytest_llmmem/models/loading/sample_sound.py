"""Sound for a small forward pass: a waveform, or a spectrogram."""

import math
from typing import Any, Final

from pytest_llmmem.models.loading.sample_sizes import TOKENS, size_in

_OF_CODECS: Final = ("codebook_size", "upsampling_ratios", "downsampling_ratios", "dac_config")
_SAMPLES: Final = 16_000
"""Samples of a waveform: one second, enough for the convolutions of every audio model."""
FRAMES: Final = 128
"""Frames of a spectrogram, where the config sets none."""


def waveform(_model: Any, config: Any, _takes: Any) -> Any:
    """A second of sound."""
    import torch

    bins, length = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
    if isinstance(bins, int) and isinstance(length, int) and hasattr(config, "patch_size"):
        return torch.zeros(1, length, bins)  # a spectrogram as image patches
    channels = getattr(config, "audio_channels", None)
    heard = getattr(config, "audio_config", config)
    if channels is None and any(hasattr(heard, name) for name in _OF_CODECS):
        channels = 1
    step = getattr(config, "samples_per_token", 1)
    samples = -(-_SAMPLES // step) * step
    return torch.zeros((1, samples) if channels is None else (1, channels, samples))


def spectrogram(model: Any, config: Any, takes: Any) -> Any:
    """Frequencies of a number of frames."""
    import torch

    shape, _frames = _spectrogram_shape(model, config, takes)
    return torch.zeros(shape)


def spectrogram_mask(model: Any, config: Any, takes: Any) -> Any:
    """All frames of the spectrogram."""
    import torch

    _shape, frames = _spectrogram_shape(model, config, takes)
    return torch.ones(1, frames, dtype=torch.long)


def _spectrogram_shape(model: Any, config: Any, takes: Any) -> tuple[tuple[int, ...], int]:
    """The shape of a spectrogram, and its frames. Frequencies come first where a convolution takes them as channels."""
    import torch

    heard = next((getattr(config, part) for part in _HEARING if hasattr(config, part)), config)
    bins = size_in(heard, *_BINS, default=0)
    if isinstance(size := getattr(heard, "spec_size", None), int):
        return (1, 1, 4 * size, bins), 4 * size
    if rows := [each.in_features for name, each in model.named_modules() if f".{name}".endswith(".input_linear")]:
        bins = rows[0]  # of several frames
    channels = [each.in_channels for each in model.modules() if isinstance(each, torch.nn.Conv1d)]
    if not bins:
        bins = next((each for each in channels if each in _USUAL_BINS), _USUAL_BINS[0])
    if isinstance(window := getattr(heard, "n_window", None), int):
        return (1, bins, 2 * window), 2 * window
    frames = _usual_frames(config, takes)
    if bins not in channels or any(hasattr(heard, name) for name in _OF_TRANSPOSING):
        return (1, frames, bins), frames  # its projection is linear, or it transposes by itself
    positions = getattr(heard, "max_source_positions", None)
    if isinstance(positions, int):
        frames = 2 * positions
    return (1, bins, frames), frames


def _usual_frames(config: Any, takes: Any) -> int:
    """Frames of a spectrogram that is not of one length: as many as the tokens, or as the waveform beside it, stand for."""
    per_token = getattr(config, "audio_length_per_tok", None)
    if isinstance(per_token, int):
        return TOKENS * per_token
    if "input_values" in takes and isinstance(ratios := getattr(config, "downsampling_ratios", None), (list, tuple)):
        return _SAMPLES // math.prod(ratios)
    return FRAMES


_USUAL_BINS: Final = (128, 80)
"""Frequencies of a spectrogram, where the config sets none."""
_HEARING: Final = ("audio_config", "speech_config", "encoder_config")
_OF_TRANSPOSING: Final = ("input_feat_per_channel", "model_in_channels")
"""In the configs of models that transpose a spectrogram before their convolution."""
_BINS: Final = (
    "input_size", "num_mel_bins", "input_feat_per_channel", "feature_size", "feature_projection_input_dim",
    "input_feat_size", "input_dim",
)  # fmt: skip
