//! Turns a group into a scalar region and its launch.
use super::groups::Group;
use super::{Operand, Place, Selector, elem, rows};
use amc_ir::{DType, Function, Op, Type, Value};
use amc_kernels::gemm::{self, Gemm, Term};
use amc_kernels::grouped::GroupedRows;
use amc_kernels::pointwise::Pointwise;
use amc_kernels::reduce::RowSum;
use amc_kernels::region::{Broadcast, Region, RegionInput, RegionNode, RegionOutput, RegionValue, ScalarOp};
use std::collections::HashMap;

impl Selector<'_> {
    /// Launches the region of a group, as a product's epilogue or on its own.
    pub(super) fn group(&mut self, group: &Group) {
        let function = self.function;
        let mut builder = Builder::new(self, group);
        let results: Vec<Value> = group.roots.iter().map(|at| function.insts[*at].results[0]).collect();
        for (at, result) in group.roots.iter().zip(&results) {
            let value = builder.root(*at);
            builder.output(value, *result);
        }
        if let Some(product) = group.product {
            let value = function.insts[product].results[0];
            if builder.places[value.index()] != Place::Nowhere {
                builder.output(RegionValue::Input(0), value);
            }
        }
        let Builder { region, operands, outputs, .. } = builder;
        for (at, result) in group.roots.iter().zip(&results) {
            if let Some(Op::Accumulate(_)) = function.insts[*at].op() {
                self.place(*result, function.insts[*at].args[0], 0);
            }
        }
        let label = label(function, group);
        let (m, n) = rows(function.ty(results[0]));
        match group.product {
            None => {
                let kernel = Pointwise { m, n, region }.build(self.target);
                self.launch(kernel, [operands, outputs].concat(), &label);
            }
            Some(product) => self.product(product, region, operands, outputs, &label),
        }
    }

    /// Launches the product at instruction `at` with `epilogue`, whose further operands are `inputs`.
    pub(super) fn product(
        &mut self,
        at: usize,
        epilogue: Region,
        inputs: Vec<Operand>,
        outputs: Vec<Operand>,
        label: &str,
    ) {
        let inst = &self.function.insts[at];
        let (ta, tb) = match inst.op() {
            Some(Op::GroupedMatmul(op)) => return self.grouped(at, op.tb, epilogue, [inputs, outputs].concat(), label),
            Some(Op::Matmul(op)) => (vec![op.ta], vec![op.tb]),
            Some(Op::MatmulSum(op)) => (op.ta.clone(), op.tb.clone()),
            _ => unreachable!("a product is a matmul or a sum of them"),
        };
        let (m, n) = rows(self.function.ty(inst.results[0]));
        let term = |(i, pair): (usize, &[Value])| {
            let (a, b) = (self.function.ty(pair[0]), self.function.ty(pair[1]));
            let k = a.shape[if ta[i] { 0 } else { 1 }];
            Term { k, a: operand(a, ta[i]), b: operand(b, tb[i]), packed: false }
        };
        let terms = inst.args.chunks(2).enumerate().map(term).collect();
        let gemm = Gemm { m, n, terms, epilogue, row_limit: None, inner_limit: None };
        let mut operands: Vec<Operand> = inst.args.iter().map(|a| (*a).into()).collect();
        operands.extend(inputs);
        operands.extend(outputs);
        self.launch_product(gemm, operands, label);
    }

    /// Launches the sums along rows of instruction `at`, on what its region computes.
    pub(super) fn row_sum(&mut self, at: usize) {
        let inst = &self.function.insts[at];
        let mut builder = Builder::new(self, &Group { product: None, roots: vec![] });
        let value = builder.value(inst.args[0]);
        let Builder { mut region, mut operands, .. } = builder;
        region.outputs.push(RegionOutput { value, elem: elem(DType::F32) });
        operands.push(inst.results[0].into());
        let (rows, n) = rows(self.function.ty(inst.args[0]));
        let kernel = RowSum { rows, n, region }.build(self.target);
        self.launch(kernel, operands, "sum_to");
    }

    /// Launches the product of groups of rows at instruction `at` with `epilogue`, whose operands are `others`.
    fn grouped(&mut self, at: usize, tb: bool, epilogue: Region, others: Vec<Operand>, label: &str) {
        let inst = &self.function.insts[at];
        let (x, matrices) = (self.function.ty(inst.args[0]), &inst.args[2..]);
        let (m, n) = rows(self.function.ty(inst.results[0]));
        let b = operand(self.function.ty(matrices[0]), tb);
        let term = Term { k: x.shape[1], a: operand(x, false), b, packed: false };
        let gemm = Gemm { m, n, terms: vec![term], epilogue, row_limit: None, inner_limit: None };
        let kernel = self.target.grouped_rows(&GroupedRows { groups: matrices.len(), gemm });
        let of = |values: &[Value]| values.iter().map(|value| Operand::from(*value)).collect();
        self.launch(kernel, [of(&inst.args[..2]), others, of(matrices)].concat(), label);
    }
}

/// A stored matrix as a product's operand.
pub fn operand(ty: &Type, transposed: bool) -> gemm::Operand {
    gemm::Operand { elem: elem(ty.dtype), transposed, stride: ty.shape[1] }
}

fn label(function: &Function, group: &Group) -> String {
    let names: Vec<&str> = group
        .product
        .iter()
        .chain(&group.roots)
        .filter_map(|at| function.insts[*at].op().map(|op| op.name()))
        .collect();
    names.join(" + ")
}

struct Builder<'a> {
    function: &'a Function,
    places: &'a [Place],
    roots: Vec<Value>,
    region: Region,
    /// Operands of the region's inputs; the accumulator of a product has none.
    operands: Vec<Operand>,
    outputs: Vec<Operand>,
    inputs: HashMap<(Value, Broadcast), usize>,
    nodes: HashMap<Value, RegionValue>,
}

