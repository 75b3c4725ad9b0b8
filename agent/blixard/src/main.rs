//! The binary: the agent, the launcher of its VM units or the command line, as its arguments say.

mod end;
mod files;
mod units;

use std::path::Path;
use std::process::ExitCode;

use blixard_cli::Asked;
use blixard_launcher as launcher;
use end::ended;

fn main() -> ExitCode {
    let asked = match blixard_cli::parse() {
        Ok(asked) => asked,
        Err(code) => return code,
    };
    match asked {
        Asked::Agent(args) => {
            let ran = blixard_daemon::run(&args.config, args.check_config);
            let failed = ran.is_err() && !args.check_config;
            let code = ended(ran);
            if failed {
                blixard_daemon::last_word();
            }
            code
        }
        Asked::Keygen(args) => ended(blixard_daemon::keygen(args.key_file, args.config)),
        Asked::VmRun(args) => {
            let lease_dir = args.lease_dir.map(launcher::LeaseDir::new).unwrap_or_default();
            match launcher::vm_run(args.name.as_str(), lease_dir) {
                Ok(end) => ExitCode::from(end.exit_status()),
                Err(error) => ended(Err(error)),
            }
        }
        Asked::VmChild(args) => {
            let child = launcher::vm_child(args.supervisor, &args.program, &args.arguments);
            ended(child.map(|never| match never {}))
        }
        Asked::VmExec(name) => ended(launcher::vm_exec(name.as_str()).map(|never| match never {})),
        Asked::VmWait(name) => ended(launcher::vm_wait(name.as_str())),
        Asked::VmStop(name) => ended(launcher::vm_stop(name.as_str())),
        Asked::VmForget(name) => ended(launcher::vm_forget(name.as_str())),
        Asked::LastResort(args) => ended(last_resort(&args.config)),
        Asked::Client(command) => blixard_cli::run(command, &files::LocalFiles, &units::SystemdUnits),
    }
}

/// Watches if the configuration wants that.
fn last_resort(config: &Path) -> anyhow::Result<()> {
    if blixard_daemon::wants_last_resort(config)? {
        launcher::last_resort(&launcher::LeaseDir::default())?;
    }
    Ok(())
}
