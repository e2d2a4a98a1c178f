"""The section under a failed test."""

MB = 10**6
