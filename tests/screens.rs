//! Programs that own the screen, and shells, in a real terminal: what they had is intact after a restart,
//! in another terminal, and they draw it again.

mod common;

use common::{PROMPT, Place, Program, Running, Tmux, Watch, Window, each_user, killing_the_job};

const ESCAPE: &str = "\x1b";

/// A signal that none of them uses.
const SIGNAL: i32 = 37;

/// A program on a terminal.
fn on_screen<'p>(place: &'p Place, path: &str) -> Program<'p> {
    place
        .system(path)
        .on_terminal()
        .env("TERM", "xterm")
        .env("HOME", place.path(""))
        .env("CKPT_SIGNAL", SIGNAL.to_string())
        .signal(SIGNAL)
}

/// vim, into which `text` has been typed.
fn vim(program: &Program, text: &str) -> Running {
    let mut run = program.start();
    run.expect_text("file.txt");
    run.send_all(&format!("i{text}"));
    run.expect_text(text);
    // What has been typed and not read would be lost, so it has to show that it has read all.
    run.send_all(&format!("{ESCAPE}:echo 'so' . 'far'\r"));
    run.expect_text("sofar");
    run.reads_keys();
    run
}

#[test]
fn vim_in_another_window() {
    each_user(|place| {
        let program = on_screen(place, "/usr/bin/vim").args(["-u", "NONE", "-n", "file.txt"]);
        let mut run = vim(&program, "typed before the checkpoint");
        let before = run.modes();
        let image = run.checkpoint();
        run.kill();

        let mut run = program.clone().window(40, 100).restart(&image);
        run.expect_text("typed before the checkpoint");
        assert_eq!(run.modes(), before);
        run.send_all("oand after it");
        run.expect_text("after it");
        run.send_all(&format!("{ESCAPE}:wq\r"));
        assert!(run.wait().success());
        assert_eq!(place.text("file.txt"), "typed before the checkpoint\nand after it\n");
    });
}

/// A tmux whose windows have what the programs of these tests want.
fn tmux(place: &Place) -> Tmux<'_> {
    place.artifact("libckpt.so");
    place.artifact("restart-static");
    Tmux::start(on_screen(place, "/usr/bin/tmux").env("PS1", PROMPT).env("HISTFILE", ""))
}

/// What starts vim from a shell.
const VIM: &str = "env LD_PRELOAD=./libckpt.so vim -u NONE -n file.txt";

/// Types `text` into the vim that has just been started in a window, and has it write an image. Returns what
/// is on the screen then, but for the last line.
fn vim_in_window<'t>(window: &Window<'t>, text: &str, vim: fn(&Window<'t>) -> i32) -> String {
    window.shows("file.txt");
    window.types(&format!("i{text}"));
    window.presses("Escape");
    window.enters(":echo 'so' . 'far'");
    window.shows("sofar");
    let vim = vim(window);
    window.reads_keys(vim);
    let screen = window.screen();
    window.checkpoint(vim);
    window.kill(vim);
    screen.trim_end().rsplit_once('\n').expect("several lines").0.to_owned()
}

/// Stops the job that shows `screen` in a shell's window, and lets it go on.
fn stop_and_go_on(window: &Window<'_>, screen: &str) {
    window.shows(screen);
    window.presses("C-z");
    window.shows("Stopped");
    window.clears();
    window.enters("fg");
}

/// Ends the vim in a shell's window by `command`; it ends well.
fn end_vim(window: &Window<'_>, command: &str) {
    window.enters(command);
    window.prompts();
    window.enters("echo status=$?");
    window.shows("status=0");
}

