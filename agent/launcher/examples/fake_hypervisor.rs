//! A hypervisor for the tests of the supervisor (`tests/supervisor`): it takes QEMU's arguments, connects to
//! the supervisor as QEMU does, and then behaves as the kernel command line says behind `fake=`.
//!
//! ```text
//! well      it lets the guest run, and ends when the keys are pressed
//! gone      it ends at once
//! flood     it says a line without an end
//! garbage   it says what is not QMP
//! close     it closes the connection once the guest runs
//! busy      it hears no keys, and ends when it is told to
//! deaf      it fills the console, as a guest may, and refuses to press keys
//! full      its disk is full; the guest goes on the second time that it is let
//! shutdown  the guest shuts itself down as soon as it runs
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;
const FULL: &str = r#"{"event": "BLOCK_IO_ERROR", "data": {"node-name": "disk0", "action": "stop",
 "reason": "No space left on device"}}"#;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let after = |start: &str| {
        let found =
            words.iter().flat_map(|word| word.split([' ', ','])).find_map(|word| word.strip_prefix(start));
        found.map(str::to_owned)
    };
    let behaviour = after("fake=").ok_or("no fake= in the kernel command line")?;
    println!("fake hypervisor {} behaves {behaviour}", std::process::id());
    if behaviour == "gone" {
        return Ok(ExitCode::from(3));
    }
    let path = words.iter().find(|word| word.starts_with("socket,id=monitor,")).ok_or("no monitor")?;
    let path = path.split(',').find_map(|word| word.strip_prefix("path=")).ok_or("no path")?;
    let mut stream = UnixStream::connect(path)?;
    if behaviour == "deaf" {
        fcntl(std::io::stdout(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        while std::io::stdout().write_all(&[b'x'; 100]).and_then(|()| std::io::stdout().flush()).is_ok() {}
    }
    match behaviour.as_str() {
        // Both end when the supervisor listens no more, and then wait for their end.
        "flood" => while stream.write_all(&[b'x'; 4096]).is_ok() {},
        "garbage" => writeln!(stream, "hello")?,
        _ => return serve(stream, &behaviour),
    }
    loop {
        std::thread::park();
    }
}

/// What QMP's commands do to a guest.
fn serve(mut stream: UnixStream, behaviour: &str) -> Result<ExitCode, Box<dyn Error>> {
    writeln!(stream, "{GREETING}")?;
    let mut state = "prelaunch";
    let mut let_run = 0;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        let id = line.split("\"id\":").nth(1).and_then(|rest| rest.split([',', '}']).next()).unwrap_or("0");
        let is = |command: &str| line.contains(&format!("\"execute\":\"{command}\""));
        if is("cont") {
            let_run += 1;
            state = "running";
            writeln!(stream, r#"{{"event": "RESUME"}}"#)?;
        }
        match behaviour {
            _ if is("query-status") => {
                writeln!(stream, r#"{{"return": {{"status": "{state}"}}, "id": {id}}}"#)?;
            }
            "deaf" if is("send-key") => {
                writeln!(stream, r#"{{"error": {{"desc": "it has no keyboard"}}, "id": {id}}}"#)?;
                continue;
            }
            _ => writeln!(stream, r#"{{"return": {{}}, "id": {id}}}"#)?,
        }
        if is("quit") {
            return Ok(ExitCode::SUCCESS);
        }
        if is("send-key") && behaviour != "busy" {
            writeln!(
                stream,
                r#"{{"event": "SHUTDOWN", "data": {{"guest": true, "reason": "guest-reset"}}}}"#
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        match behaviour {
            "close" if is("cont") => break,
            "full" if is("cont") && let_run == 1 => {
                state = "io-error";
                writeln!(stream, "{}", FULL.replace('\n', ""))?;
                writeln!(stream, r#"{{"event": "STOP"}}"#)?;
            }
            "shutdown" if is("cont") => {
                let reason = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;
                writeln!(stream, "{reason}")?;
                return Ok(ExitCode::SUCCESS);
            }
            _ => {}
        }
    }
    drop(stream);
    loop {
        std::thread::park();
    }
}
