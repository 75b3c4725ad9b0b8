//! The binary: the agent, the launcher of its VM units and the command line.

mod agent;
mod cli;
mod keygen;

use std::process::ExitCode;

fn main() -> ExitCode {
    let command = match cli::parse() {
        Ok(command) => command,
        Err(code) => return code,
    };
    match command {
        cli::Command::Agent(args) => ended(agent::run(args)),
        cli::Command::Keygen(args) => ended(keygen::run(args)),
        cli::Command::VmExec(args) => ended(agent::vm_exec(&args.name)),
        cli::Command::VmWait(args) => ended(agent::vm_wait(&args.name)),
        cli::Command::VmStop(args) => ended(agent::vm_stop(&args.name)),
        cli::Command::Client(command) => cli::run(command),
    }
}

/// 0, or the exit code of the error after the chain of causes was printed.
fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&format!("{error:#}"));
            ExitCode::from(agent::disk_fault::exit_code(&error))
        }
    }
}