impl<'a> Builder<'a> {
    fn new(selector: &'a Selector, group: &Group) -> Builder<'a> {
        let function = selector.function;
        let mut builder = Builder {
            function,
            places: &selector.out.places,
            roots: group.roots.iter().map(|at| function.insts[*at].results[0]).collect(),
            region: Region { inputs: vec![], nodes: vec![], outputs: vec![] },
            operands: vec![],
            outputs: vec![],
            inputs: HashMap::new(),
            nodes: HashMap::new(),
        };
        if let Some(product) = group.product {
            let accumulator = function.insts[product].results[0];
            builder.region.inputs.push(RegionInput { elem: elem(DType::F32), broadcast: Broadcast::Full });
            builder.nodes.insert(accumulator, RegionValue::Input(0));
        }
        builder
    }

    fn output(&mut self, value: RegionValue, result: Value) {
        self.region.outputs.push(RegionOutput { value, elem: elem(self.function.ty(result).dtype) });
        self.outputs.push(result.into());
    }

    fn root(&mut self, at: usize) -> RegionValue {
        let result = self.function.insts[at].results[0];
        let value = self.compute(at);
        self.nodes.insert(result, value);
        value
    }

    /// The region's value of `value`: a node already there, an input, or what its op computes.
    fn value(&mut self, value: Value) -> RegionValue {
        if let Some(known) = self.nodes.get(&value) {
            return *known;
        }
        let inlined = self.places[value.index()] == Place::Nowhere && !self.roots.contains(&value);
        match self.function.def(value) {
            Some((at, _)) if inlined => {
                let node = self.compute(at);
                self.nodes.insert(value, node);
                node
            }
            _ => self.input(value, Broadcast::Full),
        }
    }

    fn input(&mut self, value: Value, broadcast: Broadcast) -> RegionValue {
        let next = self.region.inputs.len();
        let index = *self.inputs.entry((value, broadcast)).or_insert(next);
        if index == next {
            let elem = elem(self.function.ty(value).dtype);
            self.region.inputs.push(RegionInput { elem, broadcast });
            self.operands.push(value.into());
        }
        RegionValue::Input(index)
    }

    fn node(&mut self, op: ScalarOp, args: Vec<RegionValue>) -> RegionValue {
        self.region.nodes.push(RegionNode { op, args });
        RegionValue::Node(self.region.nodes.len() - 1)
    }

    fn constant(&mut self, value: f32) -> RegionValue {
        self.node(ScalarOp::Constant(value.to_bits()), vec![])
    }

    fn compute(&mut self, at: usize) -> RegionValue {
        let inst = &self.function.insts[at];
        let op = inst.op().expect("a region holds ops");
        match op {
            Op::Constant(op) => self.constant(op.value),
            Op::Broadcast(_) => self.broadcast(inst.args[0], inst.results[0]),
            Op::Cast(_) => self.value(inst.args[0]),
            Op::Scale(op) => self.with_constant(ScalarOp::Mul, inst.args[0], op.value),
            Op::Offset(op) => self.with_constant(ScalarOp::Add, inst.args[0], op.value),
            op => {
                let args = inst.args.iter().map(|a| self.value(*a)).collect();
                self.node(scalar(op), args)
            }
        }
    }

    fn with_constant(&mut self, op: ScalarOp, x: Value, constant: f32) -> RegionValue {
        let x = self.value(x);
        let constant = self.constant(constant);
        self.node(op, vec![x, constant])
    }

    fn broadcast(&mut self, x: Value, result: Value) -> RegionValue {
        if let Some(value) = crate::tidy::constant(self.function, x) {
            return self.constant(value);
        }
        let (narrow, wide) = (self.function.ty(x), self.function.ty(result));
        let columns = *wide.shape.last().expect("a broadcast has an axis");
        let kind = match () {
            () if narrow.len() == 1 => Broadcast::Scalar,
            () if narrow.len() == wide.len() => Broadcast::Full,
            () if narrow.len() == columns && narrow.shape.last() == Some(&columns) => Broadcast::Row,
            () if narrow.len() * columns == wide.len() && narrow.shape.last() == Some(&1) => Broadcast::Column,
            () => panic!("no kernel broadcasts {narrow} to {wide}"),
        };
        self.input(x, kind)
    }
}

/// The scalar op of an elementwise IR op.
fn scalar(op: &Op) -> ScalarOp {
    match op {
        Op::Add(_) | Op::Accumulate(_) => ScalarOp::Add,
        Op::Sub(_) => ScalarOp::Sub,
        Op::Mul(_) => ScalarOp::Mul,
        Op::Div(_) => ScalarOp::Div,
        Op::Max(_) => ScalarOp::Max,
        Op::Neg(_) => ScalarOp::Neg,
        Op::Exp(_) => ScalarOp::Exp,
        Op::Log(_) => ScalarOp::Log,
        Op::Sqrt(_) => ScalarOp::Sqrt,
        Op::Rsqrt(_) => ScalarOp::Rsqrt,
        Op::Tanh(_) => ScalarOp::Tanh,
        Op::Erf(_) => ScalarOp::Erf,
        Op::Sigmoid(_) => ScalarOp::Sigmoid,
        Op::Silu(_) => ScalarOp::Silu,
        Op::Gelu(_) => ScalarOp::Gelu,
        Op::GeluTanh(_) => ScalarOp::GeluTanh,
        Op::Relu(_) => ScalarOp::Relu,
        Op::Step(_) => ScalarOp::Step,
        other => unreachable!("`{}` is not elementwise", other.name()),
    }
}
