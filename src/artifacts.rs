//! The programs that this one carries inside itself (see build.rs), and `ckpt unpack`.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// A program, or a library.
pub struct Artifact {
    /// The name of the file.
    pub name: &'static str,
    bytes: &'static [u8],
}

macro_rules! artifact {
    ($name:literal) => {
        Artifact { name: $name, bytes: include_bytes!(concat!(env!("CKPT_ARTIFACTS"), "/", $name)) }
    };
}

/// What captures a program: to be given to the dynamic loader by `LD_PRELOAD`.
pub const LIBRARY: Artifact = artifact!("libckpt.so");

/// The same for programs that are linked statically: to be given to their linker.
pub const STATIC_LIBRARY: Artifact = artifact!("libckpt.a");

/// What restarts a program from its image.
pub const RESTART: Artifact = artifact!("restart-static");

/// A program that counts, to be checkpointed by `ckpt demo`.
pub const COUNTING_TEST: Artifact = artifact!("counting-test");

impl Artifact {
    /// Writes it into `directory`. A file of that name is replaced as a whole: programs that use it
    /// go on with the old one.
    ///
    /// # Errors
    ///
    /// If it cannot be written; a file of that name is then as it was.
    pub fn write_to(&self, directory: &Path) -> Result<()> {
        let path = directory.join(self.name);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(self.bytes)?;
            file.as_file().set_permissions(Permissions::from_mode(0o755))?;
            file.persist(&path)?;
            anyhow::Ok(())
        };
        write().with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// `ckpt unpack`.
///
/// # Errors
///
/// If the directory or a file cannot be written.
pub fn unpack(out: &mut dyn Write, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("{} cannot be created", directory.display()))?;
    let [library, static_library, restart] =
        [&LIBRARY, &STATIC_LIBRARY, &RESTART].map(|artifact| directory.join(artifact.name));
    LIBRARY.write_to(directory)?;
    writeln!(out, "wrote {0}: start a program by LD_PRELOAD={0} PROGRAM", library.display())?;
    STATIC_LIBRARY.write_to(directory)?;
    let link = "cc -static PROGRAM.c -Wl,-u,ckpt_constructor";
    writeln!(out, "wrote {0}: or link it in by {link} {0}", static_library.display())?;
    RESTART.write_to(directory)?;
    writeln!(out, "wrote {0}: restart it by {0} mycheckpoint", restart.display())?;
    Ok(())
}
