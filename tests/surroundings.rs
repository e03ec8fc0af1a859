//! What has become of the files around a program between its checkpoint and its restart: an image
//! needs no executable and no library any more; what it does need, and what has changed of it, is
//! told before anything is restored.

mod common;

use std::fs;
use std::path::Path;

use common::kernel::page_size;
use common::{Place, Program, Running, User, each_user, not_run};

/// Python that has mapped the file `data` as `access` says and let go of it by `let_go`; it has
/// changed the first page, and prints what is there and in a later page when asked.
fn mapping_python<'p>(place: &'p Place, access: &str, let_go: &str) -> Program<'p> {
    let script = format!(
        "import mmap, os, sys\n\
         file = open('data', 'r+b')\n\
         data = mmap.mmap(file.fileno(), 0, access=mmap.{access})\n\
         {let_go}; os.closerange(3, 100)\n\
         data[0:5] = b'mine!'; later = 5 * mmap.PAGESIZE\n\
         print('ready', flush=True)\n\
         for line in sys.stdin:\n    \
             print(data[0:5].decode(), data[later:later + 5].decode(), flush=True)"
    );
    place.file("data", content("file."));
    place.system("/usr/bin/python3").args(["-c", &script])
}

/// Ten pages of `word`, of five letters.
fn content(word: &str) -> String {
    word.repeat(2 * page_size())
}

/// What is mapped privately, and is still there.
fn mapping_privately(place: &Place) -> Program<'_> {
    mapping_python(place, "ACCESS_COPY", "pass")
}

/// Starts `program`, checkpoints it where it waits for input, and kills it.
fn checkpointed(program: &Program) {
    let mut run = program.start();
    run.expect("ready");
    run.reads_stdin();
    run.checkpoint();
    run.kill();
}

/// What `mapping_python` answers.
fn answer(run: &mut Running) -> String {
    run.send("");
    run.line()
}

/// `restart-static` must refuse, in one line that contains all of `words`.
fn refuses(program: &Program, words: &[&str]) {
    program.refuses_to_restart(&program.image, words);
}

#[test]
fn the_executable_and_the_library_are_gone() {
    each_user(|place| {
        for compiler in ["gcc", "musl-gcc"] {
            let program = place.compiled(compiler, "libc_caches");
            checkpointed(&program);
            fs::remove_file(&program.command).expect("removing the program");
            fs::remove_file(place.path("libckpt.so")).expect("removing the library");
            let mut run = program.restart(&program.image);
            run.check();
            // And again: what is now memory without a file is stored like any other.
            run.reads_stdin();
            run.checkpoint();
            run.kill();
            let mut run = program.restart(&program.image);
            run.check();
            run.quit();
        }
    });
}

/// An upgrade puts another file under the same name.
#[test]
fn the_executable_is_another() {
    each_user(|place| {
        let program = place.target("recursion");
        checkpointed(&program);
        fs::remove_file(&program.command).expect("removing the program");
        place.artifact("heap");
        fs::rename(place.path("heap"), &program.command).expect("replacing the program");
        let mut run = program.restart(&program.image);
        run.check();
        run.quit();
    });
}

#[test]
fn a_mapped_file_is_as_it_was() {
    each_user(|place| {
        let program = mapping_privately(place);
        checkpointed(&program);
        for _ in 0..2 {
            assert_eq!(answer(&mut program.restart(&program.image)), "mine! file.");
        }
    });
}

#[test]
fn a_mapped_file_has_changed() {
    each_user(|place| {
        let program = mapping_privately(place);
        checkpointed(&program);
        place.file("data", content("FILE."));
        refuses(&program, &["data"]);
        place.file("data", &content("file.")[page_size()..]);
        refuses(&program, &["data"]);
    });
}

#[test]
fn a_mapped_file_is_gone() {
    each_user(|place| {
        let program = mapping_privately(place);
        checkpointed(&program);
        fs::remove_file(place.path("data")).expect("removing the data");
        refuses(&program, &["data"]);
    });
}

#[test]
fn an_image_with_all_content_needs_no_file() {
    each_user(|place| {
        let program = mapping_privately(place).env("CKPT_CONTENT", "all");
        checkpointed(&program);
        fs::remove_file(place.path("data")).expect("removing the data");
        assert_eq!(answer(&mut program.restart(&program.image)), "mine! file.");
    });
}

