"""Prefetch: an iterator that runs ahead in a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], n: int) -> Iterator[Item]:
    """Yield items, none of them None, that a thread makes up to ``n`` ahead."""
    pool = ThreadPoolExecutor(1)
    try:
        pending: deque[Any] = deque(pool.submit(next, items, None) for _ in range(n))
        while (item := pending.popleft().result()) is not None:
            pending.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
