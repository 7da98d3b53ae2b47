use super::*;

fn lines(kind: PeerKind, vm: &VmFacts) -> Vec<String> {
    let peer = Peer { kind, program: "/opt/vmm".into(), name: "vmm".into() };
    let path = |name: &str| PathBuf::from(name);
    let paths = Paths {
        initrd: path("/proc/7/fd/3"),
        disk: path("/a,b"),
        out: path("/proc/7/fd/5"),
        console: path("/proc/7/fd/6"),
    };
    let line = |command: Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    attempts(&peer, vm, &paths).into_iter().map(line).collect()
}

fn vm() -> VmFacts {
    VmFacts {
        kernel: "vmlinux".into(),
        cmdline: "console=ttyS0 quiet".into(),
        cpus: 2,
        memory: 512 << 20,
        backend: BackendKind::IoUring,
        direct: false,
        queues: 4,
        poll_us: 0,
    }
}

#[test]
fn qemu_gets_the_same_machine_and_a_disk_on_an_io_thread() {
    let [first, second] = &lines(PeerKind::Qemu, &vm())[..] else { panic!("two attempts") };
    for part in [
        "/opt/vmm ",
        "-machine q35 -accel kvm -cpu host -m 512M -smp 2 -kernel vmlinux -initrd /proc/7/fd/3",
        "-append console=ttyS0 quiet -display",
        "-chardev file,id=console,path=/proc/7/fd/6 -serial chardev:console",
        "-object iothread,id=io0 ",
        "filename=/a,,b,locking=off,aio=io_uring ",
        "virtio-blk-pci,drive=d0,serial=bench,iothread=io0,num-queues=4,queue-size=256 ",
        "filename=/proc/7/fd/5,locking=off -device virtio-blk-pci,drive=o0,serial=doorbell-out -bios qboot.rom",
    ] {
        assert!(first.contains(part), "{part}\n{first}");
    }
    assert_eq!(&first.replace(" -bios qboot.rom", ""), second);
}

#[test]
fn qemu_is_told_what_we_are_told() {
    let sync = VmFacts { backend: BackendKind::Sync, direct: true, poll_us: 50, ..vm() };
    let line = &lines(PeerKind::Qemu, &sync)[0];
    assert!(line.contains("iothread,id=io0,poll-max-ns=50000 "), "{line}");
    assert!(line.contains("aio=threads,cache.direct=on "), "{line}");
}

#[test]
fn cloud_hypervisor_likewise() {
    let [first, second] = &lines(PeerKind::CloudHypervisor, &vm())[..] else { panic!("two attempts") };
    let wanted = "/opt/vmm --kernel vmlinux --initramfs /proc/7/fd/3 --cmdline console=ttyS0 quiet --cpus boot=2 \
                  --memory size=512M --serial file=/proc/7/fd/6 --console off --disk \
                  path=/a,b,serial=bench,num_queues=4,queue_size=256 path=/proc/7/fd/5,serial=doorbell-out";
    assert_eq!(second, wanted);
    assert_eq!(first.matches(",image_type=raw").count(), 2);
    let sync = VmFacts { backend: BackendKind::Sync, direct: true, ..vm() };
    let line = &lines(PeerKind::CloudHypervisor, &sync)[1];
    assert!(line.contains("queue_size=256,direct=on,_disable_io_uring=on,_disable_aio=on "), "{line}");
}

#[test]
fn the_host_starts_no_vm() {
    assert!(lines(PeerKind::Host, &vm()).is_empty());
}
