//! `schedule`: selected functions become one flat list of launches, every call spelled out with its own buffers.
use crate::packing::Packed;
use crate::select::{Operand, Place, Selected, Step};
use amc_artifact::Arg;
use amc_ir::{Function, Module, Value};

/// Where something is before addresses are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Location {
    /// `offset` bytes into a buffer that lives for a part of the program.
    Buffer { buffer: usize, offset: u64 },
    /// At an address that is known already.
    Fixed(Arg),
}

impl Location {
    /// The location `bytes` further on.
    pub fn at(self, bytes: u64) -> Location {
        match self {
            Location::Buffer { buffer, offset } => Location::Buffer { buffer, offset: offset + bytes },
            Location::Fixed(arg) => Location::Fixed(match arg {
                Arg::Arena(offset) => Arg::Arena(offset + bytes),
                Arg::Constant(offset) => Arg::Constant(offset + bytes),
                Arg::Weight { tensor, offset } => Arg::Weight { tensor, offset: offset + bytes },
            }),
        }
    }
}

/// A launch whose operands are located.
#[derive(Clone, PartialEq, Debug)]
pub struct Launch {
    pub kernel: usize,
    pub operands: Vec<Location>,
    /// Of every operand, whether it is written.
    pub writes: Vec<bool>,
    /// Operands that the kernel wants packed.
    pub packed: Vec<Packed>,
    pub label: String,
    /// Number of the call that it is in.
    pub call: usize,
}

/// Memory that lives for a part of the program.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    pub bytes: u64,
    /// What it holds.
    pub label: String,
    /// Number of the call that it is made in.
    pub call: usize,
}

/// Launches in order, and the sizes of the buffers they use.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Schedule {
    pub launches: Vec<Launch>,
    pub buffers: Vec<Buffer>,
    /// Calls that were spelled out; the first is that of the entry.
    pub calls: usize,
}

impl Schedule {
    /// A buffer of `bytes` that belongs to no call but the entry's.
    pub fn buffer(&mut self, bytes: u64, label: String) -> Location {
        self.buffer_in(0, bytes, label)
    }

    fn buffer_in(&mut self, call: usize, bytes: u64, label: String) -> Location {
        self.buffers.push(Buffer { bytes, label, call });
        Location::Buffer { buffer: self.buffers.len() - 1, offset: 0 }
    }

    /// Appends the launches of the module's entry on `args`; returns where its results are.
    pub fn add(&mut self, module: &Module, selected: &[Selected], args: &[Location]) -> Vec<Location> {
        self.function(module, selected, module.functions.len() - 1, args)
    }

    fn function(&mut self, module: &Module, selected: &[Selected], id: usize, args: &[Location]) -> Vec<Location> {
        let function = &module.functions[id];
        let call = self.calls;
        self.calls += 1;
        let body = &selected[id];
        let mut frame =
            Frame { function, call, places: &body.places, locations: args.iter().map(|a| Some(*a)).collect() };
        frame.locations.resize(function.value_count(), None);
        let temporaries: Vec<Location> = (body.temporaries.iter())
            .map(|bytes| self.buffer_in(call, *bytes as u64, format!("{}: temporary", function.name)))
            .collect();
        for step in &body.steps {
            match step {
                Step::Launch { kernel, operands, writes, packed, label } => {
                    let locate = |operand: &Operand| match operand {
                        Operand::Value { value, offset } => frame.locate(self, *value).at(*offset as u64),
                        Operand::Temporary { index, offset } => temporaries[*index].at(*offset as u64),
                    };
                    let operands = operands.iter().map(locate).collect();
                    let (kernel, writes, packed, label) = (*kernel, writes.clone(), packed.clone(), label.clone());
                    self.launches.push(Launch { kernel, operands, writes, packed, label, call });
                }
                Step::Call { callee, args, results } => {
                    let args: Vec<Location> = args.iter().map(|a| frame.locate(self, *a)).collect();
                    let found = self.function(module, selected, *callee, &args);
                    for (result, location) in results.iter().zip(found) {
                        frame.locations[result.index()] = Some(location);
                    }
                }
            }
        }
        function.results.iter().map(|r| frame.locate(self, *r)).collect()
    }
}

/// One call in progress.
struct Frame<'a> {
    function: &'a Function,
    call: usize,
    places: &'a [Place],
    locations: Vec<Option<Location>>,
}

impl Frame<'_> {
    /// Where `value` is; its memory is made when it is first asked for.
    fn locate(&mut self, schedule: &mut Schedule, value: Value) -> Location {
        if let Some(location) = self.locations[value.index()] {
            return location;
        }
        let location = match self.places[value.index()] {
            Place::In { value: of, offset } => self.locate(schedule, of).at(offset as u64),
            Place::Own => {
                let bytes = self.function.ty(value).bytes() as u64;
                schedule.buffer_in(self.call, bytes, self.function.describe(value))
            }
            Place::Nowhere => panic!("value %{} has no memory, yet a launch names it", value.0),
        };
        self.locations[value.index()] = Some(location);
        location
    }
}
