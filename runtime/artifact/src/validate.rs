//! Checks of a [`Plan`] that came from a file.
//!
//! After [`Plan::validate`] every index is in range, every address lies inside the memory it points into, every port and
//! parameter is whole and aligned, and the state of the parameters overlaps nothing that a program's ports use. That is
//! what the runtime relies on when it hands raw pointers to kernels. A matrix that a tensor map describes lies inside of
//! its memory as a whole, and so does what the vendor's library gets. How far a kernel reaches from an address is the
//! compiler's promise: the shared object is native code and is trusted by its hash, not by this module.
use crate::vendor::ensure_within;
use crate::{
    Arg, Begins, Block, Buffer, Code, Launch, MOST_STREAMS, Param, Plan, Port, Program, ProgramKind, Storage, TensorMap,
};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;

/// Largest size that pointers may span.
const MAX_BYTES: u64 = isize::MAX as u64;
/// What a tensor map can describe (`cuTensorMapEncodeTiled`): addresses and pitches, in bytes, and sizes.
const MAP_ALIGNMENT: u64 = 16;
const MAX_PITCH: u64 = 1 << 40;
const MAX_MAP_SIZE: u64 = 1 << 32;
const MAX_BOX_ROWS: u32 = 256;
/// Rows of a box as long as the rows that a swizzle permutes.
const BOX_ROWS_BYTES: [u32; 3] = [32, 64, 128];

