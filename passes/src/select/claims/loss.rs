//! The output head with its loss: labelled rows are gathered, then blocks of them go through logits, softmax and gradient
//! in one scratch block, so that logits never exist as a whole and rows without a label cost nothing.
use super::{accumulation, value_elem};
use crate::select::region::operand;
use crate::select::{Operand, Selector, elem, rows};
use amc_ir::ops::LinearCrossEntropyGrad;
use amc_ir::{DType, Type};
use amc_kernels::cross_entropy::{CompactRows, CrossEntropyRows, GatherRows, ScatterRows};
use amc_kernels::emit::Elem;
use amc_kernels::gemm::{self, Gemm, Term};
use amc_kernels::machine::LogitsBlock;
use amc_kernels::reduce::{ColumnSum, Sum};
use amc_kernels::region::{Broadcast, Region, RegionInput, RegionNode, RegionOutput, RegionValue, ScalarOp};

/// Rows of a block of logits.
fn block_rows(tokens: usize, vocab: usize, most: LogitsBlock) -> usize {
    let fitting = most.bytes / (4 * vocab) / 8 * 8;
    fitting.clamp(8, most.rows).min(tokens)
}

/// The loss alone (`gradient` is `None`), or with the gradient of the rows and, if wanted, of the head's weight and bias.
pub(super) fn claim(
    s: &mut Selector,
    at: usize,
    (logit_scale, softcap): (f32, Option<f32>),
    gradient: Option<&LinearCrossEntropyGrad>,
    done: &mut [bool],
) {
    let inst = &s.function.insts[at];
    let (args, results) = (inst.args.clone(), inst.results.clone());
    let (tokens, width) = rows(s.function.ty(args[0]));
    let (vocab, _) = rows(s.function.ty(args[1]));
    let elem = value_elem(s.function, args[0]);
    let block = block_rows(tokens, vocab, s.target.logits_block());
    let blocks = tokens.div_ceil(block);
    let padded = blocks * block;
    let [index, labels] = [(); 2].map(|()| s.temporary(padded * 4));
    let counts = s.temporary(blocks * 4);
    let gathered = s.temporary(padded * width * elem.bytes() as usize);
    let losses = s.temporary(padded * 4);
    let logits = s.temporary(block * vocab * 4);
    let compact = CompactRows { tokens, padded, block };
    s.launch(compact.build(s.target), vec![args[2].into(), index, labels, counts], "compact_rows");
    let gather = GatherRows { rows: padded, block, width, elem };
    s.launch(gather.build(s.target), vec![args[0].into(), index, counts, gathered], "gather_rows");
    let scattered = gradient.map(|_| s.temporary(padded * width * elem.bytes() as usize));
    let (weight, bias) = gradient.map_or((false, false), |gradient| (gradient.weight, gradient.bias));
    let to_weight = weight.then(|| accumulation(s, at, 2, done));
    let to_bias = bias.then(|| accumulation(s, at, 2 + usize::from(weight), done));
    for b in 0..blocks {
        let row = b * block;
        let (x, count) = (gathered.at(row * width * elem.bytes() as usize), counts.at(b * 4));
        let head = Head { block, vocab, width, elem, weight: s.function.ty(args[1]).clone() };
        let bias = args.get(4).map(|bias| value_elem(s.function, *bias));
        let mut operands = vec![x, args[1].into()];
        operands.extend(args.get(4).map(|bias| Operand::from(*bias)));
        operands.extend([logits, count]);
        s.launch_product(head.logits(bias), operands, "logits");
        let gradient_elem = gradient.map(|_| head.gradient_elem());
        let softmax = CrossEntropyRows { rows: block, vocab, logit_scale, softcap, gradient: gradient_elem };
        let operands = vec![logits, labels.at(row * 4), count, args[3].into(), losses.at(row * 4)];
        s.launch(softmax.build(s.target), operands, "softmax");
        if let Some(scattered) = scattered {
            let to = scattered.at(row * width * elem.bytes() as usize);
            s.launch_product(head.input_gradient(), vec![logits, args[1].into(), to, count], "input_gradient");
        }
        if let Some((to, accumulate)) = to_bias {
            let steps = s.target.column_sum(&head.bias_gradient(accumulate || b > 0));
            s.launch_steps(steps, &[logits, to], "bias_gradient");
        }
        if let Some((to, accumulate)) = to_weight {
            let add = accumulate || b > 0;
            let mut operands = vec![logits, x];
            operands.extend(add.then_some(to));
            operands.extend([to, count]);
            s.launch_product(head.weight_gradient(add), operands, "weight_gradient");
        }
    }
    if let Some(scattered) = scattered {
        let scatter = ScatterRows { tokens, block, width, elem };
        s.launch(
            scatter.build(s.target),
            vec![scattered, index, counts, args[2].into(), results[1].into()],
            "scatter_rows",
        );
    }
    s.launch(Sum { n: padded }.build(s.target), vec![losses, results[0].into()], "sum");
}

