//! The node's ed25519 key: its identity in every handshake, kept in one small file.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use blixard_model::EndpointId;
use iroh::{PublicKey, SecretKey};

/// Bytes of a key file: 64 digits and a line end. One byte more is read, so that a longer file is noticed.
const FILE_LEN: usize = 65;

/// The secret half of a node's identity. Its debug form shows the public half only.
#[derive(Clone)]
pub struct NodeKey(SecretKey);

/// Why a key file was not read.
#[derive(Debug, thiserror::Error)]
pub enum LoadKeyError {
    /// The file is not there or cannot be read.
    #[error("cannot read the node key {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("the node key {} is not a regular file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file's mode gives access to others than its owner.
    #[error(
        "the node key {} can be read by others (mode {mode:04o}): run `chmod 0600 {}`, and replace the key \
         if somebody may have copied it", .path.display(), .path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text of the file is no key.
    #[error(
        "{} holds no node key (64 hexadecimal digits and a line end): restore it, or remove it and run \
         `blixard keygen` for a new identity", .path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl LoadKeyError {
    /// True when the file does not exist. This is the only case in which a new key may be made.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Why a key file was not written. A file that exists is never replaced.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the node key {}", .path.display())]
pub struct SaveKeyError {
    path: PathBuf,
    source: io::Error,
}

impl SaveKeyError {
    /// True when the file exists (it was left as it is).
    pub fn is_already_there(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

/// An endpoint id that does not belong to any key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "endpoint id {0} is not the public half of any ed25519 key: copy it from `blixard keygen` on that node"
)]
pub struct ImpossibleEndpointId(pub EndpointId);

/// Checks that an endpoint id can belong to a key. Any 64 digits parse as an id, but about half of all ids
/// are no point of the curve.
///
/// # Errors
/// [`ImpossibleEndpointId`] when no key has this id.
pub fn check_endpoint_id(id: &EndpointId) -> Result<(), ImpossibleEndpointId> {
    public_key(id).map(|_| ())
}

pub(crate) fn public_key(id: &EndpointId) -> Result<PublicKey, ImpossibleEndpointId> {
    PublicKey::from_bytes(id.as_bytes()).map_err(|_| ImpossibleEndpointId(*id))
}

pub(crate) fn endpoint_id(key: PublicKey) -> EndpointId {
    EndpointId::from_bytes(*key.as_bytes())
}

impl NodeKey {
    /// A new key from the system's random source.
    pub fn generate() -> Self {
        Self(SecretKey::generate())
    }

    /// The public half: the node's identity.
    pub fn endpoint_id(&self) -> EndpointId {
        endpoint_id(self.0.public())
    }

    pub(crate) fn secret(&self) -> &SecretKey {
        &self.0
    }

    /// Reads a key file. A file to which others than its owner have access is refused, unless it lies
    /// directly in `credentials_dir` (systemd's `$CREDENTIALS_DIRECTORY`: systemd gives the files in it the
    /// mode 0440 and protects the directory instead).
    ///
    /// # Errors
    /// As [`LoadKeyError`] lists them, each with the way out.
    pub fn load(path: &Path, credentials_dir: Option<&Path>) -> Result<Self, LoadKeyError> {
        let read = |source| LoadKeyError::Read { path: path.to_owned(), source };
        // Opening a named pipe would wait for a writer.
        if !std::fs::metadata(path).map_err(read)?.is_file() {
            return Err(LoadKeyError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(read)?;
        // From here on the open file is examined and not the path, so that the file cannot be exchanged in
        // between.
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(LoadKeyError::NotAFile { path: path.to_owned() });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 && !lies_directly_in(path, credentials_dir) {
            return Err(LoadKeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Vec::with_capacity(FILE_LEN + 1);
        file.take(FILE_LEN as u64 + 1).read_to_end(&mut text).map_err(read)?;
        parse(&text).map(Self).ok_or_else(|| LoadKeyError::Malformed { path: path.to_owned() })
    }

    /// Writes a key file that only its owner can read. The file appears whole or not at all, survives a crash
    /// once this returns, and never replaces an existing file.
    ///
    /// # Errors
    /// [`SaveKeyError`]; see [`SaveKeyError::is_already_there`].
    pub fn save(&self, path: &Path) -> Result<(), SaveKeyError> {
        self.save_new(path).map_err(|source| SaveKeyError { path: path.to_owned(), source })
    }

    fn save_new(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(".{:016x}.new", getrandom::u64().map_err(io::Error::other)?));
        let temporary = directory.join(temporary_name);
        let written = self.write_file(&temporary).and_then(|()| {
            // Unlike a rename, a link fails when the name is taken.
            std::fs::hard_link(&temporary, path)
        });
        // The temporary file is removed in any case. If writing failed as well, that error is returned.
        let removed = std::fs::remove_file(&temporary);
        written?;
        removed?;
        File::open(directory)?.sync_all()
    }

    fn write_file(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(&encode(&self.0))?;
        file.sync_all()
    }
}

fn lies_directly_in(path: &Path, directory: Option<&Path>) -> bool {
    match (path.parent(), directory) {
        (Some(parent), Some(directory)) => directory.is_absolute() && parent == directory,
        _ => false,
    }
}

fn encode(key: &SecretKey) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(FILE_LEN);
    for byte in key.to_bytes() {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text.push(b'\n');
    text
}

fn parse(text: &[u8]) -> Option<SecretKey> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = char::from(pair[0]).to_digit(16)? * 16 + char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(value).ok()?;
    }
    Some(SecretKey::from_bytes(&bytes))
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey(secret of {})", self.endpoint_id())
    }
}
