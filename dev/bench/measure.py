"""What both sides of cpu_vs_torch.py share: when a measurement is long enough, and how memory is read."""


def enough(step_ms, rule):
    """Whether to stop: after `warmup` steps, `min_steps` and `min_seconds` of them, or three and `max_seconds`."""
    measured = step_ms[rule["warmup"]:]
    seconds = sum(measured) / 1e3
    return (len(measured) >= rule["min_steps"] and seconds >= rule["min_seconds"]) or (
        len(measured) >= 3 and seconds >= rule["max_seconds"])


def peak_bytes(pid="self"):
    """Most memory a living process has ever had resident."""
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
