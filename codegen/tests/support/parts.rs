//! What products are made of: terms, and what is computed on their sums.
use amc_kernels::emit::Elem::{self, F32};
use amc_kernels::gemm::{Operand, Term};
use amc_kernels::region::{Broadcast, Region, RegionInput, RegionNode, RegionOutput, RegionValue, ScalarOp};

/// A term whose matrices are stored without gaps; `form` has `n` or `t` for A and B.
pub fn term((m, n, k): (usize, usize, usize), form: &str, [a, b]: [Elem; 2]) -> Term {
    let operand = |elem, letter, rows, columns| {
        let transposed = letter == b't';
        Operand { elem, transposed, stride: if transposed { rows } else { columns } }
    };
    let form = form.as_bytes();
    Term { k, a: operand(a, form[0], m, k), b: operand(b, form[1], k, n), packed: false }
}

/// Full inputs of these elems.
fn inputs(elems: &[Elem]) -> Vec<RegionInput> {
    elems.iter().map(|&elem| RegionInput { elem, broadcast: Broadcast::Full }).collect()
}

/// `sum + x`
pub fn residual(elem: Elem) -> Region {
    let node = RegionNode { op: ScalarOp::Add, args: vec![RegionValue::Input(0), RegionValue::Input(1)] };
    let outputs = vec![RegionOutput { value: RegionValue::Node(0), elem }];
    Region { inputs: inputs(&[F32, elem]), nodes: vec![node], outputs }
}

/// `silu(gate) · up` and `up`, which the gradient needs.
pub fn glu(elem: Elem) -> Region {
    use RegionValue::{Input, Node};
    let nodes = vec![
        RegionNode { op: ScalarOp::Silu, args: vec![Input(1)] },
        RegionNode { op: ScalarOp::Mul, args: vec![Node(0), Input(0)] },
    ];
    let outputs = [Node(1), Input(0)].map(|value| RegionOutput { value, elem }).into();
    Region { inputs: inputs(&[F32, elem]), nodes, outputs }
}

/// With `s = sigmoid(gate)`, the gradients `dy · up · s · (1 + gate · (1 - s))` of the gate and `dy · gate · s` of up.
pub fn glu_gradient(dy: Elem, elem: Elem) -> Region {
    use RegionValue::{Input, Node};
    let node = |op, args: &[RegionValue]| RegionNode { op, args: args.to_vec() };
    let nodes = vec![
        node(ScalarOp::Sigmoid, &[Input(1)]),
        node(ScalarOp::Constant(1f32.to_bits()), &[]),
        node(ScalarOp::Sub, &[Node(1), Node(0)]),
        node(ScalarOp::Mul, &[Input(1), Node(2)]),
        node(ScalarOp::Add, &[Node(3), Node(1)]),
        node(ScalarOp::Mul, &[Node(0), Node(4)]),
        node(ScalarOp::Mul, &[Input(0), Input(2)]),
        node(ScalarOp::Mul, &[Node(6), Node(5)]),
        node(ScalarOp::Mul, &[Input(1), Node(0)]),
        node(ScalarOp::Mul, &[Input(0), Node(8)]),
    ];
    let outputs = [Node(7), Node(9)].map(|value| RegionOutput { value, elem }).into();
    Region { inputs: inputs(&[dy, elem, elem]), nodes, outputs }
}
