//! Modules, functions and instructions.
use crate::{FuncId, Op, Type, Value};

/// Functions, callees before callers.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Module {
    pub functions: Vec<Function>,
}

/// A straight line of instructions.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Function {
    pub name: String,
    pub params: Vec<Param>,
    pub insts: Vec<Inst>,
    pub results: Vec<Value>,
    types: Vec<Type>,
}

/// A parameter; its value id is its position.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    pub name: String,
    pub ty: Type,
}

/// One instruction; its results are consecutive values.
#[derive(Clone, PartialEq, Debug)]
pub struct Inst {
    pub kind: InstKind,
    pub args: Vec<Value>,
    pub results: Vec<Value>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum InstKind {
    Op(Op),
    Call(FuncId),
}

impl Inst {
    /// The op, unless it is a call.
    pub fn op(&self) -> Option<&Op> {
        match &self.kind {
            InstKind::Op(op) => Some(op),
            InstKind::Call(_) => None,
        }
    }
}

impl Module {
    pub fn add(&mut self, function: Function) -> FuncId {
        self.functions.push(function);
        FuncId::new(self.functions.len() - 1)
    }
    pub fn function(&self, id: FuncId) -> &Function {
        &self.functions[id.index()]
    }
    pub fn find(&self, name: &str) -> Option<FuncId> {
        self.functions.iter().position(|f| f.name == name).map(FuncId::new)
    }
    /// The function that programs start from: the last one.
    pub fn entry(&self) -> &Function {
        self.functions.last().expect("a module has an entry function")
    }
}

impl Function {
    pub fn new(name: impl Into<String>) -> Function {
        Function { name: name.into(), ..Function::default() }
    }

    /// Adds a parameter. All parameters come before the first instruction.
    pub fn param(&mut self, name: impl Into<String>, ty: Type) -> Value {
        assert!(self.insts.is_empty(), "parameters come before instructions");
        self.params.push(Param { name: name.into(), ty: ty.clone() });
        self.types.push(ty);
        Value::new(self.types.len() - 1)
    }

    pub fn ty(&self, value: Value) -> &Type {
        &self.types[value.index()]
    }

    /// Number of values.
    pub fn value_count(&self) -> usize {
        self.types.len()
    }

    /// The instruction that makes `value` and which of its results it is; `None` for a parameter.
    pub fn def(&self, value: Value) -> Option<(usize, usize)> {
        if value.index() < self.params.len() {
            return None;
        }
        let at = self.insts.partition_point(|inst| inst.results.last().is_some_and(|last| *last < value));
        let k = self.insts[at].results.iter().position(|r| *r == value)?;
        Some((at, k))
    }

    /// The op that makes `value`, with its operands.
    pub fn op_of(&self, value: Value) -> Option<(&Op, &[Value])> {
        let inst = &self.insts[self.def(value)?.0];
        inst.op().map(|op| (op, inst.args.as_slice()))
    }

    /// Appends an op after inferring its result types.
    pub fn try_push(&mut self, op: Op, args: &[Value]) -> Result<Vec<Value>, String> {
        let types: Vec<Type> = args.iter().map(|a| self.ty(*a).clone()).collect();
        let results = op.def().infer(&types).map_err(|e| format!("`{}`: {e}", op.name()))?;
        Ok(self.append(InstKind::Op(op), args, results))
    }

    /// Appends an op that is known to fit; panics with the reason where it does not.
    pub fn push(&mut self, op: impl Into<Op>, args: &[Value]) -> Vec<Value> {
        self.try_push(op.into(), args).unwrap_or_else(|e| panic!("in @{}: {e}", self.name))
    }

    /// Appends an op with one result.
    pub fn op(&mut self, op: impl Into<Op>, args: &[Value]) -> Value {
        self.push(op, args)[0]
    }

    /// Appends a call of `callee`, whose signature is read from `module`.
    pub fn try_call(&mut self, module: &Module, callee: FuncId, args: &[Value]) -> Result<Vec<Value>, String> {
        let function = module.function(callee);
        let wanted: Vec<&Type> = function.params.iter().map(|p| &p.ty).collect();
        let found: Vec<&Type> = args.iter().map(|a| self.ty(*a)).collect();
        if wanted.len() != found.len() {
            return Err(format!("@{} takes {} operands, found {}", function.name, wanted.len(), found.len()));
        }
        if let Some(i) = (0..wanted.len()).find(|&i| wanted[i] != found[i]) {
            let name = &function.params[i].name;
            return Err(format!("operand {i} (`{name}`) of @{} is {}, wanted {}", function.name, found[i], wanted[i]));
        }
        let results = function.results.iter().map(|r| function.ty(*r).clone()).collect();
        Ok(self.append(InstKind::Call(callee), args, results))
    }

    /// A call that is known to fit.
    pub fn call(&mut self, module: &Module, callee: FuncId, args: &[Value]) -> Vec<Value> {
        self.try_call(module, callee, args).unwrap_or_else(|e| panic!("in @{}: {e}", self.name))
    }

    fn append(&mut self, kind: InstKind, args: &[Value], types: Vec<Type>) -> Vec<Value> {
        let first = self.types.len();
        let results: Vec<Value> = (first..first + types.len()).map(Value::new).collect();
        self.types.extend(types);
        self.insts.push(Inst { kind, args: args.to_vec(), results: results.clone() });
        results
    }

    /// How often each value is used, counting the function's results.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.types.len()];
        for value in self.insts.iter().flat_map(|i| &i.args).chain(&self.results) {
            counts[value.index()] += 1;
        }
        counts
    }

    /// A function of the same name and parameters, for a rewrite to fill.
    pub fn rebuild(&self) -> Function {
        Function {
            name: self.name.clone(),
            params: self.params.clone(),
            types: self.types[..self.params.len()].to_vec(),
            ..Function::default()
        }
    }

    /// What reports call a value: `function: %12 matmul`, or `function: %3 name` for a parameter.
    pub fn describe(&self, value: Value) -> String {
        let what = match self.def(value) {
            Some((at, _)) => self.insts[at].op().map_or("call", |op| op.name()),
            None => &self.params[value.index()].name,
        };
        format!("{}: %{} {what}", self.name, value.0)
    }

    /// Arithmetic operations of instruction `at`, estimated; none for a call.
    pub fn operations(&self, at: usize) -> f64 {
        let inst = &self.insts[at];
        let types = |values: &[Value]| values.iter().map(|v| self.ty(*v).clone()).collect::<Vec<_>>();
        inst.op().map_or(0.0, |op| op.def().operations(&types(&inst.args), &types(&inst.results)))
    }

    /// Copies instruction `at` of `from` with operands replaced; the types are taken over.
    pub fn copy(&mut self, from: &Function, at: usize, args: &[Value]) -> Vec<Value> {
        let inst = &from.insts[at];
        match &inst.kind {
            InstKind::Op(op) => self.push(op.clone(), args),
            InstKind::Call(_) => {
                let types = inst.results.iter().map(|r| from.ty(*r).clone()).collect();
                self.append(inst.kind.clone(), args, types)
            }
        }
    }
}
