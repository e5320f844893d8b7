"""The parts of `benchmarks.gpu` that train: rows of the table, and a profile."""

from typing import Any

import torch
from torch.autograd import DeviceType

from benchmarks.gpu_training import Pace, Profiled, Setting, train
from tailmatch.callbacks import CompiledBackbone

PROFILE_HEADER = "| the five largest rows | ms a step | share | calls a step |\n|---|---:|---:|---:|"


def row(name: str, method: str, setting: Setting, *, tf32: bool = True, warm_up: int = 20, **options: Any) -> str:
    """Measure a training, and return a row of the table; one that fails says why."""
    on_gpu = setting.device == "cuda"
    pace = Pace(setting.seconds, warm_up if on_gpu else 2, tf32)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    callbacks = options.pop("callbacks", [])
    try:
        images = train(method, setting, pace, *callbacks, **options)
    except Exception as error:
        return f"| {method} | {name} | failed: {' '.join(str(error).split())[:150]} |"
    busy = "" if pace.busy is None else f"{pace.busy:.0%}"
    memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if on_gpu else ""
    hours = " | ".join(f"{pace.step * steps / 3600:,.1f}" for steps in (1 << 20, 250_000))
    return f"| {method} | {name} | {1e3 * pace.step:,.2f} | {images / pace.step:,.0f} | {busy} | {memory} | {hours} |"


PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {"tf32": False},
    "TF32": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "16-mixed": {"precision": "16-mixed"},
}


def rows(method: str, precisions: list[str], setting: Setting) -> None:
    """Print a row for each precision."""
    for name in precisions:
        print(row(name, method, setting, **PRECISIONS[name]), flush=True)


def compiled(setting: Setting) -> None:
    """Print rows with a compiled backbone."""
    backend = "inductor" if setting.device == "cuda" else "eager"  # to try the program
    for name in ("TF32", "bf16-mixed"):
        callbacks = [CompiledBackbone(backend=backend)]
        print(row(f"{name}, compiled", "FixMatch", setting, callbacks=callbacks, **PRECISIONS[name]), flush=True)


def one_process_ddp(setting: Setting) -> None:
    """Print a row of data-parallel training with one process, over NCCL on a GPU."""
    backend = "NCCL" if setting.device == "cuda" else "Gloo"
    print(row(f"TF32, DDP of one process over {backend}", "FixMatch", setting, strategy="ddp"), flush=True)


def profiled(setting: Setting) -> None:
    """Print the five rows of a profile that take the most time of the device, and its launches."""
    on_gpu = setting.device == "cuda"
    pace = Profiled(min(setting.seconds, 2), 20 if on_gpu else 2, tf32=True)
    train("FixMatch", setting, pace)
    steps, events = pace.steps - pace.warm_up, pace.profiler.key_averages()
    launches = sum(event.count for event in events if "LaunchKernel" in event.key) / steps
    if on_gpu:  # kernels, without the operations that launched them
        events = [each for each in events if each.device_type == DeviceType.CUDA and not each.is_user_annotation]

    def taken(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3 / steps

    total = sum(map(taken, events))
    taken_in_all = f"{1e3 * pace.step:.1f} ms a step, in which the device computes for {total:.1f} ms"
    print(f"FixMatch, TF32, profiled: {taken_in_all}; {launches:,.0f} launches a step\n\n{PROFILE_HEADER}")
    for event in sorted(events, key=taken, reverse=True)[:5]:
        name = " ".join(event.key.split())[:80].replace("|", "/")
        print(f"| {name} | {taken(event):.2f} | {taken(event) / total:.0%} | {event.count / steps:.1f} |")
