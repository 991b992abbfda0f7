//! A scheduled program gets its addresses: buffers by their lifetimes, packed copies where they are, ports in the arena.
use super::modules::Owners;
use super::packed::Copies;
use super::{Pending, shape, storage};
use crate::memory::{self, Layout};
use crate::schedule::{self, Location};
use crate::select::Kernels;
use crate::stages::stages;
use crate::streams::streams;
use amc_artifact::{self as artifact, Arg, Begins, Port, Program, ProgramKind};
use amc_ir::Type;
use amc_kernels::Order;

/// Gives the buffers of a program their addresses, from `base` on, and its launches their order. `stored` are the offsets of the
/// tensors that outlive it, sorted.
pub fn place(
    pending: Pending,
    base: u64,
    (stored, order): (&[u64], Order),
    owners: &Owners,
    (kernels, copies): (&Kernels, &Copies),
) -> (Program, Layout) {
    let Pending { mut program, schedule, inputs, outputs } = pending;
    let locations = |ports: &[(String, Type, Location)]| ports.iter().map(|p| p.2).collect::<Vec<_>>();
    // In streams too, what a launch has read for the last time makes room for what the next one writes, which then waits for it.
    let stages = match order {
        Order::Stages => stages(&schedule, stored),
        Order::Streams(_) => (0..schedule.launches.len()).collect(),
    };
    let lives = memory::lifetimes(&schedule, &stages, &locations(&inputs), &locations(&outputs));
    let sizes: Vec<u64> = schedule.buffers.iter().map(|buffer| buffer.bytes).collect();
    let layout = memory::plan(&sizes, &lives);
    let begins = match order {
        Order::Stages => (0..stages.len()).map(|at| begins(&stages, at)).collect(),
        Order::Streams(count) => {
            let used: Vec<bool> = lives.iter().map(Option::is_some).collect();
            streams(&schedule, &layout, &used, stored, count)
        }
    };
    let address = |location: &Location| match location {
        Location::Fixed(arg) => *arg,
        Location::Buffer { buffer, offset } => Arg::Arena(base + layout.offsets[*buffer] + offset),
    };
    let port = |(name, ty, location): &(String, Type, Location)| Port {
        name: name.clone(),
        storage: storage(ty.dtype),
        shape: shape(ty),
        offset: match address(location) {
            Arg::Arena(offset) => offset,
            other => panic!("port `{name}` is at {other:?}, wanted the arena"),
        },
    };
    program.inputs = inputs.iter().map(port).collect();
    program.outputs = outputs.iter().map(port).collect();
    // The update takes all parameters at once: its operands begin where the first parameter does, and belong to no module.
    let nobody = Owners::default();
    let modules = if program.kind == ProgramKind::Update { &nobody } else { owners }.modules(&schedule);
    let launch = |(launch, begins): (&schedule::Launch, Begins)| artifact::Launch {
        kernel: launch.kernel as u32,
        tasks: kernels.list[launch.kernel].tasks,
        args: (launch.operands.iter().enumerate())
            .map(|(at, operand)| copies.of(launch, at).unwrap_or_else(|| address(operand)))
            .collect(),
        label: launch.label.clone(),
        module: modules.of_launch(launch),
        begins,
    };
    program.launches = schedule.launches.iter().zip(begins).map(launch).collect();
    let first_of = |stage: usize| stages.partition_point(|s| *s < stage);
    // An output lives to behind the last launch, others to the end of their last stage.
    let last_of = |stage: usize| if stages.contains(&stage) { first_of(stage + 1) - 1 } else { stages.len() };
    let buffers = schedule.buffers.iter().zip(&lives).zip(&layout.offsets);
    program.buffers = buffers
        .filter_map(|((buffer, life), offset)| {
            life.map(|life| artifact::Buffer {
                label: buffer.label.clone(),
                module: modules.of_call(buffer.call),
                offset: base + offset,
                bytes: buffer.bytes,
                first: first_of(life.first) as u32,
                last: last_of(life.last) as u32,
            })
        })
        .collect();
    (program, layout)
}

/// Of the launch `at`, for the threads of a CPU.
fn begins(stages: &[usize], at: usize) -> Begins {
    if at > 0 && stages[at] > stages[at - 1] { Begins::BehindAll } else { Begins::Beside }
}
