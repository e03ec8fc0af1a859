//! Programs with files that have contents and no name, or share memory by a name; and images whose contents
//! of files are damaged.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ckpt_image::Head;
use common::place::run;
use common::{Place, Program, User, cargo, each_user, forbid_files_without_name, words};

/// `program` writes `first` and waits for a line. It is checkpointed, killed and restarted, and then writes
/// `rest`.
fn goes_on(program: &Program, first: &str, rest: &str) {
    let mut run = program.start();
    run.expect(first);
    run.reads_stdin();
    run.checkpoint();
    run.kill();
    assert_eq!(run.errors(), "");
    let mut run = program.restart(&program.image);
    run.send("go on");
    run.close_input();
    run.ends_well();
    assert_eq!(run.all_output(), rest);
}

/// Shared memory of Python's, which has it open and mapped.
#[test]
fn shared_memory_of_python() {
    let script = "\
        from multiprocessing import resource_tracker, shared_memory\n\
        resource_tracker.register = resource_tracker.unregister = lambda *_: None\n\
        shared = shared_memory.SharedMemory(create=True, size=100000)\n\
        shared.buf[:5] = b'hello'; shared.buf[99999] = 7\n\
        print('ready', flush=True); input()\n\
        other = shared_memory.SharedMemory(shared.name)\n\
        other.buf[5] = 33; print(bytes(shared.buf[:6]), other.buf[99999]); del other\n\
        shared.close(); shared.unlink()";
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", script]);
        goes_on(&program, "ready", "b'hello!' 7\n");
    });
}

/// A temporary file of Python's, mapped, in a directory that cannot have one any more by itself.
#[test]
fn a_temporary_file_of_python() {
    let script = "\
        import mmap, tempfile\n\
        file = tempfile.TemporaryFile(dir='.'); file.write(b'x' * 10000); file.flush()\n\
        map = mmap.mmap(file.fileno(), 0); map[0] = 65\n\
        print('ready', flush=True); input()\n\
        map[9999] = 66; file.seek(0); text = file.read(); print(len(text), text[0], text[-1])";
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", script]);
        goes_on(&program, "ready", "10000 65 66\n");
        let names = place.names();
        let program = program.before(forbid_files_without_name);
        goes_on(&program, "ready", "10000 65 66\n");
        assert_eq!(place.names(), names, "something was left behind");
    });
}

/// A here-document of bash's, which is a deleted file if it is long, and is read on.
#[test]
fn a_here_document() {
    let lines = words(20000);
    let script = format!(
        "exec 5<<'END'\n{lines}END\n\
         read -r first <&5; echo ready; read -r answer; echo \"$first\"; \
         while read -r line; do echo \"$line\"; done <&5"
    );
    each_user(|place| {
        let program = place.system("/bin/bash").args([place.file("script", &script)]);
        goes_on(&program, "ready", &lines);
    });
}

/// sqlite3 with a temporary table on the disk, which is a deleted file.
#[test]
fn a_temporary_table_of_sqlite() {
    each_user(|place| {
        let program = place.system("/usr/bin/sqlite3").env("SQLITE_TMPDIR", place.path(""));
        let mut run = program.start();
        run.send_all(
            "PRAGMA temp_store = file; PRAGMA temp.cache_size = 5; CREATE TEMP TABLE t(number);\n\
             WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 100000)\n\
             INSERT INTO t SELECT x FROM c;\nSELECT 'ready';\n",
        );
        run.expect("ready");
        run.reads_stdin();
        let held = descriptors_of(run.pid);
        assert!(held.contains("(deleted)"), "no deleted file: {held}");
        run.checkpoint();
        run.kill();
        let mut run = program.restart(&program.image);
        run.send_all("INSERT INTO t VALUES (7); SELECT sum(number), count(*) FROM t;\n");
        run.close_input();
        run.ends_well();
        assert_eq!(run.all_output(), "5000050007|100001\n");
    });
}

/// What a process has open.
fn descriptors_of(pid: i32) -> String {
    run(Command::new("ls").arg("-l").arg(format!("/proc/{pid}/fd")))
}

