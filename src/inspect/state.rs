//! Registers, signals, timers and attributes of an image.

use std::io::Write;

use anyhow::{Error, Result};
use ckpt_image::Head;
use ckpt_image::files::Message;
use ckpt_image::record::{
    Attributes, Disposition, IntervalTimer, MessageQueue, Pending, Semaphore, SemaphoreSet,
    Session, Thread, Timer, all, all_with_tails, first, kind, libc as library, text,
};
use ckpt_sys::call::{MESSAGE_TYPE, signal_bit};
use ckpt_sys::{Escaped, signal_name};

use super::registers::ThreadStatus;
use super::{heading, line, note};
use crate::text::{Bytes, Counted, Nanoseconds, joined};

/// Prints it all.
pub fn print(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    threads(out, head)?;
    signals(out, head)?;
    timers(out, head)?;
    semaphores(out, head)?;
    messages(out, head)?;
    session(out, head)?;
    attributes(out, head)
}

fn threads(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    const NT_PRSTATUS: u32 = 1;
    let notes = head.notes().filter(|note| note.kind == NT_PRSTATUS && note.name == b"CORE");
    for status in notes.filter_map(|note| ThreadStatus::parse(note.description)) {
        heading(out, &format!("THREAD {}", status.tid))?;
        let mut threads = all_with_tails::<Thread>(note(head, kind::THREADS));
        if let Some((thread, affinity)) = threads.find(|(thread, _)| thread.tid == status.tid) {
            thread_attributes(out, &thread, affinity)?;
        }
        line(out, "blocked", joined(signals_in(status.blocked)))?;
        writeln!(out)?;
        for row in status.registers(head.machine()).chunks(3) {
            let cells: Vec<String> =
                row.iter().map(|(name, value)| format!("{name:<9} {value:#018x}")).collect();
            writeln!(out, "{}", cells.join("    "))?;
        }
    }
    Ok(())
}

fn thread_attributes(out: &mut dyn Write, thread: &Thread, affinity: &[u8]) -> Result<()> {
    line(out, "name", Escaped(text(&thread.name)))?;
    let library = match thread.libc {
        library::GLIBC => "glibc",
        library::MUSL => "musl",
        _ => "unknown",
    };
    line(out, "C library", library)?;
    line(out, "nice value", thread.nice)?;
    if thread.scheduling_policy != 0 {
        let (policy, priority) = (thread.scheduling_policy, thread.scheduling_priority);
        line(out, "scheduling", format!("policy {policy}, priority {priority}"))?;
    }
    line(out, "CPUs", cpus(affinity))
}

/// The signals of a mask, by name.
pub fn signals_in(mask: u64) -> impl Iterator<Item = impl std::fmt::Display> {
    (1..=64).filter(move |&signal| mask & signal_bit(signal) != 0).map(signal_name)
}

fn signals(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    const SIG_IGN: u64 = 1;
    heading(out, "SIGNALS")?;
    let numbered = || (1..).zip(all::<Disposition>(note(head, kind::DISPOSITIONS)));
    let named = |wanted: fn(u64) -> bool| {
        let those = numbered().filter(move |(_, disposition)| wanted(disposition.handler));
        joined(those.map(|(signal, _)| signal_name(signal)))
    };
    line(out, "handled", named(|handler| handler > SIG_IGN))?;
    line(out, "ignored", named(|handler| handler == SIG_IGN))?;
    let pending = all::<Pending>(note(head, kind::PENDING)).map(|pending| {
        let signal = signal_name(pending.signal);
        match pending.to_thread {
            0 => signal.to_string(),
            tid => format!("{signal} (for thread {tid})"),
        }
    });
    line(out, "pending", joined(pending))
}

fn timers(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    let describe = |remaining: u64, interval: u64| {
        let first = format!("in {}", Nanoseconds(remaining));
        if interval == 0 { first } else { format!("{first}, then every {}", Nanoseconds(interval)) }
    };
    let mut rows = Vec::new();
    let names = ["ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"];
    for (name, timer) in names.iter().zip(all::<IntervalTimer>(note(head, kind::INTERVAL_TIMERS))) {
        if timer.remaining != 0 {
            rows.push(((*name).to_owned(), describe(timer.remaining, timer.interval)));
        }
    }
    for timer in all::<Timer>(note(head, kind::TIMERS)) {
        let when = match timer.remaining {
            0 => "not set".to_owned(),
            remaining => describe(remaining, timer.interval),
        };
        let signal = signal_name(timer.signal as u32);
        let what = match timer.notify {
            libc::SIGEV_NONE => "notifies nobody".to_owned(),
            libc::SIGEV_THREAD_ID => format!("sends {signal} to the thread"),
            _ => format!("sends {signal}"),
        };
        rows.push((
            format!("timer {}", timer.id),
            format!("{when}, {what}, {}", clock(timer.clock)),
        ));
    }
    if !rows.is_empty() {
        heading(out, "TIMERS")?;
    }
    for (name, text) in rows {
        line(out, &name, text)?;
    }
    Ok(())
}

