//! Streams, whose work waits until somebody waits for it.
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

/// All streams: one queue, because the work of one stream is all that they are used for.
#[derive(Default)]
pub struct Streams {
    queue: VecDeque<Work>,
    /// What was put into the stream since a capture began.
    capture: Option<Vec<Work>>,
    /// Graphs, by their number; an instance of one has the same number.
    pub graphs: Vec<Vec<Work>>,
    /// When each event happened last.
    pub events: Vec<Option<Instant>>,
}

impl Gpu {
    /// Puts work into the stream, or into the graph that is captured.
    pub fn put(&mut self, work: Work) -> Result<(), CUresult> {
        match (&mut self.streams.capture, &work) {
            (None, _) => self.streams.queue.push_back(work),
            (Some(capture), Work::Launch(_) | Work::Product(_)) => capture.push(work),
            (Some(_), _) => return Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        }
        Ok(())
    }

    pub fn begin_capture(&mut self) -> Result<(), CUresult> {
        match self.streams.capture.replace(Vec::new()) {
            None => Ok(()),
            Some(_) => Err(CUresult::CUDA_ERROR_ILLEGAL_STATE),
        }
    }

    /// The number of the graph that was captured.
    pub fn end_capture(&mut self) -> Result<usize, CUresult> {
        let graph = self.streams.capture.take().ok_or(CUresult::CUDA_ERROR_ILLEGAL_STATE)?;
        self.streams.graphs.push(graph);
        Ok(self.streams.graphs.len() - 1)
    }

    /// Puts all work of a graph into the stream.
    pub fn replay(&mut self, graph: usize) -> Result<(), CUresult> {
        let work = self.streams.graphs.get(graph).cloned().ok_or(CUresult::CUDA_ERROR_INVALID_HANDLE)?;
        work.into_iter().try_for_each(|work| self.put(work))
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
