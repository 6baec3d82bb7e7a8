"""Telling from Lance's messages that a file of a table is missing, truncated or changed."""

from __future__ import annotations

import re

_DAMAGED = re.compile(
    r"corrupt|invalid magic|not appear to be a lance file|parser error: .*(?:footer|root as)|protobuf|failed to decode"
    r"|invalid range \d|range (?:start|end) index|invalid seek|file size is too small|unexpected end|truncated"
    r"|before end of stream|not found: \S+\.(?:lance|arrow|bin|manifest|idx)",
    re.IGNORECASE,
)


def damaged(error: BaseException) -> bool:
    """Whether the error comes from a file that cannot be read as what it should be."""
    return _DAMAGED.search(str(error)) is not None


def panicked(error: BaseException) -> bool:
    """Whether Lance gave up: that is not even an `Exception`, or a RuntimeError from a thread in the background."""
    aborted = isinstance(error, RuntimeError) and "aborted" in str(error)
    return aborted or type(error).__name__ == "PanicException"
