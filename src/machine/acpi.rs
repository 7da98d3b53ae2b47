//! ACPI, hardware-reduced (ACPI 6.4, 4.1): CPUs, IOAPIC, ECAM, the PCI bridge, the serial port, poweroff and reset.
//!
//! Hardware-reduced: the guest expects no PIC, PIT, RTC or SCI. It takes time from kvm-clock and the TSC deadline
//! timer, and switches itself off through one byte-wide register.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Bytes, GuestAddress};

use super::MachineError;
use super::layout::{
    ECAM_LEN, ECAM_START, IOAPIC_START, LAPIC_START, MMIO32_END, MMIO32_START, MMIO64_END, MMIO64_START,
    PCI_CONFIG_PORT, PIO_END, PIO_START, PVPANIC_PORT, RESET_PORT, RESET_VALUE, SERIAL_GSI, SERIAL_PORT,
    SLEEP_CONTROL_PORT, SLEEP_TYPE_S5, boot, intx_gsi,
};
use super::memory::Ram;

const OEM_ID: [u8; 6] = *b"DOORBL";
const OEM_TABLE: [u8; 8] = *b"DOORBELL";

/// Writes the tables for `cpus` vCPUs into `ram`, with the RSDP at [`boot::ACPI`].
///
/// # Errors
/// The tables do not fit. No configuration within the limits causes this.
pub fn write(ram: &Ram, cpus: u8) -> Result<(), MachineError> {
    let mut next = (boot::ACPI + Rsdp::len() as u64).next_multiple_of(16);
    let mut put = |bytes: &[u8]| {
        let at = next;
        next = (at + bytes.len() as u64).next_multiple_of(16);
        if next > boot::ACPI_END {
            return Err(MachineError::Host("the ACPI tables do not fit".into()));
        }
        ram.write_slice(bytes, GuestAddress(at)).map_err(|e| MachineError::Host(e.to_string()))?;
        Ok(at)
    };
    let dsdt = put(dsdt().as_slice())?;
    let tables = [put(fadt(dsdt).as_slice())?, put(madt(cpus).as_slice())?, put(mcfg().as_slice())?];
    let mut xsdt = table(*b"XSDT", 36, 1);
    for address in tables {
        xsdt.append_slice(&address.to_le_bytes());
    }
    let xsdt = put(xsdt.as_slice())?;
    let mut rsdp = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    ram.write_slice(&rsdp, GuestAddress(boot::ACPI)).map_err(|e| MachineError::Host(e.to_string()))
}

fn table(signature: [u8; 4], len: u32, revision: u8) -> Sdt {
    Sdt::new(signature, len, revision, OEM_ID, OEM_TABLE, 1)
}

/// Returns a generic address structure for a byte-wide port (ACPI 6.4, 5.2.3.2).
fn port(address: u16) -> [u8; 12] {
    const SYSTEM_IO: u8 = 1;
    const BYTE_ACCESS: u8 = 1;
    let mut gas = [0; 12];
    gas[..4].copy_from_slice(&[SYSTEM_IO, 8, 0, BYTE_ACCESS]);
    gas[4..6].copy_from_slice(&address.to_le_bytes());
    gas
}

/// Returns the FADT (ACPI 6.4, 5.2.9; the offsets are those of table 5.9).
fn fadt(dsdt: u64) -> Sdt {
    const NO_VGA_NO_RTC: u16 = 1 << 2 | 1 << 5;
    const WBINVD: u32 = 1;
    const NO_FIXED_BUTTONS: u32 = 1 << 4 | 1 << 5;
    const RESET_REGISTER: u32 = 1 << 10;
    const HARDWARE_REDUCED: u32 = 1 << 20;
    let mut fadt = table(*b"FACP", 276, 6);
    fadt.write_bytes(109, &NO_VGA_NO_RTC.to_le_bytes());
    fadt.write_u32(112, WBINVD | NO_FIXED_BUTTONS | RESET_REGISTER | HARDWARE_REDUCED);
    fadt.write_bytes(116, &port(RESET_PORT));
    fadt.write_u8(128, RESET_VALUE);
    fadt.write_u8(131, 4);
    fadt.write_bytes(140, &dsdt.to_le_bytes());
    fadt.write_bytes(244, &port(SLEEP_CONTROL_PORT));
    fadt.write_bytes(256, &port(SLEEP_CONTROL_PORT + 1));
    fadt
}

