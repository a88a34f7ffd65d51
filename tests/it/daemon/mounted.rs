//! Small file systems in memory, to fill and to forbid.

use std::{fs, io::Write, path::PathBuf, process::Command};

/// A small file system in memory; unmounted when dropped.
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn mount(folder: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                println!("SKIPPED: a tmpfs cannot be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Disk {
    /// Forbids or allows writing.
    pub(super) fn set_read_only(&self, is_read_only: bool) {
        let options = if is_read_only { "remount,ro" } else { "remount,rw" };
        let output = Command::new("mount").args(["-o", options]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Takes all room that is left with a file of nothing; gives the file.
    pub(super) fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        let block = vec![1; 65_536];
        while file.write_all(&block).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
