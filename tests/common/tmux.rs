//! Windows of a terminal multiplexer, as people have them: what is typed goes to whatever is in the window,
//! and what that shows can be looked at.

use std::process::Command;
use std::time::Instant;

use super::running::{only_child, waits_for_keys};
use super::{PATIENCE, PROMPT, Place, Program, Watch, place};

/// A server of tmux that only this test knows. It ends, with all its windows, when this is dropped.
pub struct Tmux<'p> {
    program: Program<'p>,
}

impl<'p> Tmux<'p> {
    /// Starts one whose windows stay when what ran in them has ended. `program` is tmux, with the environment
    /// that the windows are to have.
    pub fn start(program: Program<'p>) -> Tmux<'p> {
        let place = program.place;
        place.file("tmux.conf", "set -g exit-empty off\nset -g remain-on-exit on\n");
        let program = program.env("TMUX_TMPDIR", place.path("")).env("SHELL", "/bin/sh");
        let tmux = Tmux { program };
        tmux.tell(&["start-server"]);
        tmux
    }

    /// A new window of so many rows and columns, in which `command` runs.
    pub fn window(&self, (rows, columns): (u16, u16), command: &str) -> Window<'_> {
        let [rows, columns] = [rows, columns].map(|size| size.to_string());
        let size = ["-x", &columns, "-y", &rows];
        let session = ["new-session", "-d", "-P", "-F", "#{pane_id}"];
        let pane = self.tell(&[&session[..], &size, &[command]].concat());
        Window { tmux: self, pane: pane.trim().to_owned() }
    }

    /// A new window with an interactive shell in it.
    pub fn shell(&self, size: (u16, u16)) -> Window<'_> {
        let window = self.window(size, "exec bash --norc -i");
        window.prompts();
        window
    }

    /// Has the server do something; returns what it answers.
    fn tell(&self, what: &[&str]) -> String {
        place::run(&mut self.command(what))
    }

    fn command(&self, what: &[&str]) -> Command {
        self.program.clone().args(["-u", "-f", "tmux.conf"]).args(what).to_command()
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}

/// A window, and what runs in it.
pub struct Window<'t> {
    tmux: &'t Tmux<'t>,
    pane: String,
}

impl Window<'_> {
    /// Types `text`.
    pub fn types(&self, text: &str) {
        self.tmux.tell(&["send-keys", "-t", &self.pane, "-l", "--", text]);
    }

    /// Presses a key by the name that tmux has for it, as `Enter` or `C-z`.
    pub fn presses(&self, key: &str) {
        self.tmux.tell(&["send-keys", "-t", &self.pane, key]);
    }

    /// Types a line.
    pub fn enters(&self, line: &str) {
        self.types(line);
        self.presses("Enter");
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.tmux.tell(&["capture-pane", "-p", "-t", &self.pane])
    }

    /// Waits until `text` is on the screen, of whose lines the blanks at the end are not told.
    pub fn shows(&self, text: &str) {
        self.until(&format!("for {text:?}"), || self.screen().contains(text));
    }

    /// Waits until a shell prompts, which then has read all keys.
    pub fn prompts(&self) {
        let here = || {
            let row = self.asks("#{cursor_y}").parse().expect("a row");
            self.screen().lines().nth(row).is_some_and(|line| line == PROMPT.trim_end())
        };
        self.until("for a prompt", here);
    }

    /// Clears the screen by the shell that is in the window, so that what comes then is new.
    pub fn clears(&self) {
        self.prompts();
        self.enters("clear");
        self.until("for an empty screen", || self.screen().trim_end() == PROMPT.trim_end());
    }

    /// The id of the window's own process.
    pub fn pid(&self) -> i32 {
        self.asks("#{pane_pid}").parse().expect("the number of a process")
    }

    /// What tmux knows of it by a variable.
    fn asks(&self, variable: &str) -> String {
        self.tmux.tell(&["display-message", "-p", "-t", &self.pane, variable]).trim().to_owned()
    }

    /// The id of the one job of the shell that is in the window.
    pub fn job(&self) -> i32 {
        only_child(self.pid())
    }

    /// Waits until process `pid` stands in a call in which it waits for keys. No event tells that.
    pub fn reads_keys(&self, pid: i32) {
        self.until("for it to wait for keys", || waits_for_keys(pid));
    }

    /// Asks process `pid`, a program with the library, for a checkpoint, and waits for the image.
    pub fn checkpoint(&self, pid: i32) {
        let Program { image, signal, .. } = &self.tmux.program;
        let name = image.file_name().expect("a name").to_owned();
        let watch = Watch::renames(image.parent().expect("a directory"));
        send(pid, *signal);
        self.until("for the image", || watch.names().contains(&name));
    }

    /// Kills process `pid` as a crash would.
    pub fn kill(&self, pid: i32) {
        send(pid, libc::SIGKILL);
    }

    /// Waits until the window's process has ended, and what tmux says of that has `how` in it.
    pub fn has_ended(&self, how: &str) {
        self.until("for its end", || {
            // libutempter, which tmux calls when a terminal is closed, resets SIGCHLD for a moment. What ends
            // meanwhile is not waited for until another one ends.
            self.tmux.tell(&["run-shell", "-b", "true"]);
            self.screen().contains("Pane is dead")
        });
        assert!(self.screen().contains(how), "{how:?} in:\n{}", self.screen());
    }

    /// Closes it, as its user would.
    pub fn closes(self) {
        self.tmux.tell(&["kill-pane", "-t", &self.pane]);
    }

    /// Waits until `is_it`.
    fn until(&self, what: &str, is_it: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_it() {
            assert!(Instant::now() < deadline, "waited in vain {what}:\n{}", self.screen());
            std::thread::yield_now();
        }
    }
}

fn send(pid: i32, signal: i32) {
    // SAFETY: a system call without pointers, to a process that its parent, which lives, has not waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid} {signal}");
}
