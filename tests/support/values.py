"""Values whose types are wider than what a test gets."""

from typing import TypeVar

T = TypeVar("T")


def text(value: object) -> str:
    """Of the bytes that redis-py read; None is empty. Its types know no client without `decode_responses`."""
    assert value is None or isinstance(value, bytes)
    return value.decode() if value else ""


def there(value: T | None) -> T:
    """The value, which must not be None."""
    assert value is not None
    return value
