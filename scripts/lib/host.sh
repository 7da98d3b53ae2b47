# shellcheck shell=bash
# What this machine has.

# hardware_kvm: whether KVM has hardware virtualization behind it. A software KVM (kvm_pvm) may run on a CPU that shows svm.
hardware_kvm() {
    grep -qwE 'vmx|svm' "${CPUINFO:-/proc/cpuinfo}" && [[ -d ${MODULES:-/sys/module}/kvm_intel || -d ${MODULES:-/sys/module}/kvm_amd ]]
}

# usable_kvm: whether this user may open it.
usable_kvm() { [[ -r /dev/kvm && -w /dev/kvm ]]; }

# need_cargo NAME: cargo is in the PATH, where a shell that rustup's installer has not reached yet lacks it.
need_cargo() {
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null || { echo "$1: no cargo: install Rust (rustup) and put it in the PATH" >&2; exit 3; }
}
