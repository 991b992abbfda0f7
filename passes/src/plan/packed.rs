//! The program that packs frozen matrices, and where their copies are: behind the trainable state, for as long as the run.
use super::{Assembler, Owners, align};
use crate::packing::{self, Matrix, Packed, Packings};
use crate::schedule::Launch;
use amc_artifact::{self as artifact, Arg, Buffer, Program, ProgramKind};
use amc_kernels::gemm::Packing;

/// Packed matrices with the offsets of their copies in the arena, in the order in which programs first want them.
#[derive(Default)]
pub struct Copies(Vec<(Matrix, Packing, u64)>);

impl Copies {
    fn offset(&self, matrix: Matrix, packing: &Packing) -> Option<u64> {
        self.0.iter().find(|(other, form, _)| *other == matrix && form == packing).map(|found| found.2)
    }

    /// Where the copy is that a launch wants in place of an operand, if it wants one.
    pub fn of(&self, launch: &Launch, operand: usize) -> Option<Arg> {
        let Packed { packing, .. } = launch.packed.iter().find(|packed| packed.operand == operand)?;
        self.offset(packing::matrix(&launch.operands[operand])?, packing).map(Arg::Arena)
    }
}

impl Assembler<'_> {
    /// The forms of packing that are worth most, for copies of at most so many bytes.
    pub(super) fn chosen(&self, bytes: u64) -> Packings {
        let schedules: Vec<_> = self.pending.iter().map(|pending| &pending.schedule).collect();
        packing::choose(&schedules, &self.plan.weights, bytes)
    }

    /// Gives every copy that a launch wants its place, and adds the program that makes them, if there are any.
    pub(super) fn pack(&mut self, owners: &Owners) -> Copies {
        let mut copies = Copies::default();
        for launch in self.pending.iter().flat_map(|pending| &pending.schedule.launches) {
            for Packed { operand, packing, .. } in &launch.packed {
                let matrix = packing::matrix(&launch.operands[*operand]).expect("what is packed is a frozen matrix");
                if copies.offset(matrix, packing).is_none() {
                    copies.0.push((matrix, *packing, self.persistent));
                    self.persistent = align(self.persistent + packing.bytes() as u64);
                }
            }
        }
        if !copies.0.is_empty() {
            let program = self.pack_program(&copies, owners);
            self.plan.programs.push(program);
        }
        copies
    }

    fn pack_program(&mut self, copies: &Copies, owners: &Owners) -> Program {
        let (mut launches, mut buffers) = (vec![], vec![]);
        for (number, ((tensor, offset), packing, place)) in copies.0.iter().enumerate() {
            let kernel = self.kernels.add(packing.build());
            let label = format!("pack: {}", self.plan.weights[*tensor as usize].name);
            let module = owners.of_frozen(*tensor).to_string();
            launches.push(artifact::Launch {
                kernel: kernel as u32,
                tasks: self.kernels.list[kernel].tasks,
                args: vec![Arg::Weight { tensor: *tensor, offset: *offset }, Arg::Arena(*place)],
                label: label.clone(),
                begins: artifact::Begins::Beside,
                module: module.clone(),
            });
            let (bytes, number) = (packing.bytes() as u64, number as u32);
            buffers.push(Buffer { label, module, offset: *place, bytes, first: number, last: number });
        }
        let (name, kind) = ("pack".to_string(), ProgramKind::Pack);
        Program { name, kind, batch: 0, seq: 0, inputs: vec![], outputs: vec![], launches, buffers }
    }
}
