//! Frozen matrices that are packed once, before the first step, in the form in which products read them.
//!
//! A packed copy costs memory and saves what every launch spends on packing, so there is a limit to their bytes. What is
//! chosen is a form of packing with all matrices of that form, such as the `up_proj` and `gate_proj` of every layer for the forward
//! pass: layers share their code. A matrix that is read in packed forms alone gives its own memory back.
use crate::schedule::{Location, Schedule};
use amc_artifact::{Arg, Init, WeightTensor};
use amc_ir::{Binding, Bindings, InstKind, Module};
use amc_kernels::gemm::Packing;
use std::collections::BTreeSet;

/// Of every parameter of every function, whether it is a frozen tensor wherever the function is called.
pub struct Frozen(Vec<Vec<bool>>);

impl Frozen {
    /// No parameter is.
    pub fn none(module: &Module) -> Frozen {
        Frozen(module.functions.iter().map(|function| vec![false; function.params.len()]).collect())
    }

    pub fn of(module: &Module, bindings: &Bindings) -> Frozen {
        let mut frozen: Vec<Vec<bool>> =
            module.functions.iter().map(|function| vec![true; function.params.len()]).collect();
        let entry = module.functions.len() - 1;
        let bound = |name: &str| matches!(bindings.params.get(name), Some(Binding::Frozen(_)));
        frozen[entry] = module.entry().params.iter().map(|param| bound(&param.name)).collect();
        // Callers stand behind what they call.
        for id in (0..=entry).rev() {
            let own = frozen[id].clone();
            for inst in &module.functions[id].insts {
                let InstKind::Call(callee) = inst.kind else { continue };
                for (param, arg) in frozen[callee.index()].iter_mut().zip(&inst.args) {
                    *param &= own.get(arg.index()) == Some(&true);
                }
            }
        }
        Frozen(frozen)
    }

    /// Those of a function.
    pub fn params(&self, function: usize) -> &[bool] {
        &self.0[function]
    }
}

/// The forms that matrices may be packed in.
pub enum Packings {
    All,
    These(Vec<Packing>),
}

impl Packings {
    pub fn none() -> Packings {
        Packings::These(vec![])
    }

    pub fn allow(&self, packing: &Packing) -> bool {
        match self {
            Packings::All => true,
            Packings::These(these) => these.contains(packing),
        }
    }
}

/// An operand of a launch that the kernel wants packed.
#[derive(Clone, PartialEq, Debug)]
pub struct Packed {
    /// Its number.
    pub operand: usize,
    pub packing: Packing,
    /// How often the launch would pack it otherwise.
    pub times: usize,
}

/// A frozen matrix: its tensor, and its first byte in it.
pub type Matrix = (u32, u64);

/// The frozen matrix that an operand is.
pub fn matrix(operand: &Location) -> Option<Matrix> {
    match operand {
        Location::Fixed(Arg::Weight { tensor, offset }) => Some((*tensor, *offset)),
        _ => None,
    }
}

/// A form of packing with what it would be used for.
struct Candidate {
    packing: Packing,
    matrices: BTreeSet<Matrix>,
    /// How often a matrix need not be packed with it, all together.
    times: usize,
}

/// Chooses the forms that save most for their bytes, as long as these are `room` at most, from schedules in which products want all
/// that can be packed.
pub fn choose(schedules: &[&Schedule], weights: &[WeightTensor], room: u64) -> Packings {
    let choice = Choice::new(schedules, weights);
    let mut chosen: Vec<usize> = vec![];
    while let Some(best) = choice.best(&chosen, room as i64) {
        chosen.push(best);
    }
    Packings::These(chosen.into_iter().map(|candidate| choice.candidates[candidate].packing).collect())
}

/// What there is to choose from.
struct Choice {
    candidates: Vec<Candidate>,
    tensors: Vec<Tensor>,
}

