"""What scripts that compare Lifeboat with other tools share: running pipelines, and what a round begins with."""
import collections
import contextlib
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
FRESH_PAGES = 6_000_000_000
# Settings of the caller that would change what the tools do.
UNWANTED = ("ZSTD_CLEVEL", "ZSTD_NBTHREADS", "PIGZ", "TAR_OPTIONS", "POSIXLY_CORRECT")

# What one run of a pipeline took. `peak` is that of its largest process, `peak_sum` of all together, in bytes.
Figures = collections.namedtuple("Figures", "wall cpu peak peak_sum size", defaults=(0,))


class Failure(Exception):
    """A command failed, or what it made is wrong."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def environment():
    kept = {k: v for k, v in os.environ.items() if k not in UNWANTED and not k.startswith("LIFEBOAT_")}
    return kept | {"LC_ALL": "C"}


def shown(pipeline, stdout=None):
    return " | ".join(map(shlex.join, pipeline)) + (f" > {shlex.quote(stdout)}" if stdout else "")


def measure(pipeline, stdout=None, sync=None):
    """Runs a pipeline, and after it `sync` within the same time. Fails if any of its processes does."""
    began = time.monotonic()
    usages = run(pipeline, stdout)
    if sync:
        usages += run([sync])
    wall = time.monotonic() - began
    peaks = [usage.ru_maxrss * 1024 for usage in usages]
    return Figures(wall, sum(u.ru_utime + u.ru_stime for u in usages), max(peaks), sum(peaks))


def run(pipeline, stdout=None):
    """Runs a pipeline to its end; returns each process's resource usage."""
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        last = stack.enter_context(open(stdout or os.devnull, "wb"))
        started = start(pipeline, last, errors)
        statuses, usages = [], []
        try:
            for process in started:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                statuses.append(process.returncode)
                usages.append(usage)
        finally:
            for process in started:
                if process.returncode is None:
                    process.kill()
                    process.wait()
        if any(statuses):
            errors.seek(0)
            text = errors.read()[-2000:].decode(errors="replace").strip()
            raise Failure(f"exit status {statuses} of: {shown(pipeline, stdout)}\n{text}")
        return usages


def start(pipeline, last, errors):
    started, source = [], subprocess.DEVNULL
    for command in pipeline:
        target = last if command is pipeline[-1] else subprocess.PIPE
        try:
            process = subprocess.Popen(command, stdin=source, stdout=target, stderr=errors, env=environment())
        except OSError as error:
            raise Failure(f"cannot run {command[0]}: {error}") from error
        finally:
            if source is not subprocess.DEVNULL:
                source.close()
        started.append(process)
        source = process.stdout
    return started


def output_of(*command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(), check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"{shlex.join(command)}: {error}") from error
    return done.stdout.decode(errors="replace").strip()


def available_memory():
    with open("/proc/meminfo", encoding="ascii") as text:
        fields = dict(line.split(":", 1) for line in text)
    return int(fields["MemAvailable"].split()[0]) * 1024


def filesystem(path):
    return output_of("df", "--output=fstype", path).split()[-1]


def renew_pages(directory, size=FRESH_PAGES):
    """Writes and removes that much of a tmpfs: a page the machine has not used of late, or a virtual machine has
    given back to its host, costs more than the work that is measured, and would be the loss of whoever comes first."""
    if filesystem(directory) != "tmpfs":
        return
    room = os.statvfs(directory)
    left = min(size, available_memory() // 2, room.f_bavail * room.f_frsize // 2)
    block = bytes(MIB)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as out:
        while left >= MIB:
            left -= out.write(block)


def warm(root):
    """Reads all of the source once, so that every tool finds it in memory."""
    buffer = bytearray(MIB)
    for directory, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(directory, name), "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def floor():
    """A child's peak begins with its parent's: nothing smaller can be seen."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
