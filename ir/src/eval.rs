//! The reference interpreter: slow, obvious, f64. Every pass and kernel is judged by it.
use crate::graph::{Function, InstKind, Module};
use crate::{FuncId, Type};

/// A dense row-major tensor of f64; integers are exact in it.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Tensor {
    /// `data` has as many elements as `shape` says.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Tensor {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of {shape:?}");
        Tensor { shape, data }
    }
    pub fn zeros(shape: &[usize]) -> Tensor {
        Tensor::new(shape, vec![0.0; shape.iter().product()])
    }
    pub fn scalar(value: f64) -> Tensor {
        Tensor::new([1], vec![value])
    }
    /// `[rows, columns]`, a vector being one row.
    pub fn rows(&self) -> (usize, usize) {
        let columns = self.shape.last().copied().unwrap_or(1);
        (self.data.len().checked_div(columns).unwrap_or(0), columns)
    }
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Tensor {
        Tensor { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }
    pub fn zip(&self, other: &Tensor, f: impl Fn(f64, f64) -> f64) -> Tensor {
        let data = self.data.iter().zip(&other.data).map(|(&x, &y)| f(x, y)).collect();
        Tensor { shape: self.shape.clone(), data }
    }
}

/// The results of the entry function of `module` on `args`.
pub fn eval(module: &Module, args: &[Tensor]) -> Vec<Tensor> {
    eval_function(module, module.entry(), args)
}

/// The results of one function on `args`.
pub fn eval_function(module: &Module, function: &Function, args: &[Tensor]) -> Vec<Tensor> {
    assert_eq!(function.params.len(), args.len(), "operands of @{}", function.name);
    let mut values: Vec<Option<Tensor>> = vec![None; function.value_count()];
    for (slot, arg) in values.iter_mut().zip(args) {
        *slot = Some(arg.clone());
    }
    for inst in &function.insts {
        let operands: Vec<&Tensor> =
            inst.args.iter().map(|a| values[a.index()].as_ref().expect("operands precede users")).collect();
        let results = match &inst.kind {
            InstKind::Call(callee) => call(module, *callee, &operands),
            InstKind::Op(op) => {
                let types: Vec<Type> = inst.args.iter().map(|a| function.ty(*a).clone()).collect();
                eval_op(module, op, &operands, &types)
            }
        };
        for (value, tensor) in inst.results.iter().zip(results) {
            values[value.index()] = Some(tensor);
        }
    }
    function.results.iter().map(|r| values[r.index()].clone().expect("results are computed")).collect()
}

fn call(module: &Module, callee: FuncId, operands: &[&Tensor]) -> Vec<Tensor> {
    let args: Vec<Tensor> = operands.iter().map(|t| (*t).clone()).collect();
    eval_function(module, module.function(callee), &args)
}

/// The value of one op: its own reference, or that of its expansion.
pub fn eval_op(module: &Module, op: &crate::Op, operands: &[&Tensor], types: &[Type]) -> Vec<Tensor> {
    if let Some(results) = op.def().eval(operands, types) {
        return results;
    }
    let mut expansion = Function::new(op.name());
    let params: Vec<_> = types.iter().enumerate().map(|(i, t)| expansion.param(format!("{i}"), t.clone())).collect();
    expansion.results = op
        .def()
        .expand(&mut expansion, &params)
        .unwrap_or_else(|| panic!("`{}` has neither a reference value nor an expansion", op.name()));
    let args: Vec<Tensor> = operands.iter().map(|t| (*t).clone()).collect();
    eval_function(module, &expansion, &args)
}
