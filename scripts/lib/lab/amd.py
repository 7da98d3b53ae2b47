"""The AMD lab machine: QEMU in software (TCG), with SVM and nested paging, an IOMMU and devices for VFIO."""

import contextlib
import os
import shutil
import subprocess
import threading
import time

import host_clock
from machine import COMMAND_LINE, Machine, Outcome, die_with_parent

QBOOT = "/usr/share/qemu/qboot.rom"  # half a second faster to the kernel than SeaBIOS
# SVM with nested paging. What TCG says that it has and does not do for a guest's guest is left out: it never intercepts
# XSETBV, and a CMPXCHG16B there goes wrong.
CPU = "max,xsave=off,cx16=off"
# Seconds between two interrupts from outside. At VMRUN and #VMEXIT this QEMU changes the word of pending interrupts without its lock
# (do_vmexit in svm_helper.c), so an interrupt that comes just then may be forgotten until the next one. For a CPU that
# sleeps until its timer there would be no next one: the lab would stand still.
HEARTBEAT = 0.5


class Amd(Machine):
    name = "QEMU"

    def __init__(self, options, directory, image, initrd, devices):
        super().__init__(options, directory)
        if shutil.which("qemu-system-x86_64") is None:
            raise ValueError("qemu-system-x86_64 is not installed: run scripts/setup")
        vfio = ",".join(device.slot for device in devices if device.bind == "vfio")
        # Under load the kernel's own measurement of the TSC, which is the host's, has been wrong by a factor of 10 and more.
        khz = host_clock.tsc_khz()
        line = [COMMAND_LINE, "intel_iommu=on iommu=pt", khz and f"tsc_early_khz={khz}", vfio and f"doorbell.vfio={vfio}", options.append]
        # Split irqchip and intremap: MSI-X of VFIO devices is remapped.
        self.command = [
            "qemu-system-x86_64", "-machine", "q35,kernel-irqchip=split", "-accel", "tcg,thread=multi", "-cpu", CPU,
            "-smp", str(options.cpus or 2), "-m", options.memory or "4G", "-kernel", os.path.join(image, "vmlinux"), "-initrd", initrd,
            "-append", " ".join(filter(None, line)),
            "-nodefaults", "-display", "none", "-no-reboot", "-device", "intel-iommu,intremap=on",
        ]  # fmt: skip
        if os.path.exists(QBOOT):
            self.command += ["-bios", QBOOT]
        for device in devices:
            self.command += device.qemu(directory)

    def shell(self):
        # The terminal belongs to the shell inside: Ctrl-C goes there; Ctrl-A X ends QEMU.
        status = subprocess.run(self.command + ["-serial", "mon:stdio"], preexec_fn=die_with_parent).returncode
        return Outcome(0) if status == 0 else Outcome(125, f"QEMU ended with status {status}")

    def start(self, streams):
        command = self.command + ["-serial", f"file:{self.console}", "-device", "virtio-serial-pci", "-chardev", "stdio,id=heartbeat,signal=off"]
        for name, path in [(name, f"/dev/fd/{fd}") for name, fd in streams.items()] + [("results", self.results)]:
            command += ["-chardev", f"file,id={name},path={path},append=on"]
        for name in (*streams, "results", "heartbeat"):
            command += ["-device", f"virtserialport,chardev={name},name={name}"]
        process = self.popen(command, streams, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        threading.Thread(target=beat, args=(process.stdin,), daemon=True).start()
        return process


def beat(pipe):
    """A line now and then, as long as QEMU lives; the lab's init reads them."""
    with contextlib.suppress(BrokenPipeError):
        while True:
            os.write(pipe.fileno(), b"\n")
            time.sleep(HEARTBEAT)