/// A frozen tensor.
struct Tensor {
    bytes: u64,
    /// The candidates that read it.
    readers: BTreeSet<usize>,
    /// Whether something reads it as it is stored, or it is not mapped from a file.
    stays: bool,
}

impl Choice {
    fn new(schedules: &[&Schedule], weights: &[WeightTensor]) -> Choice {
        let tensor = |weight: &WeightTensor| Tensor {
            bytes: weight.shape.iter().product::<u64>() * weight.storage.bytes(),
            readers: BTreeSet::new(),
            stays: weight.init != Init::Checkpoint,
        };
        let mut choice = Choice { candidates: vec![], tensors: weights.iter().map(tensor).collect() };
        for launch in schedules.iter().flat_map(|schedule| &schedule.launches) {
            for (at, operand) in launch.operands.iter().enumerate() {
                let Some(matrix) = matrix(operand) else { continue };
                match launch.packed.iter().find(|packed| packed.operand == at) {
                    Some(packed) => choice.read(matrix, packed),
                    None => choice.tensors[matrix.0 as usize].stays = true,
                }
            }
        }
        choice
    }

    /// Notes a launch that wants a matrix packed.
    fn read(&mut self, matrix: Matrix, packed: &Packed) {
        let known = self.candidates.iter().position(|candidate| candidate.packing == packed.packing);
        let index = known.unwrap_or_else(|| {
            self.candidates.push(Candidate { packing: packed.packing, matrices: BTreeSet::new(), times: 0 });
            self.candidates.len() - 1
        });
        self.candidates[index].matrices.insert(matrix);
        self.candidates[index].times += packed.times;
        self.tensors[matrix.0 as usize].readers.insert(index);
    }

    /// The candidate to choose next; none where no other fits. Of equals the one that saves more, then the first, so that the
    /// choice is always the same.
    fn best(&self, chosen: &[usize], room: i64) -> Option<usize> {
        let before = self.bytes(chosen);
        let open = (0..self.candidates.len()).filter(|candidate| !chosen.contains(candidate));
        let fitting = open.filter_map(|candidate| {
            let all = self.bytes(&[chosen, &[candidate]].concat());
            let saved = self.candidates[candidate].saved();
            (all <= room).then(|| ((saved as f64 / (all - before).max(1) as f64, saved), candidate))
        });
        fitting.reduce(|a, b| if b.0 > a.0 { b } else { a }).map(|(_, candidate)| candidate)
    }

    /// Bytes that the copies of these candidates take, without those of the tensors that nothing else reads then.
    fn bytes(&self, chosen: &[usize]) -> i64 {
        let copies = chosen.iter().map(|candidate| {
            let Candidate { packing, matrices, .. } = &self.candidates[*candidate];
            (packing.bytes() * matrices.len()) as i64
        });
        let goes = |tensor: &&Tensor| {
            !tensor.stays && !tensor.readers.is_empty() && tensor.readers.iter().all(|reader| chosen.contains(reader))
        };
        copies.sum::<i64>() - self.tensors.iter().filter(goes).map(|tensor| tensor.bytes as i64).sum::<i64>()
    }
}

