"""Limits follow the laws of arithmetic, and a breach says limit, then actual."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.terms import terms_of

TERMS = {
    **terms_of(weights=1000, shard=300, largest_layer=50, parameters=500),
    "host": 10_000,
    "ranks": 2,
    "share": 500,
}


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
        ("ranks * 3kB + share", 6500),
        ("2 * ranks * shard", 1200),
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
    ["", "8GBB", "weight", "weights +", "+ weights", "weights shard", "weights * weights", "weights + 2", "0GB", "-1GB", "ranks", "weights + ranks",
     "50% moon", "params", "params@float17", "8GB;", True, None, [], float("nan"), float("inf"), 0, 1.5, "8", "2 * 3"],
)  # fmt: skip
def test_a_bad_limit_is_refused_with_what_was_given(text: object) -> None:
    with pytest.raises(ValueError, match="is not a limit"):
        parse_limit(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "nothing"),
        ("weights +", "the end"),
        ("+ weights", "'+'"),
        ("weights + * shard", "'*'"),
        ("weights shard", "two values without '+' or '*' between them"),
        ("weights * shard", "bytes multiplied by bytes"),
        ("weights + 2", "a bare number in a sum; give it a unit"),
        ("weights; 8GB", "'; 8GB'"),
        ("weigths", "'weigths': did you mean 'weights'?"),
    ],
)
def test_a_bad_limit_is_refused_with_what_cannot_be_read(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not a limit (cannot read {what}): write a size")):
        parse_limit(text)


@given(st.text(alphabet="weightsard123.*+%@ GMBkhostpfl", max_size=20))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        parse_limit(text)
    except ValueError as error:
        assert "is not a limit" in str(error)  # noqa: PT017 -- any other exception is the failure


@pytest.mark.parametrize(
    ("budget", "limit_bytes", "actual_bytes", "sentence"),
    [
        ({"limit": "1.1 * weights + 200MiB"}, 300 * 2**20, 412 * 2**20,
         "max_ram is 300 MiB (1.1 * weights + 200MiB), used 412 MiB unreclaimable: 112 MiB over"),
        ({"limit": "2GB"}, 2 * 10**9, 2_002_900_000, "max_ram is 2.0000 GB, used 2.0029 GB unreclaimable: 0.0029 GB over"),
        ({"limit": "2GB"}, 2 * 10**9, 1_480_000_000, "max_ram is 2.00 GB, used 1.48 GB unreclaimable: 0.52 GB left"),
        ({"limit": "1GB + 200MB", "count": "resident"}, 1_200_000_000, 2 * 10**9,
         "max_ram is 1.20 GB (1GB + 200MB), used 2.00 GB resident: 0.80 GB over"),
        ({"limit": 8 * 10**9}, 8 * 10**9, 9 * 10**9, "max_ram is 8.00 GB, used 9.00 GB unreclaimable: 1.00 GB over"),
        ({"limit": "50 MB", "kind": "memory_budget", "name": "decode"}, 50_000_000, 80_000_000,
         "memory_budget is 50.0 MB, used 80.0 MB unreclaimable in 'decode': 30.0 MB over"),
        ({"limit": "80% device", "kind": "max_vram", "count": "device", "device": "cuda:0"}, 4_800_000_000, 5 * 10**9,
         "max_vram is 4.80 GB (80% device), used 5.00 GB by the driver on cuda:0: 0.20 GB over"),
        ({"limit": "20MB", "kind": "max_disk", "count": "written"}, 20_000_000, 30_000_000,
         "max_disk is 20.0 MB, wrote 30.0 MB: 10.0 MB over"),
        ({"limit": "1MB", "kind": "keeps", "name": "decode"}, 1_000_000, 3_000_000,
         "keeps is 1.00 MB, kept 3.00 MB in 'decode': 2.00 MB over"),
        ({"limit": "100kB", "kind": "max_growth"}, 100_000, 20_000, "max_growth is 100.0 kB, grew by 20.0 kB a call: 80.0 kB left"),
        ({"limit": "1GB", "rank": 3}, 10**9, 2 * 10**9, "max_ram is 1.00 GB, used 2.00 GB unreclaimable in rank 3: 1.00 GB over"),
    ],
)  # fmt: skip
def test_a_budget_beside_what_was_used_is_one_sentence_in_the_users_unit(
    budget: dict[str, Any], limit_bytes: int, actual_bytes: int, sentence: str
) -> None:
    parsed = {"kind": "max_ram", **budget, "limit": parse_limit(budget["limit"])}
    verdict = Budget(limit_bytes=limit_bytes, **parsed).judge(actual_bytes)

    assert verdict.sentence == sentence
    assert verdict.held is sentence.endswith("left")


def test_a_budget_whose_limit_refused_more_is_broken_however_little_was_used() -> None:
    verdict = Budget(kind="max_ram", limit=parse_limit("2GB"), limit_bytes=2 * 10**9).judge(1_480_000_000)

    refused = verdict.refused("rlimit")

    assert (verdict.held, refused.held) == (True, False)
    assert refused.sentence == f"{verdict.sentence}; enforce='rlimit' refused more"


def test_a_limit_is_held_at_exactly_its_size() -> None:
    limit = parse_limit("1kB")

    budget = Budget(kind="max_ram", limit=limit, limit_bytes=1000)

    assert budget.judge(1000).held
    assert not budget.judge(1001).held
