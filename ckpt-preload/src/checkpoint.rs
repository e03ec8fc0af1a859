//! A checkpoint, from the request to the image.

use ckpt_arch::outcome;
use ckpt_image::NoteWriter;
use ckpt_sys::Escaped;

use crate::config::config;
use crate::handler::{self, Request};
use crate::pages::PageMap;
use crate::report::{Failure, OrReport, not_written};
use crate::scratch::Buffers;
use crate::writer::{self, Contents};
use crate::{
    files, limits, memory, messages, process, refuse, report, segments, semaphores, signals,
    thread, threads, timers,
};

/// Takes a checkpoint, on the private stack. `request` is a [`Request`].
///
/// # Safety
///
/// All signals are blocked, and nobody else uses the scratch memory.
pub unsafe extern "C" fn run(request: *mut u8) -> u64 {
    let scratch = config().scratch;
    // SAFETY: the handler passes a request that it keeps; the scratch memory is free.
    let (request, buffers) = unsafe { (&*request.cast::<Request>(), scratch.buffers()) };
    writer::set_target();
    limits::raise();
    if let Ok(length) = checkpoint(request, buffers)
        && config().verbose
    {
        let file = Escaped(writer::target());
        report::line(format_args!("{file}: written, {length} bytes"));
    }
    limits::put_back();
    // SAFETY: the buffers that were given out are no longer used.
    unsafe {
        timers::restart_interval(scratch.buffers().text);
        scratch.release();
    }
    outcome::SAVED
}

/// Captures everything, and writes it; returns the length of the image in bytes. A failure has been
/// reported.
fn checkpoint(request: &Request, buffers: Buffers) -> Result<u64, Failure> {
    let Buffers { text, pagemap, pages, mappings: room, notes, headers, checksums, asked } =
        buffers;
    // SAFETY: the kernel has put it on the program's stack, and nobody changes it.
    let frame = unsafe { &*request.frame };
    writer::check_target()?;
    threads::stop(text, asked)?;
    handler::all_have_stopped();
    refuse::check()?;

    let mut notes = NoteWriter::new(notes);
    let mappings = memory::list(room, text)?;
    process::capture_identity(&mut notes, mappings)?;
    let own = thread::of_caller(request.frame, request.context)
        .map_err(|unknown| not_written(format_args!("{unknown}")))?;
    process::capture_core(&mut notes, request, &own, mappings, text)?;
    thread::capture(&mut notes, &own)?;
    signals::capture_dispositions(&mut notes)?;
    let taken = signals::take(bytemuck::cast_slice_mut(headers), text);
    let captured = timers::capture(&mut notes, text, taken)
        .and_then(|()| signals::capture_pending(&mut notes, frame, taken));
    signals::put_back(taken)?;
    captured?;
    let files = files::capture(&mut notes, text)?;
    memory::leave_to_descriptors(mappings, &notes.bytes()[files.descriptors]);
    memory::capture(&mut notes, mappings)?;
    semaphores::capture(&mut notes)?;
    messages::capture(&mut notes)?;
    process::capture_attributes(&mut notes, text)?;
    process::capture_clocks(&mut notes)?;
    process::capture_session(&mut notes)?;

    let page_map = PageMap::open(config().page_size)
        .or_report(format_args!("opening /proc/thread-self/pagemap"))?;
    segments::capture_guards(&mut notes, mappings, &page_map)?;
    let count = segments::find(mappings, headers, &page_map, pagemap)?;
    writer::write(Contents {
        notes,
        files: files.contents,
        headers: &mut headers[..count],
        checksums: &mut checksums[..count],
        pages,
    })
}