impl Plan {
    /// Checks everything that can be checked without running; the error names the first fault found.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.arena_bytes <= MAX_BYTES, "plan: an arena of {} bytes is not addressable", self.arena_bytes);
        ensure!(self.scratch_bytes <= MAX_BYTES, "plan: scratch of {} bytes is not addressable", self.scratch_bytes);
        self.validate_kernels()?;
        let weight_bytes = self.validate_weights()?;
        let state = self.validate_params()?;
        let mut names = HashSet::new();
        for program in &self.programs {
            ensure!(names.insert(&program.name), "plan: two programs are named `{}`", program.name);
            self.validate_program(program, &weight_bytes, &state)
                .with_context(|| format!("plan: program `{}`", program.name))?;
        }
        Ok(())
    }

    /// The program of that name.
    pub fn program(&self, name: &str) -> Option<(usize, &Program)> {
        self.programs.iter().enumerate().find(|(_, program)| program.name == name)
    }

    fn validate_kernels(&self) -> Result<()> {
        for kernel in &self.kernels {
            let name = &kernel.symbol;
            let ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
            ensure!(ok, "plan: kernel symbol {name:?} is not a plain name");
            if let Code::Vendor(product) = &kernel.code {
                product.validate().with_context(|| format!("plan: kernel `{name}`"))?;
            }
            let Code::Gpu(Block { threads, maps, arrays, .. }) = &kernel.code else { continue };
            ensure!(*threads > 0, "plan: kernel `{name}` has blocks of no threads");
            let ordered = maps.windows(2).all(|pair| pair[0].operand < pair[1].operand);
            ensure!(ordered, "plan: the tensor maps of kernel `{name}` are not in the order of its operands");
            let apart = arrays.windows(2).all(|pair| pair[0].end() <= pair[1].first.into());
            let filled = arrays.iter().all(|array| array.count > 0);
            ensure!(filled, "plan: kernel `{name}` has an array of no operands");
            ensure!(
                apart,
                "plan: the operand arrays of kernel `{name}` overlap or are not in the order of its operands"
            );
            maps.iter().try_for_each(validate_map).with_context(|| format!("plan: a tensor map of kernel `{name}`"))?;
        }
        Ok(())
    }

    fn validate_weights(&self) -> Result<Vec<u64>> {
        let mut names = HashSet::new();
        let mut sizes = Vec::with_capacity(self.weights.len());
        for weight in &self.weights {
            ensure!(names.insert(&weight.name), "plan: two frozen tensors are named `{}`", weight.name);
            sizes.push(
                tensor_bytes(weight.storage, &weight.shape).with_context(|| format!("weight `{}`", weight.name))?,
            );
        }
        Ok(sizes)
    }

    /// Checks the parameters and returns the sorted, disjoint ranges of the arena that hold their state.
    fn validate_params(&self) -> Result<Vec<Range>> {
        let mut names = HashSet::new();
        let mut ranges = Vec::with_capacity(4 * self.params.len());
        let trains = self.programs.iter().any(|p| matches!(p.kind, ProgramKind::Train | ProgramKind::Update));
        let parts = if trains { 4 } else { 1 };
        for param in &self.params {
            ensure!(names.insert(&param.name), "plan: two parameters are named `{}`", param.name);
            for (part, storage, offset) in param_parts(param).into_iter().take(parts) {
                let range = self
                    .arena_range(storage, &param.shape, offset)
                    .with_context(|| format!("plan: {part} of parameter `{}`", param.name))?;
                ranges.push(range);
            }
        }
        ranges.retain(|range| range.end > range.begin);
        ranges.sort();
        for pair in ranges.windows(2) {
            let [a, b] = [pair[0], pair[1]];
            ensure!(
                a.end <= b.begin,
                "plan: parameter state at {}..{} and {}..{} overlaps",
                a.begin,
                a.end,
                b.begin,
                b.end
            );
        }
        Ok(ranges)
    }

    fn validate_program(&self, program: &Program, weight_bytes: &[u64], state: &[Range]) -> Result<()> {
        for (what, ports) in [("input", &program.inputs), ("output", &program.outputs)] {
            let mut names = HashSet::new();
            for port in ports {
                ensure!(names.insert(&port.name), "two {what}s are named `{}`", port.name);
                self.validate_port(port, state).with_context(|| format!("{what} `{}`", port.name))?;
            }
        }
        for (index, launch) in program.launches.iter().enumerate() {
            self.validate_launch(launch, weight_bytes)
                .and_then(|()| self.validate_order(launch, index))
                .with_context(|| format!("launch {index} (`{}`)", launch.label))?;
        }
        program.buffers.iter().try_for_each(|buffer| self.validate_buffer(buffer, program))
    }

    /// Of the launch of that index: threads of a CPU meet, a GPU has streams.
    fn validate_order(&self, launch: &Launch, index: usize) -> Result<()> {
        let on_gpu = self.kernels[launch.kernel as usize].code != Code::Cpu;
        let Begins::InStream { stream, behind } = &launch.begins else {
            ensure!(!on_gpu, "a kernel of a GPU, but in no stream");
            return Ok(());
        };
        ensure!(on_gpu, "a kernel of a CPU in a stream");
        ensure!(*stream < MOST_STREAMS, "stream {stream} of {MOST_STREAMS}");
        let sorted = behind.windows(2).all(|pair| pair[0] > pair[1]);
        ensure!(sorted, "it waits for launches {behind:?}, wanted the latest first");
        let earlier = behind.first().is_none_or(|latest| (*latest as usize) < index);
        ensure!(earlier, "it waits for launches {behind:?}, wanted earlier ones");
        Ok(())
    }

    fn validate_buffer(&self, buffer: &Buffer, program: &Program) -> Result<()> {
        let Buffer { label, offset, bytes, first, last, .. } = buffer;
        let inside = offset.checked_add(*bytes).is_some_and(|end| end <= self.arena_bytes);
        ensure!(inside, "buffer `{label}` is outside the arena");
        let ordered = first <= last && *last as usize <= program.launches.len();
        ensure!(ordered, "buffer `{label}` lives from {first} to {last}, of {} launches", program.launches.len());
        Ok(())
    }

    fn validate_port(&self, port: &Port, state: &[Range]) -> Result<()> {
        let range = self.arena_range(port.storage, &port.shape, port.offset)?;
        let next = state.partition_point(|part| part.end <= range.begin);
        if let Some(part) = state.get(next) {
            let apart = part.begin >= range.end;
            ensure!(apart, "{}..{} overlaps parameter state at {}..{}", range.begin, range.end, part.begin, part.end);
        }
        Ok(())
    }

    fn validate_launch(&self, launch: &Launch, weight_bytes: &[u64]) -> Result<()> {
        let kernels = self.kernels.len();
        ensure!((launch.kernel as usize) < kernels, "kernel {} of {kernels}", launch.kernel);
        ensure!(launch.tasks > 0, "no tasks");
        let kernel = &self.kernels[launch.kernel as usize];
        let reach = kernel.vendor_product().map(|product| product.reach(launch)).transpose()?;
        if let Code::Gpu(Block { maps, arrays, .. }) = &kernel.code {
            let args = launch.args.len();
            if let Some(TensorMap { operand, .. }) = maps.last() {
                ensure!((*operand as usize) < args, "a tensor map of argument {operand}, of {args}");
            }
            if let Some(array) = arrays.last() {
                ensure!(
                    array.end() <= args as u64,
                    "an array of arguments {} to {}, of {args}",
                    array.first,
                    array.end()
                );
            }
        }
        for (index, arg) in launch.args.iter().enumerate() {
            let (what, offset, size) = match *arg {
                Arg::Arena(offset) => ("arena", offset, self.arena_bytes),
                Arg::Constant(offset) => ("constants", offset, self.constants.len() as u64),
                Arg::Weight { tensor, offset } => match weight_bytes.get(tensor as usize) {
                    Some(&size) => ("frozen tensor", offset, size),
                    None => bail!("argument {index}: frozen tensor {tensor} of {}", weight_bytes.len()),
                },
            };
            ensure!(offset < size, "argument {index}: byte {offset} of {size} bytes of {what}");
            if let Some(reach) = &reach {
                ensure_within(offset, reach[index], size).with_context(|| format!("argument {index}"))?;
            }
            let Some(map) = kernel.map(index) else { continue };
            ensure!(
                offset.is_multiple_of(MAP_ALIGNMENT),
                "argument {index}: a tensor map from byte {offset} on, wanted a multiple of {MAP_ALIGNMENT}"
            );
            let end = map.span().and_then(|span| offset.checked_add(span));
            ensure!(
                end.is_some_and(|end| end <= size),
                "argument {index}: a tensor map of {} x {} from byte {offset} on, of {size} bytes of {what}",
                map.rows,
                map.columns
            );
        }
        Ok(())
    }

    fn arena_range(&self, storage: Storage, shape: &[u64], offset: u64) -> Result<Range> {
        let bytes = tensor_bytes(storage, shape)?;
        ensure!(
            offset.is_multiple_of(storage.bytes()),
            "offset {offset} is not a multiple of {} bytes",
            storage.bytes()
        );
        match offset.checked_add(bytes) {
            Some(end) if end <= self.arena_bytes => Ok(Range { begin: offset, end }),
            _ => bail!("{bytes} bytes at {offset} do not fit an arena of {} bytes", self.arena_bytes),
        }
    }
}