#[test]
fn vim_in_tmux() {
    each_user(|place| {
        let tmux = tmux(place);
        let window = tmux.shell((24, 80));
        window.enters(VIM);
        let screen = vim_in_window(&window, "typed before the checkpoint", Window::job);
        window.shows("Killed");
        window.clears();
        window.enters("./restart-static mycheckpoint");
        stop_and_go_on(&window, &screen);
        window.shows(&screen);
        end_vim(&window, ":q!");
        assert!(!place.path("file.txt").exists());

        // The same again, in a larger window.
        let window = tmux.shell((40, 100));
        window.enters("./restart-static mycheckpoint");
        window.shows(&format!("typed before the checkpoint\n{}", "~\n".repeat(38)));
        window.types("oand after it");
        window.shows("and after it");
        window.presses("Escape");
        end_vim(&window, ":wq");
        assert_eq!(place.text("file.txt"), "typed before the checkpoint\nand after it\n");
    });
}

#[test]
fn vim_as_the_command_of_a_window() {
    each_user(|place| {
        let tmux = tmux(place);
        let window = tmux.window((24, 80), &format!("exec {VIM}"));
        let screen = vim_in_window(&window, "typed before the checkpoint", Window::pid);
        window.has_ended("signal 9");

        // From a shell it is a job of that.
        let window = tmux.shell((24, 80));
        window.enters("./restart-static mycheckpoint");
        for _ in 0..3 {
            stop_and_go_on(&window, &screen);
        }
        window.shows(&screen);
        end_vim(&window, ":q!");

        // As the command of a window it is on its own, as before: nobody can stop it.
        let window = tmux.window((30, 90), "exec ./restart-static mycheckpoint");
        window.shows(&format!("typed before the checkpoint\n{}", "~\n".repeat(28)));
        window.presses("C-z");
        window.types("oand after it");
        window.shows("and after it");
        window.presses("Escape");
        window.enters(":wq");
        window.has_ended("status 0");
        assert_eq!(place.text("file.txt"), "typed before the checkpoint\nand after it\n");
    });
}

#[test]
fn less_goes_on_reading() {
    each_user(|place| {
        let text: String = (1..=500).map(|line| format!("line {line}.\n")).collect();
        place.file("text", text);
        let program = on_screen(place, "/usr/bin/less").args(["text"]).window(24, 80);
        let mut run = program.start();
        run.expect_text("line 23.");
        run.send_all("100g");
        run.expect_text("line 122.");
        run.reads_keys();
        let before = run.modes();
        let image = run.checkpoint();
        run.kill();

        let mut run = program.clone().window(12, 60).restart(&image);
        run.expect_text("line 100.");
        assert_eq!(run.modes(), before);
        run.send_all("200g");
        run.expect_text("line 210.");
        run.send_all("q");
        run.ends_well();
    });
}

#[test]
fn python_with_its_line_editor() {
    each_user(|place| {
        let program = on_screen(place, "/usr/bin/python3").args(["-S", "-q"]);
        let mut run = program.start();
        run.expect_text(">>> ");
        run.send_all("value = 6 * 7\r");
        run.expect_text(">>> ");
        run.send_all("print('so', 'far')\r");
        run.expect_text("so far");
        run.expect_text(">>> ");
        run.reads_keys();
        let before = run.modes();
        let image = run.checkpoint();
        run.kill();

        let mut run = program.restart(&image);
        run.send_all("print('value', value)\r");
        run.expect_text("value 42");
        run.expect_text(">>> ");
        // The line before the last is still there: two times up.
        run.send_all("\x10\x10\r");
        run.expect_text("so far");
        run.expect_text(">>> ");
        run.reads_keys();
        assert_eq!(run.modes(), before);
        run.send_all("\x04");
        run.ends_well();
    });
}

/// An interactive shell on a terminal, which remembers what it is told.
fn shell(place: &Place) -> Program<'_> {
    on_screen(place, "/bin/bash")
        .args(["--norc", "-i"])
        .env("PS1", PROMPT)
        .env("INPUTRC", "/dev/null")
        .env("HISTFILE", "")
}

/// Tells a shell something, and waits for what it says to it.
fn tell(shell: &mut Running, command: &str, answer: &str) {
    shell.send_all(&format!("{command}\r"));
    shell.expect_text(answer);
    shell.expect_text(PROMPT);
}

