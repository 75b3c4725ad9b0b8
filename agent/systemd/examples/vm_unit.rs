//! Drives VM units without an agent, for use when a unit misbehaves on a real machine.
//!
//! `vm_unit start ORDER.json | stop NAME | list | reset NAME | last NAME LINES | follow NAME | watch
//! SECONDS`, run as the agent's user. Installed as `/usr/bin/blixard`, the program also serves the unit's own
//! commands (`vm-run|vm-stop NAME`, and `vm-child` of the former).

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use blixard_launcher as launcher;
use blixard_model::words::with_causes;
use blixard_systemd::{UnitManager, journal};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Box<dyn Error>> {
    match words {
        ["vm-run", name] => {
            let end = launcher::vm_run(name, launcher::LeaseDir::default())?;
            std::process::exit(end.exit_status().into())
        }
        ["vm-child", supervisor, program, "--", arguments @ ..] => {
            let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
            match launcher::vm_child(supervisor.parse()?, program, &arguments)? {}
        }
        ["vm-stop", name] => Ok(launcher::vm_stop(name)?),
        _ => tokio::runtime::Runtime::new()?.block_on(drive(words)),
    }
}

async fn drive(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    match words {
        ["last", name, lines] => {
            for line in journal::last_lines(&name.parse()?, None, lines.parse()?).await? {
                println!("{line}");
            }
            return Ok(());
        }
        ["follow", name] => {
            let mut follow = journal::follow(&name.parse()?, 5)?;
            while let Some(line) = follow.next_line().await? {
                println!("{line}");
            }
            return Ok(());
        }
        _ => {}
    }
    let runtime = UnitManager::connect().await?;
    println!("connected after {} ms", began.elapsed().as_millis());
    let began = Instant::now();
    match words {
        ["start", order] => runtime.start(&serde_json::from_slice(&std::fs::read(order)?)?).await?,
        ["stop", name] => runtime.stop(&name.parse()?).await?,
        ["reset", name] => runtime.reset_failed(&name.parse()?).await?,
        ["list"] => print_list(&runtime).await,
        ["watch", seconds] => {
            let watching = watch(&runtime, began);
            let _ = tokio::time::timeout(Duration::from_secs(seconds.parse()?), watching).await;
        }
        _ => return Err("see the head of the source for the commands".into()),
    }
    println!("done after {} ms", began.elapsed().as_millis());
    Ok(())
}

async fn watch(runtime: &UnitManager, began: Instant) {
    loop {
        runtime.changed().await;
        println!("changed at {} ms", began.elapsed().as_millis());
        print_list(runtime).await;
    }
}

async fn print_list(runtime: &UnitManager) {
    match runtime.list().await {
        Ok(units) => units.iter().for_each(|unit| println!("{unit:?} {} {}", unit.observed(), unit.exit)),
        Err(error) => println!("{}", with_causes(&error)),
    }
}
