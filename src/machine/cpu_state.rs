//! The initial registers of a vCPU: the 64-bit Linux entry, the PVH entry, and what both need.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use super::MachineError;
use super::layout::boot;
use super::memory::Ram;

/// The entry point of the first vCPU, and its mode. The others wait for the guest's INIT and SIPI.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Linux boot protocol, 64-bit: long mode, RSI = zero page.
    Linux64 {
        /// Address of the first instruction.
        rip: u64,
    },
    /// PVH: 32-bit protected mode without paging, EBX = `hvm_start_info`.
    Pvh {
        /// Address of the first instruction.
        eip: u32,
    },
}

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Selectors of the GDT: null, null, code (Linux's `__BOOT_CS`), data (`__BOOT_DS`), TSS.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

fn segment(selector: u16, type_: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: if selector == TASK { 0x67 } else { 0xffff_ffff },
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(selector != TASK && !long),
        s: u8::from(selector != TASK),
        l: u8::from(long),
        g: u8::from(selector != TASK),
        ..Default::default()
    }
}

fn descriptor(s: &kvm_segment) -> u64 {
    let limit = u64::from(if s.g == 1 { s.limit >> 12 } else { s.limit });
    let access = u64::from(s.type_ | s.s << 4 | s.dpl << 5 | s.present << 7);
    let flags = u64::from(s.l << 1 | s.db << 2 | s.g << 3);
    limit & 0xffff | access << 40 | (limit >> 16 & 0xf) << 48 | flags << 52
}

/// Writes the GDT to RAM and, for the 64-bit entry, page tables that map the first 4 GiB one to one. Returns the
/// segments.
fn tables(ram: &Ram, long: bool) -> Result<[kvm_segment; 3], MachineError> {
    let write = |at: u64, value: u64| {
        ram.write_obj(value, GuestAddress(at)).map_err(|e| MachineError::Host(format!("boot tables: {e}")))
    };
    let segments = [segment(CODE, 0xb, long), segment(DATA, 0x3, false), segment(TASK, 0xb, false)];
    for s in &segments {
        write(boot::GDT + u64::from(s.selector), descriptor(s))?;
    }
    if long {
        const PRESENT_WRITABLE: u64 = 3;
        const LARGE: u64 = 1 << 7;
        let (pml4, pdpt) = (boot::PAGE_TABLES, boot::PAGE_TABLES + 0x1000);
        write(pml4, pdpt | PRESENT_WRITABLE)?;
        for gib in 0..4 {
            let directory = pdpt + 0x1000 * (gib + 1);
            write(pdpt + 8 * gib, directory | PRESENT_WRITABLE)?;
            for i in 0..512 {
                write(directory + 8 * i, gib << 30 | i << 21 | PRESENT_WRITABLE | LARGE)?;
            }
        }
    }
    Ok(segments)
}

/// Sets the registers of the first vCPU for `entry`.
///
/// # Errors
/// KVM refused the registers.
pub fn start(vcpu: &VcpuFd, ram: &Ram, entry: &Entry) -> Result<(), MachineError> {
    let old = vcpu.get_sregs().map_err(|e| MachineError::kvm("KVM_GET_SREGS", e))?;
    let (regs, sregs) = match entry {
        Entry::Linux64 { rip } => {
            let mut sregs = flat(old, tables(ram, true)?);
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = boot::PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
            (
                kvm_regs {
                    rip: *rip,
                    rsi: boot::ZERO_PAGE,
                    rsp: boot::STACK,
                    rflags: 2,
                    ..Default::default()
                },
                sregs,
            )
        }
        Entry::Pvh { eip } => {
            let mut sregs = flat(old, tables(ram, false)?);
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
            sregs.efer = 0;
            let rip = u64::from(*eip);
            (kvm_regs { rip, rbx: boot::PVH_START_INFO, rflags: 2, ..Default::default() }, sregs)
        }
    };
    vcpu.set_sregs(&sregs).map_err(|e| MachineError::kvm("KVM_SET_SREGS", e))?;
    vcpu.set_regs(&regs).map_err(|e| MachineError::kvm("KVM_SET_REGS", e))
}

fn flat(mut sregs: kvm_sregs, [code, data, task]: [kvm_segment; 3]) -> kvm_sregs {
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = task;
    sregs.gdt.base = boot::GDT;
    sregs.gdt.limit = TASK + 7;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs
}

/// Sets the MSRs that firmware sets on every CPU: memory is write-back by default, fast string moves are on.
pub fn firmware_msrs(vcpu: &VcpuFd) {
    const IA32_MISC_ENABLE: u32 = 0x1a0;
    const FAST_STRINGS: u64 = 1;
    const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
    const ENABLE_WRITE_BACK: u64 = 1 << 11 | 6;
    // One at a time, and errors are ignored: a KVM that does not know one of them works without it.
    let update = |index, change: fn(u64) -> u64| {
        let mut msrs = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }]).ok()?;
        vcpu.get_msrs(&mut msrs).ok()?;
        let entry = msrs.as_mut_slice().first_mut()?;
        entry.data = change(entry.data);
        vcpu.set_msrs(&msrs).ok()
    };
    // KVM sets bits of IA32_MISC_ENABLE too (no PEBS, no BTS), so keep them.
    let _ = update(IA32_MISC_ENABLE, |old| old | FAST_STRINGS);
    let _ = update(IA32_MTRR_DEF_TYPE, |_| ENABLE_WRITE_BACK);
}

/// Sets LINT1 to NMI, as the MP specification requires, and masks LINT0, where other machines have a PIC.
///
/// # Errors
/// KVM refused the local APIC state.
pub fn wire_lint(vcpu: &VcpuFd) -> Result<(), MachineError> {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    const MASKED: u32 = 1 << 16;
    const NMI: u32 = 4 << 8;
    let mut lapic = vcpu.get_lapic().map_err(|e| MachineError::kvm("KVM_GET_LAPIC", e))?;
    for (register, entry) in [(LVT_LINT0, MASKED), (LVT_LINT1, NMI)] {
        for (i, byte) in entry.to_le_bytes().into_iter().enumerate() {
            lapic.regs[register + i] = byte as _;
        }
    }
    vcpu.set_lapic(&lapic).map_err(|e| MachineError::kvm("KVM_SET_LAPIC", e))
}
