//! The capabilities of a container: their names, the set it has by default, and what is added and dropped. They count in
//! the pod's own namespaces only. Changes no process.

use serde::{Deserialize, Serialize};

/// By their numbers in the kernel.
const NAMES: [&str; 41] = [
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

/// What root may do in a container, as container runtimes have it.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// A set of capabilities; bit N is the kernel's number N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

impl Capabilities {
    /// What a container has that asks for nothing else.
    pub const DEFAULT: Capabilities = Capabilities(bits(&DEFAULT));
    pub const NONE: Capabilities = Capabilities(0);

    /// The default set with some added and then some dropped; `ALL` stands for every one. Names that the kernel does not
    /// have are passed over, as runtimes do.
    ///
    /// # Errors
    /// If `SYS_ADMIN` would be among them. With it a container could take away the mounts that hide the machine's files
    /// from it, for these are made in the very namespaces that the capability counts in.
    pub fn changed(add: &[String], drop: &[String]) -> Result<Capabilities, String> {
        let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
        let mut set = if all(add) { Capabilities(bits(&NAMES)) } else { Capabilities::DEFAULT };
        if all(drop) {
            set = Capabilities::NONE;
        }
        let number = |name: &String| bit(&name.to_ascii_uppercase());
        add.iter().filter_map(number).for_each(|bit| set.0 |= bit);
        drop.iter().filter_map(number).for_each(|bit| set.0 &= !bit);
        if set.has("SYS_ADMIN") {
            return Err("the capability SYS_ADMIN cannot be given here: a container could uncover with it what is \
                hidden of the machine; instead of ALL, add the capabilities by name that are needed"
                .into());
        }
        Ok(set)
    }

    /// Whether a capability is in the set, by its name without `CAP_`.
    pub fn has(self, name: &str) -> bool {
        bit(name).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Whether the capability with this number is in the set.
    pub fn has_number(self, number: u32) -> bool {
        self.0.checked_shr(number).is_some_and(|bits| bits & 1 != 0)
    }
}

fn bit(name: &str) -> Option<u64> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

const fn bits(names: &[&str]) -> u64 {
    let (mut set, mut at) = (0, 0);
    while at < names.len() {
        let mut number = 0;
        while number < NAMES.len() {
            if same(NAMES[number], names[at]) {
                set |= 1 << number;
            }
            number += 1;
        }
        at += 1;
    }
    set
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_and_dropped() {
        let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let check = |add: &str, drop: &str, expected: &str| {
            let text = match Capabilities::changed(&words(add), &words(drop)) {
                Ok(set) => format!("{:x}", set.0),
                Err(error) => error.split(" here").next().unwrap().to_owned(),
            };
            assert_eq!(text, expected, "add {add:?}, drop {drop:?}");
        };
        check("", "", "a80425fb");
        check("NET_ADMIN", "", "a80435fb");
        check("CAP_NET_ADMIN", "KILL MKNOD", "a00435db");
        check("", "ALL", "0");
        check("NET_BIND_SERVICE", "ALL", "400");
        check("NO_SUCH_THING", "NOR_THIS", "a80425fb");
        check("ALL", "SYS_ADMIN", "1ffffdfffff");
        check("ALL", "", "the capability SYS_ADMIN cannot be given");
        check("sys_admin", "", "the capability SYS_ADMIN cannot be given");
    }
}
