"""Pictures for a small forward pass: pixels, patches and their grid, video."""

from typing import Any, Final

from pytest_llmmem.models.loading.sample_sizes import picture_in, size_in

FRAMES_OF_VIDEO: Final = 4
"""Where the config sets none."""
_OF_PATCHES: Final = frozenset({"grid_thw", "image_grid_thw", "spatial_shapes", "pixel_position_ids"})
"""Arguments beside a picture that is given as its patches."""


def pixels(model: Any, config: Any, takes: Any) -> Any:
    """A picture, or a pair of them, or a video, in the form that the model takes."""
    import torch

    if not _OF_PATCHES.isdisjoint(takes):
        rows = patches(model, config, takes)
        return rows if {"grid_thw", "image_grid_thw"} & takes.keys() else rows[None]
    channels, height, width, frames = picture_in(config)
    if "target_sizes" in takes:  # patches side by side
        patch = size_in(config, "patch_size", default=14)
        return torch.zeros(1, channels, patch, patch * _grid_side(config) ** 2)
    if "prompt_pixel_values" in takes:
        height //= 2  # the model puts the two pictures on top of each other
    pictures = _pictures(config, takes) or frames
    shape = (1, channels, height, width)
    return torch.zeros(shape if pictures is None else (1, pictures, *shape[1:]))


def _pictures(config: Any, takes: Any) -> int | None:
    """How many pictures it takes at a time; ``None`` for one that has no dimension of its own."""
    if shows_video(config):
        return FRAMES_OF_VIDEO
    if hasattr(config, "keypoint_detector_config") or hasattr(config, "coarse_matching_threshold"):
        return 2  # it finds the points of one picture in another
    return 1 if "image_attention_mask" in takes else None


def shows_video(config: Any) -> bool:
    """Whether what it takes as pixels is a video beside a text."""
    return "qformer_config" in vars(config) and getattr(config, "video_token_index", None) is not None


def image_token(config: Any) -> Any:
    """The token that stands for a part of a picture, or of a video."""
    return getattr(config, "video_token_index" if shows_video(config) else "image_token_index", None)


def video(_model: Any, config: Any, _takes: Any) -> Any:
    """A few frames."""
    import torch

    channels, height, width, frames = picture_in(config)
    frames = frames or size_in(config, "frames_per_clip", "num_frames", default=2)
    return torch.zeros(1, frames, channels, height, width)


def patches(_model: Any, config: Any, _takes: Any) -> Any:
    """A picture as its patches, one in a row."""
    import torch

    side = _grid_side(config)
    patch = size_in(config, "patch_size", default=14)
    channels = size_in(config, "in_channels", "num_channels", "in_chans", default=3)
    if hasattr(config, "posemb_grid_size"):  # the patches of a token are one picture, its channels last
        width = patch * size_in(config, "spatial_merge_size", default=1)
        return torch.zeros(side * side, width, width, channels)
    if hasattr(config, "pos_emb_time"):  # each patch is one
        return torch.zeros(side * side, channels, patch, patch)
    frames = size_in(config, "temporal_patch_size", "patch_temporal", default=1)
    return torch.zeros(side * side, channels * frames * patch * patch)


def _grid_side(config: Any) -> int:
    return 2 * size_in(config, "spatial_merge_size", "pooling_kernel_size", default=1)


def grid(_model: Any, config: Any, _takes: Any) -> Any:
    """Frames, rows and columns of the patches."""
    import torch

    return torch.tensor([[1, _grid_side(config), _grid_side(config)]])


def patch_positions(_model: Any, config: Any, _takes: Any) -> Any:
    """The row and column of each patch."""
    import torch

    side = _grid_side(config)
    return torch.cartesian_prod(torch.arange(side), torch.arange(side))[None]
