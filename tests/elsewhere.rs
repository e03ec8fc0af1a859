//! Images from elsewhere: another kernel, another CPU, files that have changed meanwhile. There is
//! but one machine here, so an image is made to look as if it came from another: bytes of it are
//! changed and its checksums made right again.

mod common;

use std::fs;

use ckpt_image::record::{kind, mapping};
use common::kernel::page_size;
use common::{Edited, Place, User, each_user, machine};

/// Restarts `image`, which must be refused in one line that contains all of `words`.
fn refuses(place: &Place, image: &std::path::Path, words: &[&str]) {
    place.target("identity").refuses_to_restart(image, words);
}

/// The program has looked its clock functions up in a vDSO that is not this kernel's: they go on
/// telling the time, and without a system call: calls of `clock_gettime` are made to fail.
#[test]
fn another_kernels_vdso() {
    const TEXT: &str = r#"
        #include <errno.h>
        #include <linux/filter.h>
        #include <linux/seccomp.h>
        #include <stddef.h>
        #include <stdio.h>
        #include <sys/prctl.h>
        #include <sys/syscall.h>
        #include <time.h>
        #include <unistd.h>
        int main(void) {
            struct timespec before, after;
            clock_gettime(CLOCK_MONOTONIC, &before);
            puts("ready");
            fflush(stdout);
            getchar();
            struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTSUP),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            };
            struct sock_fprog program = { 4, filter };
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 2;
            if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &after) == 0) return 3;
            if (clock_gettime(CLOCK_MONOTONIC, &after)) return 4;
            if (after.tv_sec < before.tv_sec || after.tv_sec > before.tv_sec + 3600) return 5;
            puts("done");
            return 0;
        }"#;
    // musl-gcc does not look for the kernel's headers where Debian has them.
    let machine = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let flags = ["-O2", "-idirafter", "/usr/include", "-idirafter", &machine];
    for compiler in ["gcc", "musl-gcc"] {
        each_user(|place| {
            let program = place.c(compiler, &flags, &format!("clock-{compiler}"), TEXT);
            let mut run = program.start();
            run.expect("ready");
            run.reads_stdin();
            run.checkpoint();
            run.kill();
            let own = Edited::of(&run);
            let vdso = own.mappings(mapping::VDSO)[0].start;
            // The last bytes of the mapping are padding, so that the functions stay the same.
            let other = own.memory(vdso, |code| *code.last_mut().expect("code") ^= 0x55);
            let other = other.write(place, "other");

            for (image, moved) in [(run.image().to_owned(), false), (other, true)] {
                let mut restarted = program.restart(&image);
                restarted.reads_stdin();
                let maps = fs::read_to_string(format!("/proc/{}/maps", restarted.pid));
                let maps = maps.expect("the mappings");
                let there = maps.lines().any(|line| {
                    line.starts_with(&format!("{vdso:x}-")) && line.ends_with("[vdso]")
                });
                assert_eq!(there, !moved, "{maps}");

                // It is checkpointed and restarted again, wherever its vDSO is by now.
                restarted.checkpoint();
                restarted.kill();
                let mut again = program.restart(restarted.image());
                again.send("");
                again.expect("done");
                again.ends_well();
            }
        });
    }
}

#[test]
fn another_cpu() {
    let place = Place::new(User::Ordinary);
    let mut run = place.target("counting-test").args(["1", "1000000", "1"]).start();
    run.expect("1");
    run.checkpoint();
    run.kill();
    for (change, what) in machine::OTHER_CPUS {
        let other = Edited::of(&run).note(kind::CPU, change);
        refuses(&place, &other.write(&place, "other"), &[what, "do not fit this CPU"]);
    }
}

#[test]
fn another_page_size() {
    let place = Place::new(User::Ordinary);
    let mut run = place.target("counting-test").args(["1", "1000000", "1"]).start();
    run.expect("1");
    run.checkpoint();
    run.kill();
    // One that all segments happen to be aligned to, or the image would contradict itself.
    let half = page_size() as u32 / 2;
    let other = Edited::of(&run).note(kind::PROCESS, |process| {
        process[4..8].copy_from_slice(&half.to_le_bytes());
    });
    let (here, there) = (page_size().to_string(), format!("pages of {half} bytes"));
    refuses(&place, &other.write(&place, "other"), &[&there, &here]);
}

