//! The matrix products of a step of SmolLM2-135M over 2 x 512 tokens, with adapters of rank 8 and without, and two of
//! generation.
use crate::case::Case;
use crate::rounds::Operand;
use crate::rounds::Use::{Read, Write};
use amc_kernels::Target;
use amc_kernels::emit::Elem::{self, Bf16, F32};
use amc_kernels::gemm::plan::Plan;
use amc_kernels::gemm::{self, Gemm, Term};
use amc_kernels::region::{Broadcast, Region, RegionInput, RegionNode, RegionOutput, RegionValue, ScalarOp};

/// Rank of an adapter.
const RANK: usize = 8;

/// What B is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    Weight,
    Adapter,
    Activations,
}
use Right::{Activations, Adapter, Weight};

/// What becomes of the sums.
#[derive(Clone, Copy)]
enum After {
    Store,
    /// Logits are f32 whatever the storage.
    StoreWide,
    /// `+ residual`
    Residual,
    /// `silu(gate) ·`, and the sums themselves.
    Gate,
    /// The gradients of gate and up from that of their product.
    GateBackward,
    /// Added to a gradient.
    Accumulate,
}
use After::{Accumulate, Gate, GateBackward, Residual, Store, StoreWide};

/// An operation of a region and what it reads.
type Step = (ScalarOp, Vec<RegionValue>);

