//! The order in which the GPU works: a stream, events in it, and graphs of what was put into it.
use super::driver::{Context, Said};
use anyhow::Result;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use std::ptr::NonNull;

/// A stream: what is put into it is done one after the other.
pub struct Stream {
    raw: sys::CUstream,
}

impl Stream {
    pub fn new(_context: &Context) -> Result<Stream> {
        let raw =
            result::stream::create(result::stream::StreamKind::NonBlocking).said("cannot make a stream on the GPU")?;
        Ok(Stream { raw })
    }

    pub fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// What is put into it from now on begins when the event has happened as it was last recorded.
    pub fn wait(&self, event: &Event) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both live.
        unsafe { result::stream::wait_event(self.raw, event.raw.as_ptr(), flags) }
            .said("cannot have a stream wait on the GPU")
    }

    /// Waits for everything that was put into it.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        // SAFETY: the stream lives.
        unsafe { result::stream::synchronize(self.raw) }
    }

    /// A graph of what `work` puts into the stream, and into those that wait for it and that it waits for; it is not done now.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        const FAILED: &str = "cannot capture a program as a graph";
        // The driver may load a kernel when it first sees a launch of it, which stricter modes may refuse.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives, and nothing else captures it.
        unsafe { result::stream::begin_capture(self.raw, mode) }.said(FAILED)?;
        let worked = work();
        // SAFETY: the capture that began above ends, whatever became of the work.
        let graph = unsafe { result::stream::end_capture(self.raw) };
        worked?;
        let graph = graph.said(FAILED)?;
        // SAFETY: the graph was just captured, and is destroyed once and used no more.
        unsafe {
            let mut exec = std::ptr::null_mut();
            let ready = sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0).result();
            let _ = result::graph::destroy(graph);
            ready.said(FAILED)?;
            Ok(Graph { exec })
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: nobody uses it afterwards.
        let _ = unsafe { result::stream::destroy(self.raw) };
    }
}

/// A program as the GPU replays it.
pub struct Graph {
    exec: sys::CUgraphExec,
}

impl Graph {
    /// Puts the whole graph into the stream.
    pub fn launch(&self, stream: &Stream) -> Result<(), DriverError> {
        // SAFETY: both live, and the memory that the graph's kernels use does.
        unsafe { result::graph::launch(self.exec, stream.raw) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: nobody launches it afterwards.
        let _ = unsafe { result::graph::exec_destroy(self.exec) };
    }
}

/// A moment in a stream.
pub struct Event {
    raw: NonNull<sys::CUevent_st>,
}

impl Event {
    /// An event that has not happened, which nobody has to wait for.
    pub fn new(context: &Context) -> Result<Event> {
        Event::with(context, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// One that orders what streams do, and tells no time.
    pub fn without_time(context: &Context) -> Result<Event> {
        Event::with(context, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn with(_context: &Context, flags: sys::CUevent_flags) -> Result<Event> {
        const FAILED: &str = "cannot make an event on the GPU";
        let raw = result::event::create(flags).said(FAILED)?;
        Ok(Event { raw: NonNull::new(raw).ok_or_else(|| anyhow::anyhow!(FAILED))? })
    }

    /// It happens when everything that is in the stream now is done.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live.
        unsafe { result::event::record(self.raw.as_ptr(), stream.raw) }.said("cannot record an event on the GPU")
    }

    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: the event lives.
        unsafe { result::event::synchronize(self.raw.as_ptr()) }.said("the GPU failed")
    }

    /// Nanoseconds from an event that happened to this, which did.
    pub fn since(&self, earlier: &Event) -> Result<u64> {
        // SAFETY: both live and have happened.
        let milliseconds = unsafe { result::event::elapsed(earlier.raw.as_ptr(), self.raw.as_ptr()) };
        Ok((f64::from(milliseconds.said("cannot read an event's time")?) * 1e6) as u64)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody uses it afterwards.
        let _ = unsafe { result::event::destroy(self.raw.as_ptr()) };
    }
}
