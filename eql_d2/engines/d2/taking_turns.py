"""Work that only the first process does while the others wait, however long it takes."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from eql_d2.engines.d2.compat import comm
from eql_d2.errors import UserError

# How often the waiting processes are told that there is something to wait for. Far below any
# time-out of a collective operation: NCCL's is 10 minutes unless set.
HEARTBEAT_SECONDS = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Word:
    """What the first process tells the others: that it is done, and what made it fail, if so.

    A fault of ours comes with its traceback: the process that has it may be ended before it is
    shown, as soon as another one fails.
    """

    done: bool
    mistake: str = ""
    fault: str = ""

    def raise_failure(self) -> None:
        """End this process too: it would wait for the first in the next collective operation."""
        if self.mistake:
            raise UserError(self.mistake)
        if self.fault:
            raise RuntimeError(f"the first process failed:\n{self.fault}")


def on_first_process(work: Callable[[], Result]) -> Result | None:
    """Return what ``work()`` returns on the first process, and None on the others.

    All processes call this, and it returns in all when the work is done. The others do not wait
    inside one collective operation, whose time-out would end them while the first one scores a
    large test set: the work runs in a thread, and meanwhile all processes exchange a word every
    :data:`HEARTBEAT_SECONDS`.

    Raises:
        Exception: on the first process, whatever ``work`` raised.
        UserError: on the others, with the same message, if that was one.
        RuntimeError: on the others, with the traceback, if that was anything else.
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
    word = _Word(done=False)
    while not word.done:
        if comm.is_main_process():
            thread.join(HEARTBEAT_SECONDS)
            word = _word(errors) if not thread.is_alive() else word
        word = comm.all_gather(word)[0]
    if errors:
        raise errors[0]
    word.raise_failure()
    return results[0] if results else None


def _word(errors: list[BaseException]) -> _Word:
    """The last word, from what ``work`` raised, if anything."""
    if not errors:
        return _Word(done=True)
    if isinstance(errors[0], UserError):
        return _Word(done=True, mistake=str(errors[0]) or type(errors[0]).__name__)
    return _Word(done=True, fault="".join(traceback.format_exception(errors[0])))