/// A program that has loaded a library, changed a page of a data file that it has mapped privately,
/// mapped a third shared, and then says what it finds there.
const MAPPER: &str = r#"
    #include <dlfcn.h>
    #include <fcntl.h>
    #include <stdio.h>
    #include <sys/mman.h>
    #include <unistd.h>
    int main(void) {
        long page = sysconf(_SC_PAGESIZE);
        void *library = dlopen("./libanswer.so", RTLD_NOW);
        int (*answer)(void) = (int (*)(void))dlsym(library, "answer");
        int prot = PROT_READ | PROT_WRITE;
        char *data = mmap(0, 2 * page, prot, MAP_PRIVATE, open("data", O_RDONLY), 0);
        char *shared = mmap(0, page, prot, MAP_SHARED, open("shared", O_RDWR), 0);
        data[page] = 'B';
        shared[0] = 'S';
        puts("ready");
        fflush(stdout);
        while (getchar() != EOF) {
            printf("%d %c%c %c\n", answer(), data[0], data[page], shared[0]);
            fflush(stdout);
        }
        return 0;
    }"#;

/// Starts [`MAPPER`] with `content`, checkpoints and kills it.
fn mapper<'p>(place: &'p Place, content: &str) -> common::Program<'p> {
    library(place, "libanswer.so", 42);
    place.file("data", "a".repeat(2 * page_size()));
    place.file("shared", "s".repeat(page_size()));
    let program = place.c("gcc", &["-O2"], "mapper", MAPPER).env("CKPT_CONTENT", content);
    let mut run = program.start();
    run.expect("ready");
    run.send("");
    run.expect("42 aB S");
    run.checkpoint();
    run.kill();
    program
}

/// Builds a library whose one function returns `answer`, in a new file under `name`.
fn library(place: &Place, name: &str, answer: u32) {
    let text = format!("int answer(void) {{ return {answer}; }}");
    place.c("gcc", &["-shared", "-fPIC"], "built", &text);
    fs::rename(place.path("built"), place.path(name)).expect("rename");
}

/// Restarts `program`, which must find everything as it was.
fn finds_all(program: &common::Program<'_>) {
    let mut run = program.restart(&program.image);
    run.send("");
    run.expect("42 aB S");
    run.close_input();
    run.ends_well();
}

#[test]
fn a_library_that_is_upgraded_or_gone() {
    for content in ["code", "all"] {
        each_user(|place| {
            let program = mapper(place, content);
            library(place, "libanswer.so", 43);
            finds_all(&program);
            fs::remove_file(place.path("libanswer.so")).expect("remove");
            finds_all(&program);
        });
    }
}

#[test]
fn a_library_of_which_only_changes_are_stored() {
    each_user(|place| {
        let program = mapper(place, "changed");
        finds_all(&program);
        library(place, "libanswer.so", 43);
        refuses(place, &program.image, &["libanswer.so", "CKPT_CONTENT=all"]);
        fs::remove_file(place.path("libanswer.so")).expect("remove");
        refuses(place, &program.image, &["libanswer.so"]);
    });
}

#[test]
fn a_data_file_that_has_changed() {
    for content in ["code", "all"] {
        each_user(|place| {
            let program = mapper(place, content);
            place.file("data", "c".repeat(2 * page_size()));
            if content == "all" {
                finds_all(&program);
            } else {
                refuses(place, &program.image, &["data", "CKPT_CONTENT=all"]);
            }
        });
    }
}

/// What the program had written to shared memory of a file, it finds there again.
#[test]
fn a_shared_file_that_was_written_meanwhile() {
    each_user(|place| {
        let program = mapper(place, "code");
        place.file("shared", "x".repeat(page_size() + 1000));
        finds_all(&program);
        assert_eq!(place.text("shared"), format!("S{}", "s".repeat(page_size() - 1)));
        fs::remove_file(place.path("shared")).expect("remove");
        refuses(place, &program.image, &["shared"]);
    });
}
