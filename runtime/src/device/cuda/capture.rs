//! A program's launches as a graph: captured from streams, among which the plan deals them out.
//!
//! The graph's only edges are the order of each stream and the waits of the plan. All streams begin when the first does, and the
//! first ends when all have, so that a graph is one piece of work of the stream that it is launched into.
use super::driver::Context;
use super::stream::{Event, Graph, Stream};
use amc_artifact::Begins;
use anyhow::{Result, bail};

/// The streams that programs are captured from, and run in.
pub struct Streams {
    /// Of the work that no capture is about, and of every capture the one that it begins and ends with.
    first: Stream,
    others: Vec<Stream>,
}

impl Streams {
    /// As many as the programs of a plan need.
    pub fn new(context: &Context, programs: &[amc_artifact::Program]) -> Result<Streams> {
        let count = programs.iter().map(count).max().unwrap_or(0);
        let first = Stream::new(context)?;
        Ok(Streams { first, others: (1..count).map(|_| Stream::new(context)).collect::<Result<_>>()? })
    }

    pub fn first(&self) -> &Stream {
        &self.first
    }

    fn get(&self, stream: u32) -> &Stream {
        match stream.checked_sub(1) {
            None => &self.first,
            Some(other) => &self.others[other as usize],
        }
    }

    /// A graph of the program, whose launches `put` puts, by their numbers, into a stream. None of them is done now.
    pub fn capture(
        &self,
        context: &Context,
        program: &amc_artifact::Program,
        put: impl Fn(usize, &Stream) -> Result<()>,
    ) -> Result<Graph> {
        let order = program.launches.iter().map(|launch| in_stream(&launch.begins)).collect::<Result<Vec<_>>>()?;
        let others = || (1..count(program) as u32).map(|stream| self.get(stream));
        let mut waited_for = vec![false; order.len()];
        order.iter().flat_map(|(_, behind)| *behind).for_each(|launch| waited_for[*launch as usize] = true);
        let event = || Event::without_time(context);
        // They last until the capture has ended.
        let begun = event()?;
        let done = waited_for.iter().map(|wanted| wanted.then(event).transpose()).collect::<Result<Vec<_>>>()?;
        let ended = others().map(|_| event()).collect::<Result<Vec<_>>>()?;
        self.first.capture(|| {
            begun.record(&self.first)?;
            others().try_for_each(|stream| stream.wait(&begun))?;
            for (number, (stream, behind)) in order.iter().enumerate() {
                let stream = self.get(*stream);
                let events = behind.iter().filter_map(|launch| done[*launch as usize].as_ref());
                events.into_iter().try_for_each(|event| stream.wait(event))?;
                put(number, stream)?;
                done[number].as_ref().map_or(Ok(()), |event| event.record(stream))?;
            }
            others().zip(&ended).try_for_each(|(stream, event)| {
                event.record(stream)?;
                self.first.wait(event)
            })
        })
    }
}

/// How many streams a program's launches are in, those between counted.
fn count(program: &amc_artifact::Program) -> usize {
    let streams = program.launches.iter().filter_map(|launch| in_stream(&launch.begins).ok());
    streams.map(|(stream, _)| stream as usize + 1).max().unwrap_or(1)
}

fn in_stream(begins: &Begins) -> Result<(u32, &[u32])> {
    match begins {
        Begins::InStream { stream, behind } => Ok((*stream, behind)),
        Begins::Beside | Begins::BehindAll => bail!("a launch in no stream: the plan is a CPU's"),
    }
}
