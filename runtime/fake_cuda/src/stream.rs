//! Streams, whose work waits until somebody waits for it.
//!
//! Outside of captures one stream at a time has something to do: more is not asked of them.
use crate::capture::{Capture, Graph};
use crate::gpu::{Gpu, Launch};
use crate::products::Product;
use cudarc::driver::sys::CUresult;
use std::collections::VecDeque;
use std::time::Instant;

/// Something that a stream does.
#[derive(Clone)]
pub enum Work {
    /// To the GPU, from bytes that were copied already, or from pinned memory.
    Upload {
        to: u64,
        from: Source,
        bytes: u64,
    },
    /// From the GPU to this address of the host.
    Download {
        to: u64,
        from: u64,
        bytes: u64,
    },
    /// Bytes to the GPU or to pinned memory.
    Fill {
        to: u64,
        bytes: Vec<u8>,
    },
    Launch(Launch),
    Product(Product),
    Event(usize),
}

#[derive(Clone)]
pub enum Source {
    Copied(Vec<u8>),
    Pinned(u64),
}

/// All streams.
#[derive(Default)]
pub struct Streams {
    /// How many were made.
    pub count: usize,
    queue: VecDeque<Work>,
    /// The stream whose work that is.
    busy: usize,
    capture: Option<Capture>,
    /// Graphs, by their number; an instance of one has the same number. Those that were destroyed are gone.
    pub graphs: Vec<Option<Graph>>,
    /// When each event happened last.
    pub events: Vec<Option<Instant>>,
}

impl Gpu {
    /// Puts work into a stream, or into the graph that is captured.
    pub fn put(&mut self, stream: usize, work: Work) -> Result<(), CUresult> {
        match &mut self.streams.capture {
            Some(capture) => capture.put(stream, work)?,
            None if self.streams.queue.is_empty() || self.streams.busy == stream => {
                self.streams.busy = stream;
                self.streams.queue.push_back(work);
            }
            None => return Err(CUresult::CUDA_ERROR_NOT_SUPPORTED),
        }
        Ok(())
    }

    /// Has a stream wait for an event.
    pub fn wait(&mut self, stream: usize, event: usize) -> Result<(), CUresult> {
        self.streams.capture.as_mut().ok_or(CUresult::CUDA_ERROR_NOT_SUPPORTED)?.wait(stream, event)
    }

    pub fn begin_capture(&mut self, stream: usize) -> Result<(), CUresult> {
        match self.streams.capture.replace(Capture::new(stream)) {
            None => Ok(()),
            Some(_) => Err(CUresult::CUDA_ERROR_ILLEGAL_STATE),
        }
    }

    /// The number of the graph that was captured.
    pub fn end_capture(&mut self, stream: usize) -> Result<usize, CUresult> {
        let capture = self.streams.capture.take().ok_or(CUresult::CUDA_ERROR_ILLEGAL_STATE)?;
        self.streams.graphs.push(Some(capture.end(stream)?));
        Ok(self.streams.graphs.len() - 1)
    }

    /// Puts all work of a graph into a stream.
    pub fn replay(&mut self, stream: usize, graph: usize) -> Result<(), CUresult> {
        let graph = self.streams.graphs.get_mut(graph).and_then(Option::as_mut);
        let work = graph.ok_or(CUresult::CUDA_ERROR_INVALID_HANDLE)?.replay();
        work.into_iter().try_for_each(|work| self.put(stream, work))
    }

    /// Does everything.
    pub fn finish(&mut self) -> Result<(), CUresult> {
        if self.streams.capture.is_some() {
            return Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        while let Some(work) = self.streams.queue.pop_front() {
            self.perform(work)?;
        }
        Ok(())
    }

    /// Does everything up to the event's last record, if there is one.
    pub fn finish_event(&mut self, event: usize) -> Result<(), CUresult> {
        let recorded = self.streams.queue.iter().rposition(|work| matches!(work, Work::Event(it) if *it == event));
        for _ in 0..recorded.map_or(0, |last| last + 1) {
            let work = self.streams.queue.pop_front().expect("the queue holds the event");
            self.perform(work)?;
        }
        Ok(())
    }

    fn perform(&mut self, work: Work) -> Result<(), CUresult> {
        match work {
            Work::Launch(launch) => self.run(&launch),
            Work::Product(product) => self.multiply(&product),
            Work::Event(event) => {
                self.streams.events[event] = Some(Instant::now());
                Ok(())
            }
            Work::Upload { to, from: Source::Copied(bytes), .. } => self.store(to, &bytes),
            Work::Upload { to, from: Source::Pinned(from), bytes } => {
                if !self.is_pinned(from, bytes) {
                    return Err(self.fail(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, "pinned memory is gone".into()));
                }
                // SAFETY: the range lies in pinned memory.
                let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, bytes as usize) }.to_vec();
                self.store(to, &bytes)
            }
            Work::Fill { to, bytes } if self.is_pinned(to, bytes.len() as u64) => {
                // SAFETY: the range lies in pinned memory.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
                Ok(())
            }
            Work::Fill { to, bytes } => self.store(to, &bytes),
            Work::Download { to, from, bytes } => self.download(to, from, bytes),
        }
    }

    pub fn store(&mut self, to: u64, bytes: &[u8]) -> Result<(), CUresult> {
        let stored = self.machine.write(to, bytes);
        stored.map_err(|error| self.fail(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, error.to_string()))
    }

    fn download(&mut self, to: u64, from: u64, bytes: u64) -> Result<(), CUresult> {
        match self.machine.read(from, bytes) {
            Ok(found) => {
                // SAFETY: whoever asked for the copy keeps the range until it is done.
                unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), to as *mut u8, found.len()) };
                Ok(())
            }
            Err(error) => Err(self.fail(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, error.to_string())),
        }
    }
}
