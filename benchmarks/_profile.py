"""What of a run's processor time goes to kernels that are not ours to write: torch's and oneDNN's."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

KERNELS = {
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "max-pooling": (  # models/_pooling.py does it with the rest of these
        *("aten::max_pool2d_with_indices", "aten::max_pool2d_with_indices_backward", "aten::maximum"),
        *("aten::bitwise_and", "aten::bitwise_and_", "aten::bitwise_xor", "aten::bitwise_right_shift_", "aten::neg"),
    ),
    "matrix products": ("aten::mm", "aten::addmm"),
    "rectifying": ("aten::clamp_min", "aten::clamp_min_", "aten::threshold_backward"),
}


def shares(run: Callable[[], object], times: int) -> dict[str, float]:
    """Each of KERNELS' part of `run`, with the memory it asks for, 0 to 1; one run to warm up, then `times`."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(times):
            run()
    events = record.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    return {
        name: sum(event.cpu_time_total for event in events if event.key in kernels) / whole
        for name, kernels in KERNELS.items()
    }
