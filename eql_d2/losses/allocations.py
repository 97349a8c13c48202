"""How much memory a computation takes, counted where PyTorch allocates it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that ``run()`` has allocated at most at once, beyond those allocated before it.

    On CUDA the allocator counts them. On a CPU the profiler records each allocation and release of
    PyTorch's allocator, those inside operators and compiled code too; scratch memory that math
    libraries take by themselves is in neither.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        run()
    now = peak = 0
    for size in _allocations(profiler):
        now += size
        peak = max(peak, now)
    return peak


def _allocations(profiler: torch.profiler.profile) -> Iterator[int]:
    """Bytes allocated (positive) and released (negative), in the order of time."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    for event in sorted(memory, key=lambda event: event["ts"]):
        yield int(event["args"]["Bytes"])
