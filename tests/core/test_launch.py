"""Ranks of a launch: told from the environment that a launcher sets, and set in the same words for our own."""

from pathlib import Path

import pytest

from pytest_llmmem.core.launch import Rank, rank_in_launch, rank_of

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}


@pytest.mark.parametrize(
    ("environment", "rank"),
    [(TORCHRUN, 3), ({}, None), ({"RANK": "3"}, None), ({**TORCHRUN, "RANK": "first"}, None)],
    ids=["torchrun", "alone", "a rank of nothing", "no number"],
)
def test_a_session_is_a_rank_where_a_launcher_says_so(environment: dict[str, str], rank: int | None) -> None:
    assert rank_of(environment) == rank


def test_a_child_is_a_rank_of_its_own_launch_and_not_of_the_sessions() -> None:
    assert rank_in_launch(TORCHRUN, {}) == 3
    assert rank_in_launch(TORCHRUN, TORCHRUN) is None
    assert rank_in_launch({**TORCHRUN, "RANK": "0"}, TORCHRUN) == 0
    assert rank_in_launch({}, {}) is None


def test_a_rank_of_ours_knows_what_torchrun_would_tell_it(tmp_path: Path) -> None:
    ranks = [Rank(number=number, count=2, folder=tmp_path, port=12345) for number in range(2)]

    assert [rank_of(rank.environment) for rank in ranks] == [0, 1]
    assert ranks[1].environment == {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "12345",
    }


def test_ranks_share_a_store_and_leave_their_files_apart(tmp_path: Path) -> None:
    first, second = (Rank(number=number, count=2, folder=tmp_path, port=1) for number in range(2))

    assert first.store == second.store == tmp_path / "store"
    assert (first.files, second.files) == (tmp_path / "0", tmp_path / "1")
