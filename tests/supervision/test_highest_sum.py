"""The highest sum of several ranks: copies that a rank counts at a boundary were made before it."""

from pytest_llmmem.supervision.highest_sum import HighestSum


def test_without_copies_it_is_the_highest_sample() -> None:
    highest = HighestSum(2)

    for second, held in enumerate((5, 40, 10)):
        highest.add(held, (0, 0), second)

    assert highest.bytes == 40


def test_copies_of_ranks_that_ran_at_once_count_together_though_one_has_ended_before_the_other_counts() -> None:
    highest = HighestSum(2)
    highest.add(10, (0, 0), 1)
    highest.add(10, (30, 0), 2)  # the first rank counts its copies, and ends
    highest.add(0, (30, 0), 3)

    highest.add(0, (30, 30), 4)

    assert highest.bytes == 70


def test_copies_of_a_later_stretch_are_not_added_to_an_earlier_peak() -> None:
    highest = HighestSum(2)
    highest.add(100, (0, 0), 1)
    highest.add(1, (5, 5), 2)

    highest.add(1 + 20, (25, 5), 3)

    assert highest.bytes == 110


def test_copies_of_ranks_count_together_where_another_began_after_the_peak_of_the_first() -> None:
    highest = HighestSum(2)
    highest.add(11, (0, 0), 1)
    highest.add(10, (0, 1), 2)  # the second rank begins
    highest.add(10, (0, 1), 3)
    highest.add(0, (30, 1), 4)  # the first rank counts its copies, and is gone

    highest.add(0, (30, 31), 5)

    assert highest.bytes == 70
