//! Loop devices: a file as a block device.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;

/// The device that gives free loop devices.
pub const CONTROL: &str = "/dev/loop-control";

/// Another process may take a free device first.
const ATTEMPTS: u32 = 16;

/// The kernel detaches the device when its last user is gone.
const FLAG_AUTOCLEAR: u32 = 4;

/// Without a second copy of each page in the page cache.
const FLAG_DIRECT_IO: u32 = 16;

/// `struct loop_info64`, of which only the flags are used.
#[repr(C)]
struct Info {
    before_flags: [u64; 5],
    numbers: [u32; 3],
    flags: u32,
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
pub(super) struct LoopConfig {
    file: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

mod ioctl {
    use super::LoopConfig;

    nix::ioctl_none_bad!(get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, LoopConfig);
}

/// A loop device, which is detached after its last unmount.
pub(super) struct LoopDevice {
    pub(super) path: PathBuf,
    /// Keeps the device attached until it is mounted.
    _device: File,
}

/// Attaches the file `image` to a free loop device.
pub(super) fn attach(image: &Path) -> anyhow::Result<LoopDevice> {
    let open = |path: &Path| {
        let file = OpenOptions::new().read(true).write(true).open(path);
        file.with_context(|| format!("cannot open {}", path.display()))
    };
    let image = open(image)?;
    let control = open(Path::new(CONTROL))?;
    let mut last = Errno::EBUSY;
    for _ in 0..ATTEMPTS {
        // SAFETY: the request has no argument, and the descriptor is open.
        let number = unsafe { ioctl::get_free(control.as_raw_fd()) }.context("no free loop device")?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path)?;
        for flags in [FLAG_AUTOCLEAR | FLAG_DIRECT_IO, FLAG_AUTOCLEAR] {
            let config = config(image.as_raw_fd(), flags)?;
            // SAFETY: `config` has the layout of the kernel's `struct loop_config` and is valid during the call.
            match unsafe { ioctl::configure(device.as_raw_fd(), &raw const config) } {
                Ok(_) => return Ok(LoopDevice { path, _device: device }),
                Err(error) => last = error,
            }
        }
    }
    Err(last).context("cannot attach a loop device")
}

fn config(file: RawFd, flags: u32) -> anyhow::Result<LoopConfig> {
    Ok(LoopConfig {
        file: u32::try_from(file)?,
        block_size: 0,
        info: Info { before_flags: [0; 5], numbers: [0; 3], flags, names: [0; 160], init: [0; 2] },
        reserved: [0; 8],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_the_kernel() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 8 + 232 + 64);
        assert_eq!(std::mem::offset_of!(Info, flags), 52);
    }
}