/// The shell has its history, and controls jobs.
fn is_itself(shell: &mut Running) {
    // What is asked for must not stand in the question, which is shown, too.
    tell(shell, "history", "echo be''fore");
    tell(shell, "/bin/echo external $((6 * 7))", "external 42");
    tell(shell, "sleep 1000 &", "[1] ");
    tell(shell, "jobs", "Running");
    tell(shell, "kill %1; wait %1; echo status=$?", "status=143");
    let echoes = |shell: &mut Running, line: &str| {
        shell.send_all(&format!("{line}\r"));
        shell.expect_text(line);
    };
    shell.send_all("cat\r");
    echoes(shell, "in the foreground");
    shell.send_all("\x1a");
    shell.expect_text("Stopped");
    shell.expect_text(PROMPT);
    shell.send_all("fg\r");
    echoes(shell, "in the foreground again");
    shell.send_all("\x03");
    shell.expect_text(PROMPT);
    tell(shell, "echo status=$?", "status=130");
}

#[test]
fn bash_with_history_and_jobs() {
    each_user(|place| {
        let program = shell(place);
        let mut run = program.start();
        run.expect_text(PROMPT);
        tell(&mut run, "echo be''fore", "before");
        tell(&mut run, "echo $$ >pid; echo st''ored", "stored");
        is_itself(&mut run);
        for _ in 0..3 {
            run.reads_keys();
            let image = run.checkpoint();
            run.kill();
            run = program.restart(&image);
            tell(&mut run, "\x15echo $$ | cmp - pid && echo the sa''me", "the same");
            is_itself(&mut run);
        }
        run.send_all("exit 7\r");
        assert_eq!(run.wait().code(), Some(7));
        let untouched = place.system("/bin/true").on_terminal().start_bare();
        assert_eq!(run.modes(), untouched.modes());
    });
}

#[test]
fn bash_in_a_window_that_changes() {
    each_user(|place| {
        let program = shell(place);
        let mut run = program.start();
        run.expect_text(PROMPT);
        run.reads_keys();
        let image = run.checkpoint();
        run.kill();
        let mut run = program.window(31, 99).restart(&image);
        tell(&mut run, "stty size", "31 99");
        run.resize(30, 90);
        // The kernel tells this program by a signal, and that one is answered when it comes.
        tell(
            &mut run,
            "until [ \"$(stty size)\" = '30 90' ]; do :; done; echo resi''zed",
            "resized",
        );
        run.send_all("\x04");
        assert!(run.wait().success());
    });
}

/// One that is a terminal's first program has no shell above it, and tmux does not let it stop.
#[test]
fn bash_as_the_command_of_a_window() {
    each_user(|place| {
        let tmux = tmux(place);
        let preloaded = "exec env LD_PRELOAD=./libckpt.so bash --norc -i";
        let window = tmux.window((24, 80), preloaded);
        window.prompts();
        let bash = window.pid();
        window.reads_keys(bash);
        window.checkpoint(bash);
        window.kill(bash);
        window.has_ended("signal 9");

        let restart = "exec ./restart-static mycheckpoint";
        let window = tmux.window((30, 90), restart);
        window.enters("stty size");
        window.shows("30 90");
        window.prompts();
        window.enters("sh -c 'echo runn''ing; exec cat'");
        window.shows("running");
        window.presses("C-z");
        window.shows("Stopped");
        window.prompts();
        window.enters(&format!("{}; suspend -f; echo still he''re", killing_the_job("KILL")));
        window.shows("still here");
        window.prompts();
        window.enters("exit 7");
        window.has_ended("status 7");

        let window = tmux.window((30, 90), restart);
        window.enters("trap 'echo gone >gone' EXIT; echo read''y");
        window.shows("ready");
        let gone = Watch::creations(&place.path(""));
        window.closes();
        gone.wait_for("gone");
    });
}

