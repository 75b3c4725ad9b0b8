//! Key files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use blixard_net::NodeKey;
use blixard_net::key::{LoadKeyError, check_endpoint_id};

fn saved(directory: &Path) -> (NodeKey, PathBuf) {
    let (key, path) = (NodeKey::generate(), directory.join("node.key"));
    key.save(&path).expect("save");
    (key, path)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_saved_key_is_private_and_comes_back_as_the_same_identity() {
    let directory = tempfile::tempdir().expect("directory");
    let (key, path) = saved(directory.path());
    assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read(&path).expect("file").len(), 65);
    assert_eq!(NodeKey::load(&path, None).expect("load").endpoint_id(), key.endpoint_id());
    let names: Vec<_> = fs::read_dir(directory.path()).expect("directory").collect();
    assert_eq!(names.len(), 1, "nothing temporary is left: {names:?}");
}

#[test]
fn a_key_file_is_never_replaced() {
    let directory = tempfile::tempdir().expect("directory");
    let (key, path) = saved(directory.path());
    let error = NodeKey::generate().save(&path).expect_err("the file exists");
    assert!(error.is_already_there(), "{error}");
    assert_eq!(NodeKey::load(&path, None).expect("load").endpoint_id(), key.endpoint_id());
    assert_eq!(fs::read_dir(directory.path()).expect("directory").count(), 1);
}

#[test]
fn a_dangling_link_is_not_followed_by_save() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("node.key");
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).expect("link");
    assert!(NodeKey::generate().save(&path).expect_err("taken").is_already_there());
    assert!(!directory.path().join("elsewhere").exists());
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_the_command_that_corrects_it() {
    let directory = tempfile::tempdir().expect("directory");
    let (_, path) = saved(directory.path());
    for mode in [0o640, 0o604, 0o620, 0o610, 0o666, 0o440] {
        set_mode(&path, mode);
        let error = NodeKey::load(&path, None).expect_err("exposed");
        assert!(matches!(error, LoadKeyError::Exposed { mode: seen, .. } if seen == mode), "{error}");
        assert!(error.to_string().contains(&format!("chmod 0600 {}", path.display())), "{error}");
    }
    set_mode(&path, 0o400);
    assert!(NodeKey::load(&path, None).is_ok());
}

#[test]
fn a_credential_may_be_group_readable_only_directly_in_the_credentials_directory() {
    let directory = tempfile::tempdir().expect("directory");
    let (key, path) = saved(directory.path());
    set_mode(&path, 0o440);
    let loaded = NodeKey::load(&path, Some(directory.path())).expect("a credential");
    assert_eq!(loaded.endpoint_id(), key.endpoint_id());

    let below = directory.path().join("below");
    fs::create_dir(&below).expect("directory");
    let (_, nested) = saved(&below);
    set_mode(&nested, 0o440);
    assert!(NodeKey::load(&nested, Some(directory.path())).is_err());
    assert!(NodeKey::load(&path, Some(&below)).is_err());
    let around = below.join("..").join("node.key");
    assert!(NodeKey::load(&around, Some(directory.path())).is_err());
}

#[test]
fn a_malformed_key_file_is_refused_and_never_shown() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("node.key");
    let digits = "ab".repeat(32);
    let bad = [
        String::new(),
        "\n".to_owned(),
        digits[1..].to_owned(),
        format!("{digits}0"),
        format!("{digits}\n\n"),
        format!(" {digits}"),
        format!("{digits}\r\n"),
        "zz".repeat(32),
        "é".repeat(32),
        "+a".repeat(32),
        digits.repeat(100_000),
    ];
    for text in bad {
        fs::write(&path, &text).expect("write");
        set_mode(&path, 0o600);
        let error = NodeKey::load(&path, None).expect_err("malformed");
        assert!(matches!(error, LoadKeyError::Malformed { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("blixard keygen") && !message.contains("abab"), "{message}");
    }
    for good in [digits.clone(), format!("{digits}\n"), digits.to_uppercase()] {
        fs::write(&path, good).expect("write");
        assert!(NodeKey::load(&path, None).is_ok());
    }
}

#[test]
fn missing_files_directories_and_pipes_have_errors_of_their_own() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("node.key");
    assert!(NodeKey::load(&path, None).expect_err("missing").is_not_found());
    let error = NodeKey::load(directory.path(), None).expect_err("a directory");
    assert!(matches!(error, LoadKeyError::NotAFile { .. }), "{error}");
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    assert!(matches!(NodeKey::load(&pipe, None), Err(LoadKeyError::NotAFile { .. })));
    let unwritable = NodeKey::generate().save(&directory.path().join("none").join("node.key"));
    assert!(!unwritable.expect_err("no directory").is_already_there());
}

#[test]
fn the_debug_form_hides_the_secret() {
    let directory = tempfile::tempdir().expect("directory");
    let (key, path) = saved(directory.path());
    let secret = fs::read_to_string(&path).expect("file");
    let shown = format!("{key:?}");
    assert!(!shown.contains(secret.trim()) && shown.contains(&key.endpoint_id().to_string()), "{shown}");
}

#[test]
fn an_endpoint_id_that_no_key_can_have_is_recognised() {
    assert_eq!(check_endpoint_id(&NodeKey::generate().endpoint_id()), Ok(()));
    let impossible = (0..=255u8)
        .map(|byte| blixard_model::EndpointId::from_bytes([byte; 32]))
        .filter(|id| check_endpoint_id(id).is_err())
        .count();
    assert!(impossible > 0, "some of 256 patterns are no curve point");
}

#[test]
fn a_keys_debug_form_shows_its_public_half_only() {
    let dir = tempfile::tempdir().expect("dir");
    let key = NodeKey::generate();
    key.save(&dir.path().join("node.key")).expect("saved");
    let secret = std::fs::read_to_string(dir.path().join("node.key")).expect("read");
    let bytes: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&secret[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    let listed = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let holder = Some((key.clone(), "in something else"));
    for shown in [format!("{key:?}"), format!("{key:#?}"), format!("{holder:?}"), format!("{holder:#?}")] {
        let compact = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(compact.contains(&key.endpoint_id().to_string()), "{compact}");
        assert!(!compact.to_lowercase().contains(secret.trim()) && !compact.contains(&listed), "{compact}");
    }
}