/// Another file that has taken the name of shared memory is left alone.
#[test]
fn shared_memory_whose_name_is_taken() {
    each_user(|place| {
        let program = place.compiled("gcc", "holds_memory").args(["shared"]);
        let mut run = program.start();
        run.expect("ready");
        let pid = run.pid;
        run.checkpoint();
        run.kill();
        let name = |index| format!("/dev/shm/holds-memory-{pid}-{index}");
        fs::remove_file(name(1)).expect("removing it");
        fs::write(name(1), "another's").expect("writing it");
        program.refuses_to_restart(&program.image, &[&name(1), "remove it"]);
        assert_eq!(fs::read(name(1)).expect("the file"), b"another's");
        fs::remove_file(name(1)).expect("removing it");
        let mut run = program.restart(&program.image);
        run.check();
        run.quit();
    });
}

/// A file in `/dev/shm` that the user may but read is another file like any: it must be there as it was.
#[test]
fn shared_memory_that_may_be_read_only() {
    let script = "\
        import mmap, sys\n\
        file = open(sys.argv[1], 'rb'); map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n\
        print('ready', flush=True); input(); print(file.read(), map[:])";
    each_user(|place| {
        let shared = place.file("shared", "contents");
        let path = Path::new("/dev/shm").join(place.path("").file_name().expect("a name"));
        run(Command::new("cp").arg("-p").arg(&shared).arg(&path));
        fs::set_permissions(&path, Permissions::from_mode(0o444)).expect("chmod");
        let program = place.system("/usr/bin/python3").args(["-c", script]).args([&path]);
        goes_on(&program, "ready", "b'contents' b'contents'\n");
        fs::remove_file(path).expect("removing it");
    });
}

/// A lock on shared memory that another process has by now makes the restart fail before that is written to.
#[test]
fn shared_memory_that_is_locked() {
    let script = "\
        import fcntl, os, sys\n\
        file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n\
        os.pwrite(file, b'%9d' % os.getpid(), 0); fcntl.KIND(file, fcntl.LOCK_EX)\n\
        print('ready', flush=True); input(); print(os.pread(file, 9, 0).decode())";
    for kind in ["flock", "lockf"] {
        each_user(|place| {
            let path = Path::new("/dev/shm").join(place.path("").file_name().expect("a name"));
            let script = script.replace("KIND", kind);
            let program = place.system("/usr/bin/python3").args(["-c", &script]).args([&path]);
            let mut run = program.start();
            run.expect("ready");
            run.reads_stdin();
            run.checkpoint();
            run.kill();
            let first = run.pid;
            let mut other = program.start();
            other.expect("ready");
            let (name, holder) = (path.display().to_string(), format!("process {}", other.pid));
            program.refuses_to_restart(&program.image, &[&name, &holder]);
            assert_eq!(fs::read_to_string(&path).expect("the file"), format!("{:9}", other.pid));
            other.kill();
            let mut run = program.restart(&program.image);
            run.send("");
            run.expect(&format!("{first:9}"));
            run.ends_well();
            fs::remove_file(path).expect("removing it");
        });
    }
}

/// Contents that have changed in the image are refused, and named.
#[test]
fn damaged_contents() {
    for kind in ["memfd", "deleted", "shared"] {
        let place = Place::new(User::Ordinary);
        let program = place.compiled("gcc", "holds_memory").args([kind]);
        let mut run = program.start();
        run.expect("ready");
        let pid = run.pid;
        run.checkpoint();
        run.kill();
        let mut bytes = fs::read(&program.image).expect("the image");
        let head = Head::parse(&bytes, bytes.len() as u64).expect("an image");
        let (contents, _) = head.file_contents().expect("contents").next().expect("a file");
        bytes[contents.offset as usize + 1000] ^= 1;
        let bad = place.file("bad", &bytes);
        program.refuses_to_restart(&bad, &["bad", "checksum"]);
        let ckpt = place.copied(&cargo::command());
        let said = Command::new(ckpt).arg("inspect").arg(&bad).output().expect("ckpt");
        assert_eq!(said.status.code(), Some(1));
        let output = String::from_utf8_lossy(&said.stdout);
        let fd = contents.fd;
        assert!(output.contains(&format!("damaged: the file of descriptor {fd}")), "{output}");
        for index in 0..2 {
            let _ = fs::remove_file(format!("/dev/shm/holds-memory-{pid}-{index}"));
        }
    }
}
