"""The lab machine: one QEMU process, its output streamed, its end judged."""

import ctypes
import os
import signal
import subprocess
import tarfile
import threading
import time

COMMAND_LINE = "console=ttyS0 panic=-1 quiet tsc=reliable no_timer_check intel_iommu=on iommu=pt"
QBOOT = "/usr/share/qemu/qboot.rom"  # half a second faster to the kernel than SeaBIOS


class Outcome:
    """The program's status, or why there is none (`lost`, with the status that scripts/lab then ends with)."""

    def __init__(self, status, lost=None):
        self.status, self.lost = status, lost


class Machine:
    def __init__(self, options, directory, kernel, initrd, devices):
        self.options, self.directory, self.devices = options, directory, devices
        self.console = os.path.join(directory, "console")
        self.results = os.path.join(directory, "results.tar")
        vfio = ",".join(device.slot for device in devices if device.bind == "vfio")
        line = " ".join(filter(None, [COMMAND_LINE, vfio and f"doorbell.vfio={vfio}", options.append]))
        # -cpu max: AMD SVM with nested paging, in TCG. Split irqchip and intremap: MSI-X of VFIO devices is remapped.
        self.command = [
            "qemu-system-x86_64", "-machine", "q35,kernel-irqchip=split", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-smp", str(options.cpus), "-m", options.memory, "-kernel", kernel, "-initrd", initrd, "-append", line,
            "-nodefaults", "-display", "none", "-no-reboot", "-device", "intel-iommu,intremap=on",
        ]  # fmt: skip
        if os.path.exists(QBOOT):
            self.command += ["-bios", QBOOT]
        for device in devices:
            self.command += device.qemu(directory)

    def run(self):
        if self.options.shell:
            # The terminal belongs to the shell inside: Ctrl-C goes there; Ctrl-A X ends QEMU.
            status = subprocess.run(self.command + ["-serial", "mon:stdio"], preexec_fn=_die_with_parent).returncode
            return Outcome(0) if status == 0 else Outcome(125, f"QEMU ended with status {status}")
        for file in (self.console, self.results):
            open(file, "wb").close()
        streams = {name: os.pipe() for name in ("stdout", "stderr", "control")}
        command = self.command + ["-serial", f"file:{self.console}", "-device", "virtio-serial-pci"]
        for name, path in [(name, f"/dev/fd/{ends[1]}") for name, ends in streams.items()] + [("results", self.results)]:
            command += ["-chardev", f"file,id={name},path={path},append=on", "-device", f"virtserialport,chardev={name},name={name}"]
        begin = time.monotonic()
        # A session of its own: Ctrl-C reaches us, and we end QEMU.
        qemu = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=[ends[1] for ends in streams.values()], start_new_session=True, preexec_fn=_die_with_parent
        )
        for ends in streams.values():
            os.close(ends[1])
        control = Control(streams["control"][0])
        threads = [control] + [threading.Thread(target=_copy, args=(streams[name][0], fd), daemon=True) for name, fd in (("stdout", 1), ("stderr", 2))]
        for thread in threads:
            thread.start()
        try:
            lost = self._wait(qemu, control, begin)
        finally:
            qemu.kill()
            qemu.wait()
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

    def _wait(self, qemu, control, begin):
        """Until the lab says that it is done (None), or is lost."""
        control.ended.wait(max(0, begin + self.options.timeout - time.monotonic()))
        if control.done:
            return None
        if not control.ended.is_set():
            where = "while the program ran" if control.started else "before the program started"
            return Outcome(124, f"deadline of {self.options.timeout:g} s passed {where}: the lab machine was ended")
        return Outcome(125, f"the lab machine died before the program's end (QEMU status {qemu.wait(timeout=10)})")

    def _show_console(self):
        with open(self.console, errors="replace") as file:
            tail = file.read().splitlines()[-20:]
        if tail:
            os.write(2, ("lab: end of its console:\n" + "".join(f"    {line}\n" for line in tail)).encode())


class Control(threading.Thread):
    """Reads what the lab's init says: started, status N, done."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd, self.status, self.started, self.done = fd, None, False, False
        self.ended = threading.Event()

    def run(self):
        with os.fdopen(self.fd) as lines:
            for line in lines:
                word, _, value = line.strip().partition(" ")
                if word == "started":
                    self.started = True
                elif word == "status":
                    self.status = int(value)
                elif word == "done" and self.status is not None:
                    self.done = True
                    break
        self.ended.set()


def _copy(source, target):
    while data := os.read(source, 1 << 16):
        try:
            while data:
                data = data[os.write(target, data) :]
        except BrokenPipeError:
            target = os.open(os.devnull, os.O_WRONLY)


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no QEMU outlives a lab that was killed
