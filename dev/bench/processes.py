"""Programs that are measured or checked, each in a process group of its own: none of it is left over."""

import contextlib
import os
import signal
import subprocess


@contextlib.contextmanager
def group(command, **options):
    """subprocess.Popen of a new session; when left, by whatever way, all of its processes are killed. Signals wait
    until there is somebody to do so."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True,
                                   preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask), **options)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(command, seconds, **options):
    """subprocess.run with text output, limited to so many seconds (then subprocess.TimeoutExpired, with the output)."""
    with group(command, text=True, errors="backslashreplace", **options) as process:
        out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