#[test]
fn an_image_with_changed_content_needs_all_files() {
    each_user(|place| {
        let program = place.compiled("gcc", "libc_caches");
        checkpointed(&program);
        let with_code = fs::metadata(&program.image).expect("the image").len();
        let program = program.env("CKPT_CONTENT", "changed");
        checkpointed(&program);
        let without = fs::metadata(&program.image).expect("the image").len();
        // The C library alone has more than a MiB of code.
        assert!(without + (1 << 20) < with_code, "{without}, not much less than {with_code}");
        let mut run = program.restart(&program.image);
        run.check();
        run.quit();
        fs::remove_file(&program.command).expect("removing the program");
        refuses(&program, &["libc_caches"]);
    });
}

#[test]
fn an_open_file_is_gone() {
    each_user(|place| {
        let program = place.target("counting-test").args(["1", "1000", "10"]).into_file("output");
        let mut run = program.start();
        run.lines_in(&place.path("output"), 3);
        run.checkpoint();
        run.kill();
        fs::remove_file(place.path("output")).expect("removing the output");
        refuses(&program, &["output", "ENOENT"]);
        assert!(!place.path("output").exists());
    });
}

/// A log that has grown since is cut back; one that is shorter than it was cannot be continued.
#[test]
fn an_open_file_is_longer_or_shorter() {
    each_user(|place| {
        let program = place.target("counting-test").args(["1", "100", "10"]).into_file("output");
        let output = place.path("output");
        let mut run = program.start();
        run.lines_in(&output, 3);
        run.checkpoint();
        run.kill();
        let written = place.text("output");
        fs::write(&output, format!("{written}something that nobody counted\n")).expect("writing");
        program.restart(&program.image).ends_well();
        let expected: String = (1..=100).map(|n| format!("{n}\n")).collect();
        assert_eq!(place.text("output"), expected);
        fs::write(&output, "").expect("truncating");
        refuses(&program, &["output"]);
    });
}

/// As batch systems do it: both streams append to one log.
#[test]
fn one_log_of_both_streams() {
    const SCRIPT: &str = "
import sys
for n in range(200):
    print(n, file=[sys.stdout, sys.stderr][n % 2], flush=True)
    if n == 100: input()
";
    each_user(|place| {
        let log = place.file("log", "from before\n");
        let open = ["-c", "exec >> log 2>&1; exec \"$0\" \"$@\""];
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        let mut run = program.clone().wrapped("/bin/bash", &open).start();
        run.lines_in(&log, 1 + 5);
        run.checkpoint();
        run.lines_in(&log, 1 + 101);
        run.kill();
        fs::write(&log, place.text("log") + "from after\n").expect("writing");
        let mut run = program.restart(&program.image);
        run.send("");
        run.ends_well();
        let numbers: String = (0..200).map(|n| format!("{n}\n")).collect();
        assert_eq!(place.text("log"), format!("from before\n{numbers}"));
    });
}

#[test]
fn its_directory_is_gone() {
    each_user(|place| {
        place.directory("work");
        let program =
            place.target("recursion").directory("work").env("CKPT_FILE", "../mycheckpoint");
        let program = program.image("mycheckpoint");
        checkpointed(&program);
        fs::remove_dir(place.path("work")).expect("removing the directory");
        let program = program.directory("").image("mycheckpoint");
        refuses(&program, &["work", "ENOENT"]);
    });
}

/// Where `restart-static` is called does not matter, nor where the image has gone.
#[test]
fn the_image_has_moved() {
    const SCRIPT: &str = "import os; print('ready', flush=True); input(); print(os.getcwd())";
    each_user(|place| {
        place.directory("elsewhere");
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        checkpointed(&program);
        fs::rename(&program.image, place.path("elsewhere/image")).expect("moving the image");
        let mut run = program.clone().directory("elsewhere").restart(Path::new("image"));
        run.send("");
        assert_eq!(Path::new(&run.line()), place.path(""));
        run.ends_well();
    });
}

/// Several restarts of one image live side by side.
#[test]
fn twins() {
    each_user(|place| {
        let program = place.target("mappings").args([place.directory("files")]);
        let program = program.env("CKPT_FILE", "%p").image("unknown");
        let mut run = program.start();
        run.expect("ready");
        run.reads_stdin();
        run.image_is(place.path(run.pid.to_string()));
        let image = run.checkpoint();
        run.kill();
        let mut twins: Vec<_> = (0..3).map(|_| program.restart(&image)).collect();
        for twin in &mut twins {
            twin.reads_stdin();
            twin.image_is(place.path(twin.pid.to_string()));
            twin.checkpoint();
        }
        twins[0].check();
    });
}

