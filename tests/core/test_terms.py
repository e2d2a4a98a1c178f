"""Values of a limit's terms, and what is said of one that nobody knows."""

import pytest

from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.terms import Terms, terms_of, train_terms_of

MODEL = terms_of(weights=1001, shard=300, largest_layer=50, parameters=500, adapter=7)
STEPS = train_terms_of(trainable=100, trainable_bytes=400, gradients=200, optimizer=800, activations=3000)


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        ("50% host", 500_000),
        ("25% device", 20_000),
        ("weights + adapter", 1008),
        ("share", 501),
        ("2 * ranks * shard", 1200),
        ("gradients + optimizer", 1000),
        ("trainable + trainable@float16", 600),
        ("params@nf4", 250),
    ],
)
def test_a_limit_is_worked_out_from_all_that_is_known(limit: str, size: int) -> None:
    terms = Terms(host_bytes=10**6, device_bytes=80_000, model=MODEL, steps=STEPS, ranks=2)

    assert terms.bytes(parse_limit(limit)) == size


@pytest.mark.parametrize(
    ("limit", "terms", "error"),
    [
        (
            "50% device",
            Terms(host_bytes=1),
            "'50% device' is a share of a GPU: for memory of the host write '50% host'",
        ),
        (
            "2 * weights",
            Terms(host_bytes=1),
            "'2 * weights' is in terms of a checkpoint, and this test has none: let it",
        ),
        (
            "optimizer",
            Terms(host_bytes=1, model=MODEL),
            "'optimizer' is in terms of a step: write it in max_ram or max_vram, or write a size here",
        ),
        (
            "kv_cache",
            Terms(host_bytes=1, model=MODEL, steps=STEPS),
            "'kv_cache' is in terms of a step, and nothing says what 'kv_cache' is: mark the test with llm_generate",
        ),
    ],
)
def test_a_term_that_is_not_known_is_refused_with_the_fix(limit: str, terms: Terms, error: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 -- the text is compared
        terms.bytes(parse_limit(limit))

    assert str(raised.value).startswith(error)