/// The name of a clock.
pub fn clock(clock: i32) -> String {
    match clock {
        libc::CLOCK_REALTIME => "CLOCK_REALTIME".to_owned(),
        libc::CLOCK_MONOTONIC => "CLOCK_MONOTONIC".to_owned(),
        libc::CLOCK_BOOTTIME => "CLOCK_BOOTTIME".to_owned(),
        libc::CLOCK_TAI => "CLOCK_TAI".to_owned(),
        libc::CLOCK_REALTIME_ALARM => "CLOCK_REALTIME_ALARM".to_owned(),
        libc::CLOCK_BOOTTIME_ALARM => "CLOCK_BOOTTIME_ALARM".to_owned(),
        libc::CLOCK_PROCESS_CPUTIME_ID => "CLOCK_PROCESS_CPUTIME_ID".to_owned(),
        libc::CLOCK_THREAD_CPUTIME_ID => "CLOCK_THREAD_CPUTIME_ID".to_owned(),
        other => format!("clock {other}"),
    }
}

/// The names of the limits, by number (getrlimit(2)), and whether they are bytes.
const LIMITS: [(&str, bool); 16] = [
    ("cpu seconds", false),
    ("file size", true),
    ("data", true),
    ("stack", true),
    ("core file", true),
    ("resident set", true),
    ("processes", false),
    ("open files", false),
    ("locked memory", true),
    ("address space", true),
    ("file locks", false),
    ("pending signals", false),
    ("message queues", true),
    ("nice", false),
    ("real-time prio", false),
    ("real-time usec", false),
];

fn attributes(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    let (attributes, directory) =
        head.note(kind::ATTRIBUTES).and_then(first::<Attributes>).map_err(Error::msg)?;
    heading(out, "ATTRIBUTES")?;
    line(out, "directory", Escaped(text(directory)))?;
    line(out, "umask", format!("{:04o}", attributes.umask))?;
    if attributes.personality != 0 {
        line(out, "personality", format!("{:#x}", attributes.personality))?;
    }
    for ((name, bytes), [soft, hard]) in LIMITS.iter().zip(attributes.limits) {
        if (soft, hard) != (u64::MAX, u64::MAX) {
            let show = |value: u64| match value {
                u64::MAX => "unlimited".to_owned(),
                value if *bytes => Bytes(value).to_string(),
                value => value.to_string(),
            };
            let text = if soft == hard {
                show(soft)
            } else {
                format!("{}, at most {}", show(soft), show(hard))
            };
            line(out, "limit", format!("{name:<16} {text}"))?;
        }
    }
    Ok(())
}

fn semaphores(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    let mut sets = all_with_tails::<SemaphoreSet>(note(head, kind::SEMAPHORES)).peekable();
    if sets.peek().is_some() {
        heading(out, "SEMAPHORES")?;
    }
    for (set, semaphores) in sets {
        let values = all::<Semaphore>(semaphores).map(|semaphore| match semaphore.adjustment {
            0 => semaphore.value.to_string(),
            adjustment => format!("{} ({adjustment:+} at the end)", semaphore.value),
        });
        let SemaphoreSet { id, key, mode, .. } = set;
        let text = format!("key {key:#x}, mode {mode:04o}, values {}", joined(values));
        line(out, &format!("set {id}"), text)?;
    }
    Ok(())
}

fn messages(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    let mut queues = all_with_tails::<MessageQueue>(note(head, kind::MESSAGES)).peekable();
    if queues.peek().is_some() {
        heading(out, "MESSAGES")?;
    }
    for (queue, messages) in queues {
        let MessageQueue { id, key, mode, room, .. } = queue;
        let texts = all_with_tails::<Message>(messages)
            .map(|(message, _)| message.length.saturating_sub(MESSAGE_TYPE as u64));
        let (count, bytes) = (texts.clone().count(), Bytes(texts.sum()));
        let text = format!(
            "key {key:#x}, mode {mode:04o}, {}, {bytes} of {}",
            Counted(count, "message", "messages"),
            Bytes(room)
        );
        line(out, &format!("queue {id}"), text)?;
    }
    Ok(())
}

fn session(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    let Ok((session, _)) = head.note(kind::SESSION).and_then(first::<Session>) else {
        return Ok(());
    };
    heading(out, "SESSION")?;
    line(out, "process group", session.group)?;
    line(out, "session", session.session)?;
    if session.terminal != 0 {
        line(out, "foreground", session.foreground)?;
    }
    Ok(())
}

/// The CPUs of an affinity mask, as `0-3,8`.
fn cpus(affinity: &[u8]) -> String {
    let length = affinity.len() * 8;
    let allowed = |cpu: usize| cpu < length && affinity[cpu / 8] & 1 << (cpu % 8) != 0;
    let mut ranges = Vec::new();
    let mut cpu = 0;
    while cpu < length {
        let begin = cpu;
        while allowed(cpu) {
            cpu += 1;
        }
        match cpu - begin {
            0 => cpu += 1,
            1 => ranges.push(begin.to_string()),
            _ => ranges.push(format!("{begin}-{}", cpu - 1)),
        }
    }
    ranges.join(",")
}
