"""The Intel lab machine: Bochs, with VMX and EPT. Slow, no IOMMU and no devices; its clock counts instructions. With --apicv a newer
Bochs, two CPUs, and posted interrupts: less stable, and for a recorded run."""

import os
import pty
import threading

import bootdisk
from devices import size_of
from machine import COMMAND_LINE, Machine

MODEL = "corei7_haswell_4770"  # newer ones of this Bochs hang a kernel, or cannot run guests
# The frequency that this one tells in CPUID is not the lab's: two clocks that disagree, and a storm of timer interrupts.
MODEL_APICV = "corei7_skylake_x, cpuid_freq=none"
CPUS_APICV = 2
# This one sleeps a millisecond of ours whenever all its CPUs are halted, and its time hardly goes on: a second of it took two minutes.
LINE_APICV = "idle=poll"
# Instructions in a second of the lab's time: about what the emulator does in a second of ours, so that deadlines fit.
SPEED = 100_000_000
MEMORY_LIMIT = 2048
RESULTS_SIZE = 4096 * bootdisk.CYLINDER  # sparse, 2 GB
# Without a HPET and with a TSC to rely on there is one clock; nobody attacks this machine by speculation.
LINE = f"{COMMAND_LINE} hpet=disable mitigations=off doorbell.serial"
CONFIGURATION = """\
config_interface: textconfig
display_library: term
plugin_ctrl: speaker=0, parallel=0
cpu: model={model}, count={cpus}, ips={SPEED}, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={memory}, host={memory}
romimage: file=bochs/root/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=bochs/root/usr/share/vgabios/vgabios.bin
boot: disk
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=flat, path="boot.img", model="boot"
ata0-slave: type=disk, mode=flat, path="results.tar", model="doorbell-results"
ata1: enabled=0
pci: enabled=1, chipset=i440fx
clock: sync=none, time0=utc
mouse: enabled=0
com1: enabled=1, mode=file, dev="console"
com2: enabled=1, mode=file, dev=/dev/fd/{stdout}
com3: enabled=1, mode=file, dev=/dev/fd/{stderr}
com4: enabled=1, mode=file, dev=/dev/fd/{control}
log: bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""


class Intel(Machine):
    name = "Bochs"
    host_time = False

    def __init__(self, options, directory, image, initrd, bochs):
        super().__init__(options, directory)
        self.bochs, self.memory = bochs, _mebibytes(options.memory or "2G")
        self.cpus = options.cpus or (CPUS_APICV if options.apicv else 1)
        line = " ".join(filter(None, [LINE, LINE_APICV if options.apicv else "", options.append]))
        with open(os.path.join(bochs, "boot.bin"), "rb") as sector:
            bootdisk.write(os.path.join(directory, "boot.img"), sector.read(), os.path.join(image, "vmlinux"), initrd, line)

    @staticmethod
    def check(options):
        """What this machine cannot be, before anything is made."""
        most, count = (CPUS_APICV, "two CPUs at most") if options.apicv else (1, "one CPU, with --apicv two")
        wrong = {
            f"--cpus {options.cpus}: it has {count}": options.cpus is not None and not 1 <= options.cpus <= most,
            f"--memory {options.memory}: it has 2G at most": _mebibytes(options.memory or "0") > MEMORY_LIMIT,
            "--device: it has no IOMMU and no devices for VFIO": options.device,
            "--shell: it has no line to type on": options.shell,
        }
        for reason, it_is in wrong.items():
            if it_is:
                raise ValueError(f"the Intel lab cannot serve {reason} (--vendor amd has it)")

    def start(self, streams):
        os.truncate(self.results, RESULTS_SIZE)
        # Everything by a name without spaces and colons, whatever our directory is called.
        link = os.path.join(self.directory, "bochs")
        if not os.path.islink(link):
            os.symlink(self.bochs, link)
        self._write("bochsrc", CONFIGURATION.format(model=MODEL_APICV if self.options.apicv else MODEL, cpus=self.cpus, SPEED=SPEED, memory=self.memory, **streams))
        # Debian's build starts in its debugger: "continue".
        self._write("debugger", "c\n")
        libraries = "bochs/root/usr/lib/x86_64-linux-gnu"
        environment = os.environ | {
            "TERM": "linux",
            "BXSHARE": "bochs/root/usr/share/bochs",
            "LTDL_LIBRARY_PATH": f"{libraries}/bochs/plugins",
            "LD_LIBRARY_PATH": f"bochs/stubs:{libraries}:bochs/root/lib/x86_64-linux-gnu",
        }
        # It has to have a terminal to draw its screen on; who keeps the run's directory can look at it.
        screen, terminal = pty.openpty()
        # Unlock: a machine that was killed, as all are, leaves its disks locked.
        program = "bochs/root/usr/bin/bochs-bin"
        if self.options.apicv:
            # The C library that it was linked with, and its loader, which alone can load that one.
            command = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", environment.pop("LD_LIBRARY_PATH"), "--preload", "bochs/correct.so", program]
        else:
            command = [program]
        command += ["-q", "-unlock", "-f", "bochsrc", "-rc", "debugger"]
        process = self.popen(command, streams, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=self.directory)
        os.close(terminal)
        threading.Thread(target=_drain, args=(screen, os.path.join(self.directory, "screen")), daemon=True).start()
        return process

    def _write(self, name, text):
        with open(os.path.join(self.directory, name), "w") as file:
            file.write(text)


def _mebibytes(text):
    """As QEMU takes it: a bare number is MiB."""
    return int(text) if text.isdigit() else size_of(text) >> 20


def _drain(screen, path):
    with open(path, "wb", buffering=0) as file, open(screen, "rb", buffering=0) as terminal:
        try:
            while data := terminal.read(1 << 16):
                file.write(data)
        except OSError:  # EIO: nobody has the terminal any more
            pass
