//! The flags of a mapping, as the kernel tells them in `VmFlags` of `/proc/PID/smaps`.

use core::fmt;

/// A set of flags. In an image bit *n* stands for the *n*th name of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VmFlags(pub u64);

macro_rules! table {
    ($($index:literal $name:ident $text:literal $meaning:literal;)*) => {
        impl VmFlags {
            $(
                #[doc = concat!("`", $text, "`: ", $meaning, ".")]
                pub const $name: VmFlags = VmFlags(1 << $index);
            )*

            /// Every flag with the two letters by which the kernel calls it.
            const TABLE: &'static [(&'static str, VmFlags)] = &[$(($text, Self::$name)),*];
        }
    };
}

table! {
    0 READ "rd" "may be read";
    1 WRITE "wr" "may be written";
    2 EXECUTE "ex" "may be executed";
    3 SHARED "sh" "shared";
    4 MAY_READ "mr" "mprotect may make it readable";
    5 MAY_WRITE "mw" "mprotect may make it writable";
    6 MAY_EXECUTE "me" "mprotect may make it executable";
    7 MAY_SHARE "ms" "was mapped shared";
    8 GROWS_DOWN "gd" "a stack that grows";
    9 PURE_PFN "pf" "pages without a page structure: a device";
    10 LOCKED "lo" "locked in memory";
    11 DEVICE "io" "memory-mapped input and output";
    12 SEQUENTIAL "sr" "MADV_SEQUENTIAL";
    13 RANDOM "rr" "MADV_RANDOM";
    14 DONT_FORK "dc" "MADV_DONTFORK";
    15 DONT_EXPAND "de" "mremap may not expand it";
    16 ACCOUNTED "ac" "counts as committed memory";
    17 NO_RESERVE "nr" "MAP_NORESERVE";
    18 HUGE_TLB "ht" "hugetlbfs pages";
    19 SYNCHRONOUS "sf" "MAP_SYNC";
    20 ARCHITECTURE "ar" "a flag of the architecture's";
    21 WIPE_ON_FORK "wf" "MADV_WIPEONFORK";
    22 DONT_DUMP "dd" "MADV_DONTDUMP";
    23 SOFT_DIRTY "sd" "written since the soft-dirty bits were cleared";
    24 MIXED "mm" "may hold pages with and without a page structure";
    25 HUGE_PAGE "hg" "MADV_HUGEPAGE";
    26 NO_HUGE_PAGE "nh" "MADV_NOHUGEPAGE";
    27 MERGEABLE "mg" "MADV_MERGEABLE";
    28 UFFD_MISSING "um" "watched by userfaultfd for missing pages";
    29 UFFD_WRITE "uw" "watched by userfaultfd for writes";
    30 UFFD_MINOR "ui" "watched by userfaultfd for minor faults";
    31 SHADOW_STACK "ss" "a shadow stack";
    32 SEALED "sl" "mseal";
    33 LOCK_ON_FAULT "lf" "locked as it is touched";
    34 DROPPABLE "dp" "MAP_DROPPABLE";
    35 BRANCH_TARGETS "bt" "arm64: branch target identification";
    36 TAGGED "mt" "arm64: memory tagging";
    37 GUARDED "gu" "may hold MADV_GUARD_INSTALL regions";
}

impl VmFlags {
    /// Reads the kernel's list: two letters a flag, separated by spaces. Flags that this table does
    /// not know are left out.
    pub fn from_text(text: &[u8]) -> Self {
        let mut flags = Self::default();
        for letters in text.split(|&byte| byte == b' ') {
            for (name, flag) in Self::TABLE {
                if name.as_bytes() == letters {
                    flags.0 |= flag.0;
                }
            }
        }
        flags
    }

    /// Whether any flag of `others` is among these.
    pub fn any_of(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// These and `others`.
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl fmt::Display for VmFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = Self::TABLE.iter().filter(|(_, flag)| self.any_of(*flag));
        for (index, (name, _)) in set.enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let text = "rd wr mr mw me ac sd";
        let flags = VmFlags::from_text(b"rd wr mr mw me ac sd xx");
        assert_eq!(flags.to_string(), text);
        assert!(flags.any_of(VmFlags::WRITE.with(VmFlags::SEALED)));
        assert!(!flags.any_of(VmFlags::EXECUTE));
    }

    #[test]
    fn bits_are_those_of_the_table() {
        for (index, (_, flag)) in VmFlags::TABLE.iter().enumerate() {
            assert_eq!(flag.0, 1 << index);
        }
    }
}
