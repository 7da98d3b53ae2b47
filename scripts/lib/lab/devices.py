"""The devices that a lab machine can be given for VFIO, each at a fixed slot of PCI bus 0 and so in an IOMMU group of its own (but for SECOND)."""

import os

# kind: (slot, what it is for, needs a backing file)
KINDS = {
    "nvme": (0x10, "NVMe controller with one disk: MSI-X, many vectors", True),
    "virtio-blk": (0x11, "virtio disk behind the IOMMU: MSI-X; the guest needs no further driver", True),
    "e1000e": (0x12, "network card: MSI-X, MSI and INTx; Debian's cloud kernel has no driver for it", False),
    "virtio-net": (0x13, "virtio network card behind the IOMMU: MSI-X", False),
    "ahci": (0x15, "SATA controller with one disk: MSI and INTx, no MSI-X; Debian's cloud kernel has no driver for it", True),
    "edu": (0x14, "QEMU's teaching device: MSI and INTx, no MSI-X; a register write raises its interrupt", False),
    "edu-neighbour": (0x14, "second function of edu's slot, in its IOMMU group: a virtio entropy source", False),
}

# Second functions of another device's slot, and so in its IOMMU group: there is nothing between them that could tell them apart.
SECOND = {"edu-neighbour"}


class Device:
    """One `--device KIND[,size=SIZE][,file=IMAGE][,bind=vfio|host]`."""

    def __init__(self, text):
        kind, *options = text.split(",")
        if kind not in KINDS:
            raise ValueError(f"unknown device '{kind}'; there are: {', '.join(KINDS)}")
        self.kind = kind
        self.size, self.file, self.bind = "256M", None, "vfio"
        for option in options:
            key, _, value = option.partition("=")
            if key not in ("size", "file", "bind") or not value:
                raise ValueError(f"device {kind}: unknown option '{option}'; there are: size=, file=, bind=vfio|host")
            if key != "bind" and not KINDS[kind][2]:
                raise ValueError(f"device {kind} has no disk: {key}= has no effect on it")
            setattr(self, key, value)
        if self.bind not in ("vfio", "host"):
            raise ValueError(f"device {kind}: bind={self.bind}: say vfio or host")
        if self.file and not os.path.isfile(self.file):
            raise ValueError(f"device {kind}: no such file: {self.file}")

    @property
    def slot(self):
        return "%02x.%d" % (KINDS[self.kind][0], self.kind in SECOND)

    @property
    def variable(self):
        """What tells the program where the device is: DOORBELL_LAB_NVME=0000:00:10.0."""
        return "DOORBELL_LAB_" + self.kind.upper().replace("-", "_"), "0000:00:" + self.slot

    def qemu(self, directory):
        """QEMU's arguments; a disk without a file gets an empty one in `directory`."""
        place, name = f"bus=pcie.0,addr={self.slot}", "lab" + self.kind.replace("-", "")
        if not KINDS[self.kind][2]:
            if self.kind == "edu":
                return ["-device", f"edu,{place},multifunction=on"]
            if self.kind == "edu-neighbour":
                return ["-device", f"virtio-rng-pci,{place},iommu_platform=on,disable-legacy=on"]
            options = ",iommu_platform=on,disable-legacy=on" if self.kind == "virtio-net" else ""
            # The network behind a card is QEMU's own, closed to the outside: it answers ARP, DHCP and ping to 10.0.2.2.
            return ["-netdev", f"user,id={name},restrict=on", "-device", f"{self.kind}{'-pci' if options else ''},netdev={name},{place}{options}"]
        file = self.file
        if file is None:
            file = os.path.join(directory, name + ".img")
            with open(file, "wb") as image:
                image.truncate(size_of(self.size))
        drive = ["-drive", f"file={file.replace(',', ',,')},if=none,id={name},format=raw,cache=writeback"]
        if self.kind == "nvme":
            return drive + ["-device", f"nvme,serial=lab-nvme,drive={name},{place}"]
        if self.kind == "ahci":
            return drive + ["-device", f"ich9-ahci,id={name}bus,{place}", "-device", f"ide-hd,serial=lab-sata,drive={name},bus={name}bus.0"]
        return drive + ["-device", f"virtio-blk-pci,serial=lab-virtio,drive={name},{place},iommu_platform=on,disable-legacy=on"]


def size_of(text):
    unit = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper())
    digits = text[:-1] if unit else text
    if not digits.isdigit():
        raise ValueError(f"size '{text}': give bytes, or a number with K, M or G")
    return int(digits) << (unit or 0)
