"""``.bin`` files: read without torch, written with holes, and never trusted."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.tensors import BY_STORAGE, Tensor, tensor
from pytest_llmmem.models.checkpoints.torch_file import read_header, write_holes

DTYPES_IN_BIN = sorted(dtype.name for dtype in BY_STORAGE.values())
TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.tuples(st.sampled_from(DTYPES_IN_BIN), st.lists(st.integers(0, 10**6), max_size=3).map(tuple)),
)


def zip_with(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return path


@given(TENSORS)
def test_what_is_pickled_is_read_again_even_when_it_is_huge(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    from pytest_llmmem.models.checkpoints.torch_file import pickled

    tensors = tuple(tensor(name, *rest) for name, rest in named.items())

    path = zip_with(tmp_path_factory.mktemp("round") / "pytorch_model.bin", pickled(tensors))

    assert read_header(path).tensors == tensors


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_the_holes_as_zeros(tmp_path: Path, mmap: bool) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "pytorch_model.bin"
    tensors = [tensor("half", "float16", (3, 4)), tensor("scalar", "float32", ()), tensor("ints", "int64", (5,))]
    write_holes(path, tensors)

    loaded = torch.load(path, weights_only=True, mmap=mmap)

    assert {name: (value.dtype, tuple(value.shape)) for name, value in loaded.items()} == {
        each.name: (getattr(torch, each.dtype), each.shape) for each in tensors
    }
    assert not any(value.any() for value in loaded.values())
    assert all(value.is_contiguous() for value in loaded.values())


def test_a_file_of_more_than_4_gigabytes_has_a_directory_that_is_found(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    tensors = (tensor("large", "float32", (1500, 10**6)), tensor("after", "float32", (2,)))

    write_holes(path, tensors)

    assert read_header(path).tensors == tensors
    assert [info.file_size for info in zipfile.ZipFile(path).infolist() if "/data/" in info.filename] == [6 * 10**9, 8]


def test_a_state_dict_that_torch_saved_is_read_without_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2).half()
    torch.save(layer.state_dict(), tmp_path / "pytorch_model.bin")

    read = read_header(tmp_path / "pytorch_model.bin").tensors

    assert read == (
        Tensor(name="weight", dtype="float16", shape=(2, 3), nbytes=12),
        Tensor(name="bias", dtype="float16", shape=(2,), nbytes=4),
    )


def test_tied_weights_count_once_under_their_first_name(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    embedding = torch.nn.Parameter(torch.zeros(4, 2))
    torch.save({"embed": embedding, "head": embedding, "row": embedding[1]}, tmp_path / "pytorch_model.bin")

    read = read_header(tmp_path / "pytorch_model.bin").tensors

    assert [each.name for each in read] == ["embed", "row"]


def test_a_truncated_file_has_no_directory_to_read(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    write_holes(path, [tensor("a", "float32", (1000,))])
    with path.open("r+b") as file:
        file.truncate(2000)

    header = read_header(path)

    assert (header.tensors, header.truncated, header.file_bytes) == ((), True, 2000)


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("echo pwned",)


@pytest.mark.parametrize(
    ("pickled", "why"),
    [
        (pickle.dumps({"a": Evil()}), r"holds more than tensors \(it asks for \w+\.system\)"),
        (pickle.dumps([1, 2]), "holds a list"),
        (b"\x80\x02garbage", "holds more than tensors"),
    ],
    ids=["code", "list", "garbage"],
)
def test_a_pickle_of_anything_but_tensors_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], pickled: bytes, why: str
) -> None:
    path = zip_with(tmp_path / "pytorch_model.bin", pickled)

    with pytest.raises(CheckpointError, match=why):
        read_header(path)

    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no zip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "its pickle is damaged"),
    ],
    ids=["empty", "git-lfs", "legacy"],
)
def test_a_file_that_is_no_torch_zip_is_refused_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=why):
        read_header(path)
