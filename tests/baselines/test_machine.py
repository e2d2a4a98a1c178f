"""Machines that measure alike share a key, and the nearest one lends its baselines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.baselines.machine import machine_key, nearest

HERE = "linux-x86_64 torch2.13 transformers5.23 cpu"
ENVIRONMENT = {"platform": "linux", "machine": "x86_64", "torch": "2.13.0+cpu", "transformers": "5.23.0"}


def test_a_key_is_coarse():
    assert machine_key(ENVIRONMENT, []) == HERE
    assert machine_key(ENVIRONMENT | {"torch": "2.13.4", "kernel": "6.1", "host_bytes": 5}, ["cpu"]) == HERE


@pytest.mark.parametrize(
    ("environment", "devices", "key"),
    [
        ({}, ["cuda:0", "cuda:1"], "linux-x86_64 torch2.13 transformers5.23 cuda"),
        ({"torch": None, "transformers": None}, [], "linux-x86_64 cpu"),
        ({"transformers": None, "platform": "win32", "machine": "AMD64"}, [], "win32-AMD64 torch2.13 cpu"),
        ({"torch": "2.14.0a0+git1234"}, ["xpu:0", "cuda:0", "cpu"], "linux-x86_64 torch2.14 transformers5.23 cuda+xpu"),
    ],
)
def test_a_key_has_what_moves_a_peak(environment, devices, key):
    assert machine_key(ENVIRONMENT | environment, devices) == key


def test_the_very_key_is_not_borrowed():
    match = nearest(HERE, ["linux-x86_64 torch2.12 transformers5.23 cpu", HERE])

    assert match is not None
    assert (str(match), match.borrowed) == (HERE, False)


@pytest.mark.parametrize(
    ("keys", "chosen", "differences"),
    [
        (["linux-x86_64 torch2.9 transformers5.23 cpu", "linux-x86_64 torch2.12 transformers4.57 cpu"],
         "linux-x86_64 torch2.12 transformers4.57 cpu", "torch 2.12, here 2.13, transformers 4.57, here 5.23"),
        (["linux-x86_64 torch2.13 transformers4.57 cpu", "linux-x86_64 torch2.13 transformers5.9 cpu"],
         "linux-x86_64 torch2.13 transformers5.9 cpu", "transformers 5.9, here 5.23"),
        (["linux-aarch64 torch2.13 transformers5.23 cpu", "linux-x86_64 torch1.13 transformers5.23 cpu"],
         "linux-x86_64 torch1.13 transformers5.23 cpu", "torch 1.13, here 2.13"),
        (["linux-x86_64 torch1.13 transformers5.23 cpu", "linux-x86_64 torch2.40 transformers5.23 cpu"],
         "linux-x86_64 torch2.40 transformers5.23 cpu", "torch 2.40, here 2.13"),
        (["linux-aarch64 torch2.13 transformers5.23 cpu"],
         "linux-aarch64 torch2.13 transformers5.23 cpu", "machine aarch64, here x86_64"),
        (["linux-x86_64 torch2.13 cpu", "linux-x86_64 torch2.13 transformers1.0 cpu"],
         "linux-x86_64 torch2.13 transformers1.0 cpu", "transformers 1.0, here 5.23"),
        (["linux-x86_64 cpu"], "linux-x86_64 cpu", "torch none, here 2.13, transformers none, here 5.23"),
    ],
)  # fmt: skip
def test_the_nearest_lends_and_says_how_it_differs(keys, chosen, differences):
    match = nearest(HERE, keys)

    assert match is not None
    assert (match.key, match.differences) == (chosen, differences)
    assert str(match) == f"{chosen}, borrowed ({differences})"


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["darwin-x86_64 torch2.13 transformers5.23 cpu"],
        ["linux-x86_64 torch2.13 transformers5.23 cuda"],
        ["written by hand"],
    ],
)
def test_another_system_or_device_lends_nothing(keys):
    assert nearest(HERE, keys) is None


@given(st.permutations(["linux-x86_64 torch2.12 transformers5.23 cpu", "linux-x86_64 torch2.14 transformers5.23 cpu",
                        "linux-x86_64 torch3.0 transformers5.23 cpu", "linux-aarch64 torch2.13 transformers5.23 cpu"]))  # fmt: skip
def test_the_order_of_the_keys_does_not_matter(keys):
    assert nearest(HERE, keys) == nearest(HERE, sorted(keys))
