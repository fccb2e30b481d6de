"""How benches measure: the median of several runs after one that does not count, compilation excluded."""

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repeats: int) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(repeats))