/// What it is for, `(m, n)`, the depth of every term, how A and B are stored (`n` or `t`), what B is.
type Row = (&'static str, (usize, usize), &'static [usize], &'static str, Right, After);

const ROWS: [Row; 29] = [
    ("gate", (1024, 1536), &[576, RANK], "nt", Weight, Store),
    ("up", (1024, 1536), &[576, RANK], "nt", Weight, Gate),
    ("down", (1024, 576), &[1536, RANK], "nt", Weight, Residual),
    ("query", (1024, 576), &[576, RANK], "nt", Weight, Store),
    ("output", (1024, 576), &[576, RANK], "nt", Weight, Residual),
    ("key, value", (1024, 192), &[576, RANK], "nt", Weight, Store),
    ("head", (256, 49152), &[576], "nt", Weight, StoreWide),
    ("up, gate: dx", (1024, 576), &[RANK, 1536, RANK, 1536], "nn", Weight, Store),
    ("down: dx", (1024, 1536), &[RANK, 576], "nn", Weight, GateBackward),
    ("output: dx", (1024, 576), &[RANK, 576], "nn", Weight, Store),
    ("query, key, value: dx", (1024, 576), &[RANK, 192, RANK, 192, RANK, 576], "nn", Weight, Store),
    ("head: dx", (256, 576), &[49152], "nn", Weight, Store),
    ("adapter a", (1024, RANK), &[576], "nt", Adapter, Store),
    ("adapter a of down", (1024, RANK), &[1536], "nt", Adapter, Store),
    ("adapter b: dx", (1024, RANK), &[576], "nn", Adapter, Store),
    ("adapter b of up, gate: dx", (1024, RANK), &[1536], "nn", Adapter, Store),
    ("adapter b of key, value: dx", (1024, RANK), &[192], "nn", Adapter, Store),
    ("adapter a: dw", (RANK, 576), &[1024], "tn", Activations, Accumulate),
    ("adapter a of down: dw", (RANK, 1536), &[1024], "tn", Activations, Accumulate),
    ("adapter b: dw", (576, RANK), &[1024], "tn", Activations, Accumulate),
    ("adapter b of up, gate: dw", (1536, RANK), &[1024], "tn", Activations, Accumulate),
    ("adapter b of key, value: dw", (192, RANK), &[1024], "tn", Activations, Accumulate),
    ("up, gate: dw", (1536, 576), &[1024], "tn", Activations, Accumulate),
    ("down: dw", (576, 1536), &[1024], "tn", Activations, Accumulate),
    ("query, output: dw", (576, 576), &[1024], "tn", Activations, Accumulate),
    ("key, value: dw", (192, 576), &[1024], "tn", Activations, Accumulate),
    ("head: dw", (49152, 576), &[256], "tn", Activations, Accumulate),
    ("up, gate, generating", (1, 1536), &[576], "nt", Weight, Store),
    ("head, generating", (1, 49152), &[576], "nt", Weight, StoreWide),
];

/// Every product in f32 and in bf16 with frozen weights as they lie in a bf16 checkpoint, and those with weights in f32
/// without adapters. `set` replaces numbers of the plans where it is not zero: rows, vectors, m_block, panels, m_cache,
/// block_depth.
pub fn cases(target: &Target, set: [usize; 6], packed: bool) -> Vec<Case> {
    let frozen = [F32, Bf16].into_iter().flat_map(|elem| ROWS.iter().map(move |row| (row, elem, Bf16, true)));
    let trained = ROWS.iter().filter(|row| row.4 == Weight).map(|row| (row, F32, F32, false));
    frozen
        .chain(trained)
        .map(|(row, elem, weight, adapters)| case(row, elem, weight, adapters, target, (set, packed)))
        .collect()
}

fn case(
    row: &Row,
    elem: Elem,
    weight: Elem,
    adapters: bool,
    target: &Target,
    (set, packed): ([usize; 6], bool),
) -> Case {
    let &(role, (m, n), depths, form, right, after) = row;
    let depths: Vec<usize> = depths.iter().copied().filter(|k| adapters || *k != RANK).collect();
    let frozen = right == Weight && adapters;
    let right = |k: usize| match right {
        Activations => elem,
        Weight if k != RANK => weight,
        Weight | Adapter => F32,
    };
    let gemm = Gemm {
        m,
        n,
        terms: depths.iter().map(|&k| term((m, n, k), form, (elem, right(k)))).collect(),
        epilogue: epilogue(after, elem),
        row_limit: None,
        inner_limit: None,
    };
    let mut gemm = gemm;
    for t in 0..gemm.terms.len() {
        let worth = packed && frozen && gemm.terms[t].k != RANK;
        gemm.terms[t].packed = worth && gemm.packing(t, target).is_some();
    }
    let chosen = set == [0; 6];
    let kernel = if chosen { gemm.build(target) } else { gemm.build_with(&plan(&gemm, target, set)) };
    let size = format!("{m} x {n} x {}", depths.iter().map(usize::to_string).collect::<Vec<_>>().join(" + "));
    let widest = gemm.terms.iter().max_by_key(|term| term.k).expect("a product has terms");
    Case {
        elems: format!("{}·{}", elem.name(), widest.b.elem.name()),
        pairs: widest.a.elem == Bf16 && widest.b.elem == Bf16,
        ..Case::new(role, size, elem, kernel, operands(&gemm, frozen))
    }
}

fn term((m, n, k): (usize, usize, usize), form: &str, elems: (Elem, Elem)) -> Term {
    let operand = |elem, letter, rows, columns| {
        let transposed = letter == b't';
        gemm::Operand { elem, transposed, stride: if transposed { rows } else { columns } }
    };
    let form = form.as_bytes();
    Term { k, a: operand(elems.0, form[0], m, k), b: operand(elems.1, form[1], k, n), packed: false }
}

fn epilogue(after: After, elem: Elem) -> Region {
    let (inputs, nodes, outputs) = after.region();
    let elem = if matches!(after, StoreWide | Accumulate) { F32 } else { elem };
    let full = |elem| RegionInput { elem, broadcast: Broadcast::Full };
    Region {
        inputs: std::iter::once(full(F32)).chain((0..inputs).map(|_| full(elem))).collect(),
        nodes: nodes.into_iter().map(|(op, args)| RegionNode { op, args }).collect(),
        outputs: outputs.into_iter().map(|value| RegionOutput { value, elem }).collect(),
    }
}

impl After {
    /// Inputs beside the sums, nodes, outputs.
    fn region(self) -> (usize, Vec<Step>, Vec<RegionValue>) {
        use RegionValue::{Input, Node};
        use ScalarOp::{Add, Mul, Silu};
        match self {
            Store | StoreWide => (0, vec![], vec![Input(0)]),
            Residual | Accumulate => (1, vec![(Add, vec![Input(0), Input(1)])], vec![Node(0)]),
            Gate => (1, vec![(Silu, vec![Input(1)]), (Mul, vec![Node(0), Input(0)])], vec![Input(0), Node(1)]),
            GateBackward => (2, gate_backward(), vec![Node(1), Node(10)]),
        }
    }
}

/// From the gradient of the product, gate and up: node 1 the gradient of up, node 10 that of gate.
fn gate_backward() -> Vec<Step> {
    use RegionValue::{Input, Node};
    use ScalarOp::{Add, Constant, Mul, Neg, Sigmoid, Silu};
    vec![
        (Silu, vec![Input(1)]),
        (Mul, vec![Input(0), Node(0)]),
        (Sigmoid, vec![Input(1)]),
        (Neg, vec![Node(2)]),
        (Constant(1f32.to_bits()), vec![]),
        (Add, vec![Node(3), Node(4)]),
        (Mul, vec![Input(1), Node(5)]),
        (Add, vec![Node(6), Node(4)]),
        (Mul, vec![Node(2), Node(7)]),
        (Mul, vec![Input(0), Input(2)]),
        (Mul, vec![Node(8), Node(9)]),
    ]
}

/// The operands; `frozen` weights lie in a file.
fn operands(gemm: &Gemm, frozen: bool) -> Vec<Operand> {
    let factors = gemm.terms.iter().flat_map(|term| {
        let b = Operand::floats(Read, term.b.elem, term.k * gemm.n);
        let b = if frozen && term.k != RANK && !term.packed { b.in_file() } else { b };
        [Operand::floats(Read, term.a.elem, gemm.m * term.k), b]
    });
    let inputs = gemm.epilogue.inputs.iter().skip(1).map(|input| Operand::floats(Read, input.elem, gemm.m * gemm.n));
    let outputs = gemm.epilogue.outputs.iter().map(|output| Operand::floats(Write, output.elem, gemm.m * gemm.n));
    factors.chain(inputs).chain(outputs).collect()
}

/// The plan that the table suggests, with what the command line sets.
fn plan(gemm: &Gemm, target: &Target, set: [usize; 6]) -> Plan {
    let mut plan = Plan::choose(gemm, target);
    let [rows, vectors, m_block, panels, m_cache, block_depth] = set;
    let parts = [
        (&mut plan.rows, rows),
        (&mut plan.vectors, vectors),
        (&mut plan.m_block, m_block),
        (&mut plan.panels, panels),
    ];
    for (part, value) in parts.into_iter().filter(|(_, value)| *value > 0) {
        *part = value;
    }
    plan.m_cache = if m_cache > 0 { m_cache } else { plan.m_cache.min(plan.m_block) };
    plan.block_depth = if block_depth > 0 { Some(block_depth) } else { plan.block_depth };
    let Plan { rows, m_block, m_cache, .. } = plan;
    let whole = m_block.is_multiple_of(rows) && m_cache.is_multiple_of(rows);
    assert!(whole, "--plan: found tasks of {m_block} rows, {m_cache} at a time, wanted multiples of a tile's {rows}");
    plan
}
