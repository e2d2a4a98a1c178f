"""Tests that are shipped: the ready-made checks, and the test of ``llmmem try``."""
