//! Checks of a [`Plan`] that came from a file.
//!
//! After [`Plan::validate`] every index is in range, every address lies inside the memory it points into, every port and
//! parameter is whole and aligned, and the state of the parameters overlaps nothing that a program's ports use. That is
//! what the runtime relies on when it hands raw pointers to kernels. A matrix that a tensor map describes lies inside of
//! its memory as a whole. How far a kernel reaches from an address is the compiler's promise: the shared object is native
//! code and is trusted by its hash, not by this module.
use crate::{Arg, Block, Buffer, Kernel, Launch, Param, Plan, Port, Program, ProgramKind, Storage, TensorMap};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;

/// Largest size that pointers may span.
const MAX_BYTES: u64 = isize::MAX as u64;
/// What a tensor map can describe (`cuTensorMapEncodeTiled`): addresses and pitches, in bytes, and sizes.
const MAP_ALIGNMENT: u64 = 16;
const MAX_PITCH: u64 = 1 << 40;
const MAX_MAP_SIZE: u64 = 1 << 32;
const MAX_BOX_ROWS: u32 = 256;

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
        for Kernel { symbol: name, block, .. } in &self.kernels {
            let ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
            ensure!(ok, "plan: kernel symbol {name:?} is not a plain name");
            let Some(Block { threads, maps, .. }) = block else { continue };
            ensure!(*threads > 0, "plan: kernel `{name}` has blocks of no threads");
            let ordered = maps.windows(2).all(|pair| pair[0].operand < pair[1].operand);
            ensure!(ordered, "plan: the tensor maps of kernel `{name}` are not in the order of its operands");
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
                .with_context(|| format!("launch {index} (`{}`)", launch.label))?;
        }
        program.buffers.iter().try_for_each(|buffer| self.validate_buffer(buffer, program))
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
        let maps = self.kernels[launch.kernel as usize].block.as_ref().map_or(&[][..], |block| &block.maps);
        if let Some(last) = maps.last() {
            let (operand, args) = (last.operand, launch.args.len());
            ensure!((operand as usize) < args, "a tensor map of argument {operand}, of {args}");
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
            let Some(map) = maps.iter().find(|map| map.operand as usize == index) else { continue };
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
    let TensorMap { operand, rows, columns, stride, box_rows, .. } = *map;
    let sized = |size: u64| (1..=MAX_MAP_SIZE).contains(&size);
    ensure!(sized(rows) && sized(columns), "operand {operand} has {rows} x {columns} elements");
    ensure!(stride >= columns, "operand {operand} has rows of {columns} elements that are {stride} apart");
    let aligned = map.pitch().is_some_and(|pitch| pitch.is_multiple_of(MAP_ALIGNMENT) && pitch < MAX_PITCH);
    ensure!(aligned, "operand {operand} has rows {stride} elements apart, wanted a multiple of {MAP_ALIGNMENT} bytes");
    ensure!((1..=MAX_BOX_ROWS).contains(&box_rows), "operand {operand} has boxes of {box_rows} rows");
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
mod tests {
    use super::*;
    use crate::{Block, Init, WeightTensor, Work};

    fn plan() -> Plan {
        let param = Param {
            name: "w".into(),
            storage: Storage::Bf16,
            shape: vec![4, 4],
            init: Init::Zeros,
            value_offset: 0,
            grad_offset: 64,
            exp_avg_offset: 128,
            exp_avg_sq_offset: 192,
        };
        let port = |name: &str, offset| Port { name: name.into(), storage: Storage::I32, shape: vec![8], offset };
        let args = vec![Arg::Arena(0), Arg::Weight { tensor: 0, offset: 0 }, Arg::Constant(3)];
        let buffer =
            Buffer { label: "main: %1 x".into(), module: String::new(), offset: 256, bytes: 64, first: 0, last: 1 };
        let program = Program {
            name: "train".into(),
            kind: ProgramKind::Train,
            batch: 1,
            seq: 8,
            inputs: vec![port("tokens", 256)],
            outputs: vec![port("loss", 288)],
            launches: vec![Launch { kernel: 0, tasks: 2, args, label: "x".into(), waits: true, module: String::new() }],
            buffers: vec![buffer],
        };
        Plan {
            arena_bytes: 320,
            scratch_bytes: 64,
            kernels: vec![Kernel { symbol: "k".into(), work: Work::default(), block: None }],
            constants: vec![0; 4],
            weights: vec![WeightTensor {
                name: "e".into(),
                storage: Storage::F32,
                shape: vec![2],
                init: Init::Checkpoint,
            }],
            params: vec![param],
            programs: vec![program],
        }
    }

    /// The error of a plan after one fault was put in.
    fn fault(break_it: impl FnOnce(&mut Plan)) -> String {
        let mut broken = plan();
        break_it(&mut broken);
        format!("{:#}", broken.validate().unwrap_err())
    }

    #[test]
    fn a_sound_plan_passes() {
        plan().validate().unwrap();
    }

    #[test]
    fn without_training_there_are_values_alone() {
        let mut plan = plan();
        plan.params[0].grad_offset = plan.params[0].exp_avg_offset;
        assert!(plan.validate().is_err());
        plan.programs[0].kind = ProgramKind::Decode;
        plan.validate().unwrap();
    }

    #[test]
    fn faults_of_tensor_maps_are_named() {
        // All of the arena but for its first 16 bytes: 19 rows of 8 bf16, 16 bytes apart.
        let map = TensorMap { operand: 3, storage: Storage::Bf16, rows: 19, columns: 8, stride: 8, box_rows: 64 };
        let put = |plan: &mut Plan, maps: Vec<TensorMap>, offset| {
            plan.kernels[0].block = Some(Block { threads: 1, shared_bytes: 0, maps });
            plan.programs[0].launches[0].args.push(Arg::Arena(offset));
        };
        let mut sound = plan();
        put(&mut sound, vec![map], 16);
        sound.validate().unwrap();
        let broken = |map, offset| fault(|p| put(p, vec![map], offset));
        assert!(broken(map, 24).contains("a tensor map from byte 24 on, wanted a multiple of 16"));
        assert!(broken(map, 32).contains("a tensor map of 19 x 8 from byte 32 on, of 320 bytes of arena"));
        assert!(broken(TensorMap { operand: 4, ..map }, 16).contains("a tensor map of argument 4, of 4"));
        assert!(broken(TensorMap { rows: 0, ..map }, 16).contains("operand 3 has 0 x 8 elements"));
        assert!(broken(TensorMap { rows: 1 << 33, ..map }, 16).contains("elements"));
        assert!(broken(TensorMap { columns: 9, ..map }, 16).contains("rows of 9 elements that are 8 apart"));
        assert!(broken(TensorMap { stride: 9, ..map }, 16).contains("wanted a multiple of 16 bytes"));
        assert!(broken(TensorMap { stride: u64::MAX, ..map }, 16).contains("wanted a multiple of 16 bytes"));
        assert!(broken(TensorMap { stride: 1 << 39, ..map }, 16).contains("wanted a multiple of 16 bytes"));
        assert!(broken(TensorMap { stride: 1 << 38, rows: 1 << 32, ..map }, 16).contains("of 320 bytes of arena"));
        assert!(broken(TensorMap { box_rows: 257, ..map }, 16).contains("boxes of 257 rows"));
        assert!(fault(|p| put(p, vec![map, map], 16)).contains("not in the order of its operands"));
    }

    #[test]
    fn each_fault_is_named() {
        let launch = |plan: &mut Plan, arg| plan.programs[0].launches[0].args.push(arg);
        assert!(fault(|p| launch(p, Arg::Arena(320))).contains("argument 3: byte 320 of 320 bytes of arena"));
        assert!(fault(|p| launch(p, Arg::Arena(u64::MAX))).contains("of arena"));
        assert!(fault(|p| launch(p, Arg::Constant(4))).contains("byte 4 of 4 bytes of constants"));
        assert!(
            fault(|p| launch(p, Arg::Weight { tensor: 0, offset: 8 })).contains("byte 8 of 8 bytes of frozen tensor")
        );
        assert!(fault(|p| launch(p, Arg::Weight { tensor: 1, offset: 0 })).contains("frozen tensor 1 of 1"));
        assert!(fault(|p| p.programs[0].launches[0].kernel = 1).contains("kernel 1 of 1"));
        assert!(fault(|p| p.programs[0].launches[0].tasks = 0).contains("no tasks"));
        assert!(fault(|p| p.programs[0].inputs[0].offset = 292).contains("do not fit"));
        assert!(fault(|p| p.programs[0].inputs[0].offset = u64::MAX - 3).contains("do not fit"));
        assert!(fault(|p| p.programs[0].inputs[0].offset = 257).contains("multiple of 4"));
        assert!(fault(|p| p.programs[0].inputs[0].offset = 240).contains("overlaps parameter state at 192..256"));
        assert!(fault(|p| p.params[0].grad_offset = 24).contains("overlaps"));
        assert!(fault(|p| p.params[0].shape = vec![u64::MAX, 2]).contains("addressable"));
        assert!(fault(|p| p.weights[0].shape = vec![1 << 62]).contains("addressable"));
        assert!(fault(|p| p.programs[0].buffers[0].bytes = 65).contains("outside the arena"));
        assert!(fault(|p| p.programs[0].buffers[0].last = 2).contains("lives from 0 to 2"));
        assert!(fault(|p| p.kernels[0].symbol = "a\0b".into()).contains("plain name"));
        let empty = Some(Block { threads: 0, shared_bytes: 0, maps: vec![] });
        assert!(fault(|p| p.kernels[0].block = empty).contains("blocks of no threads"));
        assert!(fault(|p| p.programs.push(p.programs[0].clone())).contains("two programs are named `train`"));
        assert!(fault(|p| p.arena_bytes = u64::MAX).contains("not addressable"));
    }
}
