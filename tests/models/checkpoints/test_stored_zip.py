"""Zip files: one entry read, however damaged the file is."""

import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.bounds import TooMuch
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.stored_zip import StoredZipWriter, read_entry

deterministic = settings(derandomize=True, max_examples=300)


def entry_of(path: Path, *, limit: int = 1000) -> bytes | None:
    with RegularFile(path) as file:
        return read_entry(file, b"/data.pkl", limit=limit)


def zipped(path: Path, *, comment: bytes = b"", method: int = zipfile.ZIP_STORED, before: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for number in range(before):
            archive.writestr(f"archive/data/{number}", b"numbers")
        archive.writestr("archive/data.pkl", b"content" * 20)
        archive.comment = comment
    return path


@pytest.mark.parametrize("comment", [b"", b"x" * 65_535, b"PK\x05\x06"])
def test_an_entry_is_found_beside_others_and_before_a_comment(tmp_path: Path, comment: bytes) -> None:
    assert (
        entry_of(zipped(tmp_path / "zip", comment=comment if comment != b"PK\x05\x06" else b"P", before=20))
        == b"content" * 20
    )


def test_an_entry_of_a_file_with_holes_of_gigabytes_is_found(tmp_path: Path) -> None:
    with (tmp_path / "zip").open("wb") as file:
        archive = StoredZipWriter(file)
        archive.add_hole("archive/data/0", 5 * 10**9)
        archive.add("archive/data.pkl", b"content")
        archive.close()

    assert entry_of(tmp_path / "zip") == b"content"


def test_without_its_end_there_is_no_directory(tmp_path: Path) -> None:
    path = zipped(tmp_path / "zip")
    path.write_bytes(path.read_bytes()[:-10])

    assert entry_of(path) is None


def test_what_is_compressed_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its data\.pkl is compressed"):
        entry_of(zipped(tmp_path / "zip", method=zipfile.ZIP_DEFLATED))


def test_an_entry_behind_a_thousand_others_is_not_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it has no data\.pkl among its first entries"):
        entry_of(zipped(tmp_path / "zip", before=1000))


def test_an_entry_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(TooMuch, match=r"a data\.pkl of 140 bytes"):
        entry_of(zipped(tmp_path / "zip"), limit=139)


def test_a_changed_entry_is_told_by_its_checksum(tmp_path: Path) -> None:
    path = zipped(tmp_path / "zip")
    path.write_bytes(path.read_bytes().replace(b"content", b"contend", 1))

    with pytest.raises(ValueError, match="its zip is damaged"):
        entry_of(path)


@deterministic
@given(st.data())
def test_any_damage_is_an_entry_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    with path.open("wb") as file:
        archive = StoredZipWriter(file)
        archive.add("archive/data.pkl", b"content")
        archive.add_hole("archive/data/0", 100)
        archive.close()
    whole = path.read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole)))
        new = data.draw(st.binary(max_size=4) | st.sampled_from([b"\xff" * 4, b"\xff" * 8, struct.pack("<Q", 2**63)]))
        whole = whole[:at] + new + whole[at + data.draw(st.sampled_from([0, len(new)])) :]
    path.write_bytes(whole)

    try:
        found = entry_of(path)
    except (ValueError, CheckpointError):
        return
    assert found in {None, b"content", b""}
