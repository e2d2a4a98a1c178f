"""Checkpoints that several tests need."""

from pathlib import Path

import pytest

from pytest_llmmem.models.sources.source import parse_source, resolve


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A checkpoint in safetensors, five shards."""
    return resolve(parse_source("synthetic:tiny-llama?shard=100kB", base=tmp_path), cache=tmp_path / "synthetic")


@pytest.fixture
def tiny_bin_folder(tmp_path: Path) -> Path:
    """A checkpoint in one .bin file."""
    return resolve(parse_source("synthetic:tiny-llama?format=bin", base=tmp_path), cache=tmp_path / "synthetic")
