"""Limits follow the laws of arithmetic, and a breach says limit, then actual."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.budgets import Budget, Verdict, parse_limit, terms_of

TERMS = {**terms_of(weights=1000, shard=300, largest_layer=50, parameters=500), "host": 10_000}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GB", 8 * 10**9),
        (8_000_000_000, 8 * 10**9),
        (8e9, 8 * 10**9),
        ("weights + shard", 1300),
        ("1.1 * weights + shard + 1kB", 2400),
        ("weights*2", 2000),
        ("2 * 3 * shard", 1800),
        ("params@float16", 1000),
        ("params@nf4 + largest_layer", 300),
        ("50% host", 5000),
        ("12.5 % host + 1kB", 2250),
    ],
)
def test_a_limit_is_worth_so_many_bytes(text: object, expected: int) -> None:
    assert parse_limit(text).bytes(TERMS) == expected


@given(factors=st.lists(st.tuples(st.integers(1, 99), st.sampled_from(["weights", "shard", "kB"])), min_size=1))
def test_a_sum_is_the_sum_of_its_products_in_any_order(factors: list[tuple[int, str]]) -> None:
    parts = [f"{n}kB" if term == "kB" else f"{n} * {term}" for n, term in factors]
    expected = sum(n * (1000 if term == "kB" else TERMS[term]) for n, term in factors)

    assert parse_limit(" + ".join(parts)).bytes(TERMS) == expected
    assert parse_limit("+".join(reversed(parts))).bytes(TERMS) == expected


@pytest.mark.parametrize(
    "text",
    ["", "8GBB", "weight", "weights +", "+ weights", "weights shard", "weights * weights", "weights + 2", "0GB", "-1GB",
     "50% moon", "params", "params@float17", "8GB;", True, None, [], float("nan"), float("inf"), 0, 1.5, "8", "2 * 3"],
)  # fmt: skip
def test_a_bad_limit_is_refused_with_what_was_given(text: object) -> None:
    with pytest.raises(ValueError, match="is not a limit"):
        parse_limit(text)


@given(st.text(alphabet="weightsard123.*+%@ GMBkhostpfl", max_size=20))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        parse_limit(text)
    except ValueError as error:
        assert "is not a limit" in str(error)  # noqa: PT017 -- any other exception is the failure


def test_a_breach_is_one_sentence_in_the_users_unit() -> None:
    limit = parse_limit("1.1 * weights + 200MiB")
    verdict = Verdict(budget=Budget(kind="max_ram", limit=limit, limit_bytes=300 * 2**20), actual_bytes=412 * 2**20)

    assert not verdict.held
    assert verdict.sentence() == (
        "max_ram is 300 MiB (1.1 * weights + 200MiB), used 412 MiB unreclaimable: 112 MiB over"
    )


def test_a_limit_is_held_at_exactly_its_size() -> None:
    limit = parse_limit("1kB")

    assert Verdict(budget=Budget(kind="max_ram", limit=limit, limit_bytes=1000), actual_bytes=1000).held
    assert not Verdict(budget=Budget(kind="max_ram", limit=limit, limit_bytes=1000), actual_bytes=1001).held
