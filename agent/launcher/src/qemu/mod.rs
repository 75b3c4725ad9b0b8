//! QEMU, the one hypervisor there is: how it is started, and how it is spoken to while it runs.

pub(crate) mod argv;
pub(crate) mod qmp;