impl Candidate {
    /// Bytes that need not be packed; those of a matrix whose rows are not along K count three times, since its panels are made
    /// of short parts of long rows: on Zen 5 its products gain 5 to 7 %, others 1 to 5 %.
    fn saved(&self) -> usize {
        let weight = if self.packing.stored.transposed { 1 } else { 3 };
        self.packing.bytes() * self.times * weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Launch;
    use amc_artifact::Storage;
    use amc_ir::View;
    use amc_kernels::emit::Elem;
    use amc_kernels::gemm::Operand;
    use amc_kernels::gemm::plan::Panel;

    /// Of a matrix of 16 x 64 f32, 4,096 bytes, as it is stored or turned over.
    fn packing(transposed: bool) -> Packing {
        let panel = Panel { lanes: 8, vectors: 2, paired: false };
        let stored = Operand { elem: Elem::F32, transposed, stride: if transposed { 64 } else { 16 } };
        Packing { k: 64, n: 16, stored, panel }
    }

    /// Launches that read tensors packed, so often otherwise; or as they are.
    fn schedule(reads: &[(u32, Option<(Packing, usize)>)]) -> Schedule {
        let launch = |(tensor, wanted): &(u32, Option<(Packing, usize)>)| Launch {
            kernel: 0,
            operands: vec![Location::Fixed(Arg::Weight { tensor: *tensor, offset: 0 })],
            writes: vec![false],
            packed: wanted
                .iter()
                .map(|(packing, times)| Packed { operand: 0, packing: *packing, times: *times })
                .collect(),
            label: String::new(),
            call: 0,
        };
        Schedule { launches: reads.iter().map(launch).collect(), ..Schedule::default() }
    }

    fn chosen(reads: &[(u32, Option<(Packing, usize)>)], room: u64) -> Vec<Packing> {
        let weight = |name: &str| WeightTensor {
            name: name.into(),
            storage: Storage::F32,
            shape: vec![16, 64],
            init: Init::Checkpoint,
        };
        match choose(&[&schedule(reads)], &["a", "b"].map(weight), room) {
            Packings::These(these) => these,
            Packings::All => panic!("a choice is a list"),
        }
    }

    #[test]
    fn what_saves_most_for_its_bytes_comes_first() {
        let [rows, columns] = [packing(false), packing(true)];
        let reads = [(0, Some((columns, 4))), (0, None), (1, Some((rows, 1))), (1, None)];
        assert_eq!(chosen(&reads, 4095), []);
        assert_eq!(chosen(&reads, 4096), [columns], "four times as it is beats three times once");
        assert_eq!(chosen(&reads, 8192), [columns, rows]);
    }

    /// One copy in place of the matrix costs nothing, and a second one as much as the first.
    #[test]
    fn a_matrix_that_is_read_in_packed_forms_alone_gives_its_memory_back() {
        let [rows, columns] = [packing(false), packing(true)];
        assert_eq!(chosen(&[(0, Some((rows, 1)))], 0), [rows]);
        assert_eq!(chosen(&[(0, Some((rows, 1))), (0, None)], 0), []);
        let both = [(0, Some((rows, 1))), (0, Some((columns, 1)))];
        assert_eq!(chosen(&both, 4095), []);
        assert_eq!(chosen(&both, 4096), [rows, columns]);
    }

    #[test]
    fn parameters_are_frozen_where_every_call_gives_them_a_frozen_tensor() {
        let text = r#"
            func @layer(%0 "x": f32[2,4], %1 "w": f32[4,4], %2 "v": f32[4,4]) {
              %3 = matmul %0, %1 {ta = false, tb = true, dtype = f32} : f32[2,4]
              %4 = matmul %3, %2 {ta = false, tb = true, dtype = f32} : f32[2,4]
              return %4
            }
            func @main(%0 "x": f32[2,4], %1 "a": f32[4,4], %2 "b": f32[4,4]) {
              %3 = call @layer(%0, %1, %1) : f32[2,4]
              %4 = call @layer(%3, %1, %2) : f32[2,4]
              return %4
            }"#;
        let module = amc_ir::text::parse(text).expect("a module");
        let view = |name: &str| View { tensor: name.into(), start: 0, rows: 4 };
        let params = [("x", Binding::Input), ("a", Binding::Frozen(view("a"))), ("b", Binding::Trainable(view("b")))];
        let params = params.into_iter().map(|(name, binding)| (name.to_string(), binding)).collect();
        let frozen = Frozen::of(&module, &Bindings { params, ..Bindings::default() });
        assert_eq!(frozen.params(0), [false, true, false]);
        assert_eq!(frozen.params(1), [false, true, false]);
    }
}