/// Returns the MADT (ACPI 6.4, 5.2.12): one local APIC for each vCPU, NMI on LINT1 of all, one IOAPIC. It needs no
/// interrupt source overrides: there is no PIC, and each GSI is the IOAPIC pin of the same number.
fn madt(cpus: u8) -> Sdt {
    const ENABLED: u32 = 1;
    let mut madt = table(*b"APIC", 44, 5);
    madt.write_u32(36, LAPIC_START);
    for cpu in 0..cpus {
        madt.append_slice(&[0, 8, cpu, cpu]);
        madt.append_slice(&ENABLED.to_le_bytes());
    }
    madt.append_slice(&[1, 12, 0, 0]);
    madt.append_slice(&IOAPIC_START.to_le_bytes());
    madt.append_slice(&0u32.to_le_bytes());
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

/// Returns the MCFG (PCI firmware 3.2, 4.1.2): the ECAM of segment 0, bus 0.
fn mcfg() -> Sdt {
    let mut mcfg = table(*b"MCFG", 44, 1);
    mcfg.append_slice(&ECAM_START.to_le_bytes());
    mcfg.append_slice(&[0; 8]);
    mcfg
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(path), value)
}

fn dsdt() -> Sdt {
    let mut dsdt = table(*b"DSDT", 36, 2);
    let mut aml = Vec::new();
    name("\\_S5_", &Package::new(vec![&SLEEP_TYPE_S5, &0u8, &0u8, &0u8])).to_aml_bytes(&mut aml);
    pci_bridge(&mut aml);
    Scope::new(
        Path::new("\\_SB_"),
        vec![
            // A device must claim the range of ECAM, or Linux does not use it.
            &Device::new(
                Path::new("MBRD"),
                vec![
                    &name("_HID", &EISAName::new("PNP0C02")),
                    &name("_UID", &0u8),
                    &name(
                        "_CRS",
                        &ResourceTemplate::new(vec![&Memory32Fixed::new(
                            true,
                            ECAM_START as u32,
                            ECAM_LEN as u32,
                        )]),
                    ),
                ],
            ),
            &Device::new(
                Path::new("COM1"),
                vec![
                    &name("_HID", &EISAName::new("PNP0501")),
                    &name("_UID", &0u8),
                    &name(
                        "_CRS",
                        &ResourceTemplate::new(vec![
                            &IO::new(SERIAL_PORT, SERIAL_PORT, 1, 8),
                            &Interrupt::new(true, true, false, false, SERIAL_GSI),
                        ]),
                    ),
                ],
            ),
            // Stock kernels know pvpanic by this name. Status 15: present, enabled, shown, working.
            &Device::new(
                Path::new("PEVT"),
                vec![
                    &name("_HID", &"QEMU0001"),
                    &name("_STA", &15u8),
                    &name("_CRS", &ResourceTemplate::new(vec![&IO::new(PVPANIC_PORT, PVPANIC_PORT, 1, 1)])),
                ],
            ),
        ],
    )
    .to_aml_bytes(&mut aml);
    dsdt.append_slice(&aml);
    dsdt
}

fn pci_bridge(aml: &mut dyn AmlSink) {
    use AddressSpaceCacheable::NotCacheable;
    let routing: Vec<[u32; 4]> = (1u8..32)
        .flat_map(|slot| (0u8..4).map(move |pin| (slot, pin)))
        .map(|(slot, pin)| [u32::from(slot) << 16 | 0xffff, pin.into(), 0, intx_gsi(slot, pin + 1)])
        .collect();
    let entries: Vec<Package> =
        routing.iter().map(|entry| Package::new(entry.iter().map(|x| x as &dyn Aml).collect())).collect();
    Scope::new(
        Path::new("\\_SB_"),
        vec![&Device::new(
            Path::new("PCI0"),
            vec![
                &name("_HID", &EISAName::new("PNP0A08")),
                &name("_CID", &EISAName::new("PNP0A03")),
                &name("_SEG", &0u8),
                &name("_BBN", &0u8),
                &name("_UID", &0u8),
                &name(
                    "_CRS",
                    &ResourceTemplate::new(vec![
                        &AddressSpace::new_bus_number(0u16, 0),
                        &IO::new(PCI_CONFIG_PORT, PCI_CONFIG_PORT, 1, 8),
                        &AddressSpace::new_io(PIO_START as u16, (PIO_END - 1) as u16, None),
                        &AddressSpace::new_memory(
                            NotCacheable,
                            true,
                            MMIO32_START as u32,
                            (MMIO32_END - 1) as u32,
                            None,
                        ),
                        &AddressSpace::new_memory(NotCacheable, true, MMIO64_START, MMIO64_END - 1, None),
                    ]),
                ),
                &name("_PRT", &Package::new(entries.iter().map(|e| e as &dyn Aml).collect())),
            ],
        )],
    )
    .to_aml_bytes(aml);
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
