//! The command line: parses the arguments, opens the spool, calls the library, reports the result.
//!
//! `receive` is a contract with an MTA, so it is recognized before anything else is done. Every
//! unexpected failure in it, bad usage and a panic included, exits with 75, because an MTA turns
//! most other statuses into a bounce.

mod act;
mod args;
mod background;
mod check;
mod configuration;
mod descriptors;
mod destinations;
mod ending;
mod exit;
mod list;
mod log;
mod lookup;
mod output;
mod privilege;
mod probe;
mod route;
mod run;
mod schedule;
mod show;
mod site;
mod start;
mod status;
mod submit;
mod suspend;
mod table;
mod time;
mod transports;
mod trust;
mod waiting;
mod watchdog;
mod way;

use std::ffi::OsString;
use std::io::IsTerminal;

use args::{Args, Command};
use exit::Failure;

/// Runs the program with `arguments`, the first of which is its name, and returns the exit status.
pub fn main(arguments: Vec<OsString>) -> u8 {
    // No panic may unwind into C. `others` catches its own panics, so a panic caught here is one of
    // `receive`: 75 is the only status that makes the MTA keep the message.
    let code = std::panic::catch_unwind(|| {
        start::prepare();
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let code = if args::is_receive(&arguments) {
            receive(arguments)
        } else {
            others(arguments)
        };
        log::finish();
        code
    });
    code.unwrap_or_else(|_| ending::after_panic(exit::EX_TEMPFAIL))
}

fn receive(arguments: Vec<OsString>) -> u8 {
    ending::panics_end_in(exit::EX_TEMPFAIL);
    ending::outlive_file_size_limit();
    let args = match Args::read(arguments) {
        Ok(args) => args,
        Err(error) => {
            output::say_usage_to_mta(&error);
            // A recipient such as `-h@example.org` makes an MTA ask for help, which must not count as
            // acceptance: help exits with 0 only at a terminal.
            let asked = !error.use_stderr() && std::io::stdin().is_terminal();
            return if asked { 0 } else { exit::EX_TEMPFAIL };
        }
    };
    let Command::Receive(receive) = &args.command else {
        return exit::EX_TEMPFAIL;
    };
    match submit::receive(&args.global, receive) {
        Ok(()) => 0,
        Err(failure) => output::refuse(&failure),
    }
}

fn others(arguments: Vec<OsString>) -> u8 {
    ending::panics_end_in(exit::EX_SOFTWARE);
    let args = match Args::read(arguments) {
        Ok(args) => args,
        Err(error) => {
            output::say_usage(&error);
            return if error.use_stderr() {
                exit::EX_USAGE
            } else {
                0
            };
        }
    };
    // The panic hook has already reported a panic; exit with the status of an internal error.
    match std::panic::catch_unwind(|| dispatch(&args)) {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => output::complain(&failure),
        Err(_) => ending::after_panic(exit::EX_SOFTWARE),
    }
}

fn dispatch(args: &Args) -> Result<u8, Failure> {
    let global = &args.global;
    match &args.command {
        Command::Init(init) => configuration::init(global, init),
        Command::Send(send) => submit::send(global, send),
        Command::Receive(receive) => submit::receive(global, receive),
        Command::Run(run) => return run::run(global, run),
        Command::List(list) => list::list(global, list),
        Command::Count(count) => list::count(global, count),
        Command::Show(show) => show::show(global, show),
        Command::Retry(retry) => return act::retry(global, retry),
        Command::Flush(flush) => act::flush(global, flush),
        Command::Freeze(freeze) => return act::freeze(global, freeze),
        Command::Thaw(thaw) => return act::thaw(global, thaw),
        Command::Discard(discard) => return act::discard(global, discard),
        Command::Bounce(bounce) => return act::bounce(global, bounce),
        Command::Suspend(args) => return suspend::suspend(global, args),
        Command::Resume(args) => return suspend::resume(global, args),
        Command::Route(route) => return route::route(global, route),
        Command::Schedule(args) => schedule::schedule(global, args),
        Command::Probe(probe) => return probe::probe(global, probe),
        Command::Destinations(args) => return destinations::destinations(global, args),
        Command::Check(check) => return check::check(global, check),
        Command::Config(config) => configuration::config(global, config),
    }
    .map(|()| 0)
}
