"""PyTorch's environment on the CPU: what a process is started with decides up to half of its speed."""

import os
import pathlib

import torch_venv


def cpu_flags():
    with open("/proc/cpuinfo") as cpuinfo:
        return next((line.split() for line in cpuinfo if line.startswith("flags")), [])


def cpu_name():
    with open("/proc/cpuinfo") as cpuinfo:
        return next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "CPU")


def physical_cores():
    seen = set()
    for cpu in os.sched_getaffinity(0):
        try:
            seen.add(pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            return len(os.sched_getaffinity(0))
    return len(seen)


def axes_of(threads):
    """Axes of PyTorch's environment: {axis: {choice: variables}}; the first choice of each is the default."""
    mkl, allocators = {"auto": {}}, {"auto": {}}
    if "avx512f" in cpu_flags() and "Intel" not in cpu_name() and torch_venv.mkl_answer():
        mkl["avx512"] = {"LD_PRELOAD": torch_venv.mkl_answer()}
    keep = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 36)}
    huge = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    allocators |= {"keep": keep, "keep, huge pages": {**keep, **huge}}
    for name in ("tcmalloc", "jemalloc"):
        for library in sorted(pathlib.Path("/usr/lib").glob(f"*/lib{name}*.so.?"))[:1]:
            allocators[name] = {"LD_PRELOAD": str(library)}
    counts = {str(threads): {}}
    if physical_cores() < threads:
        counts[str(physical_cores())] = {"OMP_NUM_THREADS": str(physical_cores())}
    return {"threads": counts, "mkl": mkl, "allocator": allocators,
            "waiting": {"auto": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}}


def default_choice(axes):
    return {axis: next(iter(names)) for axis, names in axes.items()}


def environment_of(axes, choice, threads):
    """This process's environment for a {axis: name}, without what is set by hand here of the same kinds."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "LD_", "ATEN_"))}
    env["OMP_NUM_THREADS"] = str(threads)
    for axis, names in axes.items():
        added = dict(names[choice[axis]])
        if "LD_PRELOAD" in added and "LD_PRELOAD" in env:
            added["LD_PRELOAD"] += ":" + env["LD_PRELOAD"]
        env.update(added)
    return env
