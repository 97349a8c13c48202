"""Work that only the first process does while the others wait, however long it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from eql_d2.engines.d2.compat import comm

# How often the waiting processes are told that there is something to wait for. Far below any
# time-out of a collective operation: NCCL's is 10 minutes unless set.
HEARTBEAT_SECONDS = 1.0

Result = TypeVar("Result")


def on_first_process(work: Callable[[], Result]) -> Result | None:
    """Return what ``work()`` returns on the first process, and None on the others.

    All processes call this, and it returns in all when the work is done. The others do not wait
    inside one collective operation, whose time-out would end them while the first one scores a
    large test set: the work runs in a thread, and meanwhile all processes exchange a word every
    :data:`HEARTBEAT_SECONDS`.

    Raises:
        Exception: on the first process, whatever ``work`` raised.
    """
    if comm.get_world_size() == 1:
        return work()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="on_first_process", daemon=True)
    if comm.is_main_process():
        thread.start()
    done = False
    while not done:
        if comm.is_main_process():
            thread.join(HEARTBEAT_SECONDS)
        done = comm.all_gather(comm.is_main_process() and not thread.is_alive())[0]
    if errors:
        raise errors[0]
    return results[0] if results else None
