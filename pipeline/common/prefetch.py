"""Making things in a thread of their own, ahead of whoever takes them."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], n: int) -> Iterator[Item]:
    """Make items in a thread of their own, up to ``n`` ahead of whoever takes them.

    Args:
        items: none of them is None.
        n: as many are kept waiting at most.
    """
    pool = ThreadPoolExecutor(1)
    try:
        coming: deque[Any] = deque(pool.submit(next, items, None) for _ in range(n))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