fn validate_map(map: &TensorMap) -> Result<()> {
    let TensorMap { operand, rows, columns, stride, box_rows, box_row_bytes, .. } = *map;
    let sized = |size: u64| (1..=MAX_MAP_SIZE).contains(&size);
    ensure!(sized(rows) && sized(columns), "operand {operand} has {rows} x {columns} elements");
    ensure!(stride >= columns, "operand {operand} has rows of {columns} elements that are {stride} apart");
    let aligned = map.pitch().is_some_and(|pitch| pitch.is_multiple_of(MAP_ALIGNMENT) && pitch < MAX_PITCH);
    ensure!(aligned, "operand {operand} has rows {stride} elements apart, wanted a multiple of {MAP_ALIGNMENT} bytes");
    ensure!((1..=MAX_BOX_ROWS).contains(&box_rows), "operand {operand} has boxes of {box_rows} rows");
    ensure!(BOX_ROWS_BYTES.contains(&box_row_bytes), "operand {operand} has boxes with rows of {box_row_bytes} bytes");
    Ok(())
}

/// Bytes of a dense tensor; an error when they exceed what pointers can span.
pub fn tensor_bytes(storage: Storage, shape: &[u64]) -> Result<u64> {
    let bytes = shape.iter().try_fold(storage.bytes(), |bytes, &size| bytes.checked_mul(size));
    match bytes {
        Some(bytes) if bytes <= MAX_BYTES => Ok(bytes),
        _ => bail!("shape {shape:?} has more bytes than are addressable"),
    }
}

/// Bytes `begin..end` of the arena.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Range {
    begin: u64,
    end: u64,
}

/// The value first: a plan that does not train has only that.
fn param_parts(param: &Param) -> [(&'static str, Storage, u64); 4] {
    [
        ("value", param.storage, param.value_offset),
        ("gradient", Storage::F32, param.grad_offset),
        ("first moment", Storage::F32, param.exp_avg_offset),
        ("second moment", Storage::F32, param.exp_avg_sq_offset),
    ]
}

#[cfg(test)]
mod tests;