/// Products of one block of rows with the head's matrix.
struct Head {
    block: usize,
    vocab: usize,
    width: usize,
    elem: Elem,
    weight: Type,
}

impl Head {
    fn matrix(&self, elem: Elem, columns: usize, transposed: bool) -> gemm::Operand {
        gemm::Operand { elem, transposed, stride: columns }
    }

    /// `x · wᵀ`, plus the bias if there is one; f32.
    fn logits(&self, bias: Option<Elem>) -> Gemm {
        let a = self.matrix(self.elem, self.width, false);
        let term = Term { k: self.width, a, b: operand(&self.weight, true), packed: false };
        let epilogue = match bias {
            None => Region::identity(Elem::F32, Elem::F32),
            Some(elem) => added(RegionInput { elem, broadcast: Broadcast::Row }),
        };
        Gemm { m: self.block, n: self.vocab, terms: vec![term], epilogue, row_limit: Some(0), inner_limit: None }
    }

    /// How gradients of logits are stored: as the rows are, where the weight is too.
    fn gradient_elem(&self) -> Elem {
        if elem(self.weight.dtype) == Elem::Bf16 { self.elem } else { Elem::F32 }
    }

    /// The gradients of logits, at the beginning of the rows of f32 logits that they replace.
    fn gradient(&self, transposed: bool) -> gemm::Operand {
        let elem = self.gradient_elem();
        self.matrix(elem, self.vocab * (Elem::F32.bytes() / elem.bytes()) as usize, transposed)
    }

    /// `dlogits · w`, stored as the rows are.
    fn input_gradient(&self) -> Gemm {
        let a = self.gradient(false);
        let term = Term { k: self.vocab, a, b: operand(&self.weight, false), packed: false };
        let epilogue = Region::identity(Elem::F32, self.elem);
        Gemm { m: self.block, n: self.width, terms: vec![term], epilogue, row_limit: Some(0), inner_limit: None }
    }

    /// The column sums of `dlogits`, f32; rows without a label are zeros.
    fn bias_gradient(&self, accumulate: bool) -> ColumnSum {
        let gemm::Operand { elem, stride, .. } = self.gradient(false);
        ColumnSum { rows: self.block, n: self.vocab, stride, elem, accumulate }
    }

    /// `dlogitsᵀ · x`, f32, added to what is there where `add` says so.
    fn weight_gradient(&self, add: bool) -> Gemm {
        let a = self.gradient(true);
        let b = self.matrix(self.elem, self.width, false);
        let full = RegionInput { elem: Elem::F32, broadcast: Broadcast::Full };
        let epilogue = if add { added(full) } else { Region::identity(Elem::F32, elem(DType::F32)) };
        let terms = vec![Term { k: self.block, a, b, packed: false }];
        Gemm { m: self.vocab, n: self.width, terms, epilogue, row_limit: None, inner_limit: Some(0) }
    }
}

/// The product plus an addend, f32.
fn added(addend: RegionInput) -> Region {
    let full = RegionInput { elem: Elem::F32, broadcast: Broadcast::Full };
    let args = vec![RegionValue::Input(0), RegionValue::Input(1)];
    Region {
        inputs: vec![full, addend],
        nodes: vec![RegionNode { op: ScalarOp::Add, args }],
        outputs: vec![RegionOutput { value: RegionValue::Node(0), elem: Elem::F32 }],
    }
}
