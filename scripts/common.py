"""What the Python scripts beside it share: names of files as bytes, errors in one line, files that are whole or not
there, and a lock that a crash cannot leave behind. Standard library only."""

import argparse
import contextlib
import errno
import fcntl
import os
import signal
import socket
import sys
import tempfile


def shown(name):
    """A path or other text for people: bytes that are not UTF-8, and what is not printable, as \\xff and \\n."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text):
    print(f"{program()}: {shown(text)}", file=sys.stderr, flush=True)


def program():
    return os.path.splitext(os.path.basename(sys.argv[0]))[0]


def fail(code, text):
    """Ends the script: 1 where something went wrong, 2 where something wrong was asked for."""
    say(text)
    sys.exit(code)


def reason_of(error):
    """An OSError's, with its file."""
    reason = error.strerror or str(error)
    return f"{shown(error.filename)}: {reason}" if error.filename is not None else f"cannot write the output: {reason}"


class Parser(argparse.ArgumentParser):
    def error(self, message):
        fail(2, f"{message}; see {os.path.basename(sys.argv[0])} --help")


def run(main):
    """Calls main() and exits with what it returns (None: 0). What the system refuses is one line and exit code 1; a
    reader of the output that has seen enough (`| head`) is none of our concern."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # A locale may have no letter for it.
    try:
        code = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:
        code = 1
    except OSError as error:
        say(reason_of(error))
        code = 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if code and sys.stdout is not None:  # Python flushes again at its end, and must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def sync(path):
    """Brings a file or folder to the disk. Not every file system can do that with a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replaced(path):
    """A temporary name beside `path`, for a file to be written to; it takes the path's place when all went well."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".tmp-",
                                             suffix=os.path.splitext(path)[1])
    os.close(descriptor)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp() makes files for their owner alone.
        sync(temporary)
        os.replace(temporary, path)
        sync(os.path.dirname(path) or ".")
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write(path, text):
    """A text file, whole or not at all."""
    with replaced(path) as temporary, open(temporary, "wb") as file:
        file.write(os.fsencode(text))


def read(path):
    """A text file, byte for byte, with \\n for the end of a line only; "" where it is not there."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read())
    except FileNotFoundError:
        return ""


class Lock:
    """flock() on a small file that says whose it is. The system frees it however the holder ends."""

    def __init__(self, path):
        self.path, self.descriptor = path, None

    def take(self):
        """None, or who has it: "process 123 on host". A file system without locks locks nothing."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.fsdecode(os.pread(descriptor, 200, 0)).strip()
                os.close(descriptor)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    return None
                return f"process {holder}" if holder.isdigit() else holder or "another process"
            if self._is_there(descriptor):
                break
            os.close(descriptor)  # A holder that ended has removed it.
        self.descriptor = descriptor
        with contextlib.suppress(OSError):  # A full disk is no reason not to have the lock.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        return None

    def release(self):
        if self.descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        os.close(self.descriptor)
        self.descriptor = None

    def _is_there(self, descriptor):
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        return False
