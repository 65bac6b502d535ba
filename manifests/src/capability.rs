//! The names of Linux's capabilities (capabilities(7)), in the order of their numbers.

/// Names without `CAP_`; a capability's number is its place.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The number of a capability, named with or without `CAP_`, in any case.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let stem = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let place = CAPABILITIES.iter().position(|known| *known == stem)?;
    u32::try_from(place).ok()
}

/// The names of the capabilities of a set, a bit each; one without a name is its number.
#[must_use]
pub fn names(set: u64) -> Vec<String> {
    let held = (0..64_usize).filter(|bit| set >> bit & 1 == 1);
    held.map(|bit| {
        CAPABILITIES
            .get(bit)
            .map_or_else(|| bit.to_string(), |name| (*name).to_owned())
    })
    .collect()
}