/// Descriptors that `restart-static` happens to be started with do not become the program's.
#[test]
fn descriptors_of_the_caller() {
    each_user(|place| {
        let program = place.system("/bin/cat");
        let mut run = program.start();
        run.reads_stdin();
        let image = run.checkpoint();
        run.reads_stdin();
        let count = run.descriptors();
        run.kill();
        let caller = ["-c", "exec 3</dev/null 7</etc/passwd 60>&1; exec \"$0\" \"$@\""];
        let mut run = program.clone().wrapped("/bin/bash", &caller).restart(&image);
        run.reads_stdin();
        assert_eq!(run.descriptors(), count);
        // So the next checkpoint is not refused for what is not the program's.
        run.checkpoint();
    });
}

/// A standard stream that `restart-static` has not got, the program has not got either.
#[test]
fn standard_streams_that_are_closed() {
    each_user(|place| {
        let program = place.system("/bin/bash").args(["-c", "echo ready; read x; exit 7"]);
        checkpointed(&program);
        for streams in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let script = format!("exec \"$0\" \"$@\" {streams}");
            let mut run =
                program.clone().wrapped("/bin/bash", &["-c", &script]).restart(&program.image);
            run.close_input();
            let status = run.wait();
            assert_eq!(status.code(), Some(7), "{streams}: {status}\n{}", run.errors());
        }
    });
}

/// With less memory than the program needs there is no restart; and no half of one.
#[test]
fn too_little_memory() {
    each_user(|place| {
        let program = place.target("recursion");
        checkpointed(&program);
        for kilobytes in [100, 2000, 5000, 20_000] {
            let script = format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\"");
            let mut run =
                program.clone().wrapped("/bin/bash", &["-c", &script]).restart(&program.image);
            run.close_input();
            let status = run.wait();
            let errors = run.errors();
            let killed = status.code().is_none() && kilobytes < 1000; // by the kernel, in execve
            assert!(killed || status.code() == Some(125), "{kilobytes}: {status}\n{errors}");
            assert!(killed || errors.lines().count() == 1, "{kilobytes}: {errors}");
            assert_eq!(run.all_output(), "");
        }
    });
}

/// Hard limits that are lower than the program's were cannot be raised again by an ordinary user.
#[test]
fn lower_limits() {
    each_user(|place| {
        let program = place.target("recursion");
        checkpointed(&program);
        let script = "ulimit -n 100 -c 0 -f 100000; exec \"$0\" \"$@\"";
        let mut run = program.clone().wrapped("/bin/bash", &["-c", script]).restart(&program.image);
        run.send("check\nquit");
        let status = run.wait();
        match status.code() {
            Some(0) => assert_eq!(run.all_output(), "ok\ndone\n"),
            _ => {
                assert_eq!(
                    (status.code(), &*run.all_output()),
                    (Some(125), ""),
                    "{}",
                    run.errors()
                );
                assert_eq!(run.errors().lines().count(), 1, "{}", run.errors());
            }
        }
    });
}

/// Memory of a file that has been deleted before the checkpoint is stored with all its contents, if
/// it is the program's own. If it is shared with whoever else has the file, it is refused.
#[test]
fn mapped_files_deleted_before() {
    each_user(|place| {
        for access in ["ACCESS_COPY", "ACCESS_WRITE"] {
            let program = mapping_python(place, access, "os.unlink('data')");
            checkpointed(&program);
            assert_eq!(answer(&mut program.restart(&program.image)), "mine! file.");
        }
    });
}

/// A program whose directory is deleted before the checkpoint is refused, or restarted; not more.
#[test]
fn its_directory_was_gone_before() {
    const SCRIPT: &str = "
import os, sys
os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')
print('ready', flush=True)
for line in sys.stdin: print('ok', flush=True)
";
    each_user(|place| {
        let mut run = place.system("/usr/bin/python3").args(["-c", SCRIPT]).start();
        run.expect("ready");
        run.refuses(&["directory"]);
        run.check();
    });
}

/// Who has given up root's rights does not get them back by a restart.
#[test]
fn rights_given_up() {
    const SCRIPT: &str = "
import os, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
print('ready', flush=True)
for line in sys.stdin: print(os.getresuid(), os.getresgid(), os.getgroups(), flush=True)
";
    if User::everyone()[0] != User::Root {
        return not_run("rights given up: only root has any");
    }
    let place = Place::new(User::Root);
    place.mode("", 0o777);
    let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
    let mut run = program.start();
    run.expect("ready");
    run.reads_stdin();
    if let Err(refusal) = run.ask() {
        println!("refused: {refusal}");
        return;
    }
    run.kill();
    let mut run = program.restart(&program.image);
    run.send("");
    run.expect("(65534, 65534, 65534) (65534, 65534, 65534) []");
    run.close_input();
    run.ends_well();
}
