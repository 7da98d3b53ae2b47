"""What the lab's machines share: a process whose output is streamed, its end judged, its results unpacked."""

import ctypes
import os
import signal
import subprocess
import tarfile
import threading
import time

# No self-tests of ciphers at each start: they are more than half of the kernel's boot where all is emulated.
COMMAND_LINE = "console=ttyS0 panic=-1 quiet tsc=reliable no_timer_check cryptomgr.notests"
STREAMS = ("stdout", "stderr", "control")
# Seconds that a line may take from the lab to us on a busy host.
LATE = 2


class Outcome:
    """The program's status, or why there is none (`lost`, with the status that scripts/lab then ends with)."""

    def __init__(self, status, lost=None):
        self.status, self.lost = status, lost


class Machine:
    """A machine of one run. A vendor's class has `name`, the emulator's, and `start`."""

    name = None
    host_time = True  # the lab's clock goes as the host's

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.console = os.path.join(directory, "console")
        self.results = os.path.join(directory, "results.tar")

    def start(self, streams):
        """Starts the emulator, which writes what the lab says to these descriptors. Returns the process."""
        raise NotImplementedError

    def run(self):
        for file in (self.console, self.results):
            open(file, "wb").close()
        streams = {name: os.pipe() for name in STREAMS}
        begin = time.monotonic()
        process = self.start({name: ends[1] for name, ends in streams.items()})
        for ends in streams.values():
            os.close(ends[1])
        control = Control(streams["control"][0])
        threads = [control] + [threading.Thread(target=copy, args=(streams[name][0], fd), daemon=True) for name, fd in (("stdout", 1), ("stderr", 2))]
        for thread in threads:
            thread.start()
        try:
            lost = self._wait(process, control, begin)
        finally:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        if lost is not None:
            self._show_console()
            return lost
        if self.options.out:
            os.makedirs(self.options.out, exist_ok=True)
            with tarfile.open(self.results) as archive:
                archive.extractall(self.options.out)
        return Outcome(control.status)

    def popen(self, command, streams, **more):
        """In a session of its own: Ctrl-C reaches us, and we end it."""
        return subprocess.Popen(command, pass_fds=streams.values(), start_new_session=True, preexec_fn=die_with_parent, **more)

    def _wait(self, process, control, begin):
        """Until the lab says that it is done (None), or is lost."""
        control.ended.wait(max(0, begin + self.options.timeout - time.monotonic()))
        if control.done:
            return self._wrong_clock(control, begin) if self.host_time else None
        if not control.ended.is_set():
            where = "while the program ran" if control.clocks else "before the program started"
            return Outcome(124, f"deadline of {self.options.timeout:g} s passed {where}: the lab machine was ended")
        return Outcome(125, f"the lab machine died before the program's end ({self.name} status {process.wait(timeout=10)})")

    @staticmethod
    def _wrong_clock(control, begin):
        """A kernel that mistook its clock's rate at boot has deadlines, and measured times, that mean nothing."""
        (lab_start, start), (lab_end, end) = control.clocks
        # The lab cannot have run for longer than its emulator.
        lab, host = lab_end, end - begin
        fast = lab > 1.05 * host
        if not fast:
            lab, host = lab_end - lab_start, end - start
            if lab >= 0.95 * host - LATE:
                return None
        return Outcome(125, f"the lab's clock was wrong: {lab:.1f} s passed in it while {host:.1f} s passed here")

    def _show_console(self):
        with open(self.console, errors="replace") as file:
            tail = file.read().splitlines()[-20:]
        if tail:
            os.write(2, ("lab: end of its console:\n" + "".join(f"    {line}\n" for line in tail)).encode())


class Control(threading.Thread):
    """Reads what the lab's init says: started UPTIME, status N UPTIME, done."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd, self.status, self.done = fd, None, False
        self.clocks = []  # the lab's clock and ours, at the program's start and end
        self.ended = threading.Event()

    def run(self):
        with os.fdopen(self.fd) as lines:
            for line in lines:
                word, *values = line.split() or [""]
                if word in ("started", "status"):
                    self.clocks.append((float(values[-1]), time.monotonic()))
                if word == "status":
                    self.status = int(values[0])
                elif word == "done" and self.status is not None:
                    self.done = True
                    break
        self.ended.set()


def copy(source, target):
    while data := os.read(source, 1 << 16):
        try:
            while data:
                data = data[os.write(target, data) :]
        except BrokenPipeError:
            target = os.open(os.devnull, os.O_WRONLY)


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no emulator outlives a lab that was killed
