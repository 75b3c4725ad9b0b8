//! What the store does to a file system, and the real one.
//!
//! A [`StoreDisk`] is the only way to the file: the simulator passes one that loses, tears and refuses
//! writes.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;

/// Only the node's own user reads its store: specs are in it.
const FILE_MODE: u32 = 0o600;

/// One directory. Names are plain file names in it. What `create`, `rename` and `remove` did is durable once
/// [`StoreDisk::sync_dir`] returned, and may come back half done after a power loss before that.
pub trait StoreDisk: Debug + Send + Sync {
    /// The full path of `name`, for messages.
    fn path(&self, name: &str) -> PathBuf;

    /// Whether there is a file `name`, whatever is in it.
    ///
    /// # Errors
    /// The directory cannot be reached.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Makes the file `name`, empty and for its owner alone, and the directory if there is none.
    ///
    /// # Errors
    /// There is one already, or the disk's.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Opens the file `name` to read and write.
    ///
    /// # Errors
    /// There is none, or the disk's.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Makes the content and the length of the file `name` durable; nobody has it open.
    ///
    /// # Errors
    /// The disk's; final: what was not durable may be lost although a second call succeeds.
    fn sync_file(&self, name: &str) -> io::Result<()>;

    /// Removes the file `name`.
    ///
    /// # Errors
    /// There is none, or the disk's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives the file `from` the name `to`, in one step.
    ///
    /// # Errors
    /// There is no `from`, or the disk's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives the file `from` the name `to` as well.
    ///
    /// # Errors
    /// There is no `from`, there is a `to`, or the disk's.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes the directory durable: which names there are.
    ///
    /// # Errors
    /// The disk's; final.
    fn sync_dir(&self) -> io::Result<()>;
}

/// A directory of the real file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirDisk {
    data_dir: PathBuf,
}

impl DirDisk {
    /// The directory `data_dir`; it need not exist.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// Gives a new file to the directory's owner: an operator who mends a store is root, and the agent that
    /// has to open it afterwards is not.
    fn hand_over(&self, file: &File) -> io::Result<()> {
        let (dir, own) = (fs::metadata(&self.data_dir)?, file.metadata()?);
        if own.uid() == 0 && dir.uid() != 0 {
            fchown(file, Some(dir.uid()), Some(dir.gid()))?;
        }
        Ok(())
    }
}

impl StoreDisk for DirDisk {
    fn path(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path(name).try_exists()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        fs::create_dir_all(&self.data_dir)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        let file = options.open(self.path(name))?;
        self.hand_over(&file)?;
        backend(file)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        backend(OpenOptions::new().read(true).write(true).open(self.path(name))?)
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        File::open(self.path(name))?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path(from), self.path(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.data_dir)?.sync_all()
    }
}

/// redb's own backend: it locks the file, so a second process is refused.
fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    let backend = FileBackend::new(file).map_err(io::Error::other)?;
    Ok(Box::new(backend))
}
