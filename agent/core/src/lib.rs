//! See agent/docs/architecture.md.
