"""What is said where a library is missing."""

from __future__ import annotations


def missing(
    error: ModuleNotFoundError, adapter: str, remedy: str = "run: pip install 'metta[peers]'"
) -> ImportError:
    """The error to raise in place of one that says only what could not be imported.

    Args:
        error: what the import raised.
        adapter: name of the adapter's library, as people write it.
        remedy: what to do about it.
    """
    return ImportError(f"the {adapter} adapter needs {error.name}, which is not installed; {remedy}")