/// A shell that has been restarted in another one: they do not get in each other's way.
#[test]
fn bash_as_a_job_of_bash() {
    each_user(|place| {
        let program = shell(place);
        let mut run = program.clone().env("PS1", "inner> ").start();
        run.expect_text("inner> ");
        run.reads_keys();
        run.checkpoint();
        run.kill();
        place.artifact("restart-static");
        let mut run = program.start_bare();
        run.expect_text(PROMPT);

        run.send_all("./restart-static mycheckpoint\r");
        run.send_all("\r");
        run.expect_text("inner> ");
        for _ in 0..3 {
            run.send_all("echo wi''thin; cat\r");
            run.expect_text("within");
            run.send_all("a line\r");
            run.expect_text("a line");
            run.send_all("\x03");
            run.expect_text("inner> ");
            run.send_all("suspend -f\r");
            run.expect_text("Stopped");
            run.expect_text(PROMPT);
            tell(&mut run, "echo with''out", "without");
            run.send_all("fg\r");
            run.expect_text("restart-static");
        }
        run.send_all("exit 7\r");
        run.expect_text(PROMPT);
        tell(&mut run, "echo status=$?", "status=7");

        // In the background it stops until it is fetched.
        run.send_all("./restart-static mycheckpoint &\r");
        tell(&mut run, "wait -n; jobs", "Stopped");
        run.send_all("fg\r");
        run.send_all("\r");
        run.expect_text("inner> ");
        run.send_all("kill -9 $$\r");
        run.expect_text(PROMPT);
        tell(&mut run, "echo status=$?", "status=137");
        run.send_all("\x04");
        assert_eq!(run.wait().code(), Some(0));
    });
}

/// One that owns the screen is a job, too: it stops where it may not have the terminal, and draws its
/// screen when it gets it.
#[test]
fn less_as_a_job_of_bash() {
    each_user(|place| {
        let text: String = (1..=500).map(|line| format!("line {line}.\n")).collect();
        place.file("text", text);
        let mut run = on_screen(place, "/usr/bin/less").args(["text"]).start();
        run.expect_text("line 23.");
        run.reads_keys();
        run.checkpoint();
        run.kill();
        place.artifact("restart-static");
        let mut run = shell(place).start_bare();
        run.expect_text(PROMPT);

        // `wait -n` would wait for ever for a job that has stopped before.
        let stopped = "./restart-static mycheckpoint & until [ \"$(jobs -s)\" ]; do :; done; jobs";
        tell(&mut run, stopped, "Stopped");
        for _ in 0..3 {
            run.send_all("fg\r");
            run.expect_text("line 23.");
            // A key that comes while it draws may stop it only with the next one.
            run.job_reads_keys();
            run.send_all("\x1a");
            run.expect_text("Stopped");
            run.expect_text(PROMPT);
        }
        run.send_all("fg\r");
        run.expect_text("line 23.");
        run.send_all("q");
        run.expect_text(PROMPT);
        tell(&mut run, "echo status=$?", "status=0");
        run.send_all("\x04");
        assert!(run.wait().success());
    });
}

/// It has a handler of its own for every signal that the C library lets it have one for.
#[test]
fn top_goes_on_showing_processes() {
    const OF_THE_C_LIBRARY: i32 = 32;
    each_user(|place| {
        let program = on_screen(place, "/usr/bin/top")
            .env("CKPT_SIGNAL", OF_THE_C_LIBRARY.to_string())
            .signal(OF_THE_C_LIBRARY);
        let mut run = program.start();
        run.expect_text("load average");
        run.reads_keys();
        let before = run.modes();
        for _ in 0..3 {
            let image = run.checkpoint();
            run.kill();
            run = program.clone().window(40, 100).restart(&image);
            run.expect_text("load average");
            run.reads_keys();
            assert_eq!(run.modes(), before);
        }
        run.send_all("q");
        run.ends_well();
    });
}

#[test]
fn htop_goes_on_showing_processes() {
    each_user(|place| {
        let program = on_screen(place, "/usr/bin/htop");
        let mut run = program.start();
        run.expect_text("Load average");
        run.reads_keys();
        let before = run.modes();
        let image = run.checkpoint();
        run.kill();
        let mut run = program.window(40, 100).restart(&image);
        run.expect_text("Load average");
        assert_eq!(run.modes(), before);
        run.send_all("q");
        run.ends_well();
    });
}
