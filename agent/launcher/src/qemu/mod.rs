//! QEMU, the only hypervisor that is supported: how it is started, and how it is spoken to while it runs.

pub(crate) mod argv;
pub(crate) mod message;
pub(crate) mod qmp;
