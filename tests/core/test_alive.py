"""What holds memory, as one line between stacks."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.alive import alive_line, parse_alive
from pytest_llmmem.core.record_parts import AliveRecord

RECORDS = st.lists(
    st.builds(AliveRecord, name=st.text(min_size=1), count=st.none() | st.integers(1), bytes=st.integers(0)), max_size=4
).map(tuple)


@given(RECORDS, st.text())
def test_what_was_written_is_read_again_among_other_lines(records: tuple[AliveRecord, ...], before: str) -> None:
    dump = (
        f"{before.replace('Alive: ', '')}\nStack (most recent call first):\n{alive_line(records)}Fatal Python error\n"
    )

    assert parse_alive(dump) == records


def test_a_line_that_was_cut_off_says_nothing() -> None:
    line = alive_line([AliveRecord(name="Linear", count=1, bytes=4_000_000)])

    assert parse_alive(line[:-9]) == ()


def test_objects_are_counted_and_loose_tensors_are_not() -> None:
    words = [
        AliveRecord(name="Linear", count=2, bytes=8_400_000).words(),
        AliveRecord(name="gradients", count=None, bytes=4_200_000).words(),
    ]

    assert words == ["2 Linear 8.40 MB", "gradients 4.20 MB"]
