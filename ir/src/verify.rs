//! The structural verifier.
//!
//! Checked: operands precede users; result types are those that `infer` gives now; calls go to earlier functions and fit
//! their signature; a state consumed in place is not used afterwards; function names are unique; results exist.
//! Not checked: that values are used at all, and what the numbers are.
use crate::graph::{Function, Inst, InstKind, Module};
use crate::{Type, Value};
use std::collections::HashSet;

/// Names the function and the instruction that breaks an invariant.
pub fn verify(module: &Module) -> Result<(), String> {
    let mut names = HashSet::new();
    for (id, function) in module.functions.iter().enumerate() {
        if !names.insert(function.name.as_str()) {
            return Err(format!("there are two functions called @{}", function.name));
        }
        verify_function(module, id, function).map_err(|e| format!("@{}: {e}", function.name))?;
    }
    Ok(())
}

fn verify_function(module: &Module, id: usize, function: &Function) -> Result<(), String> {
    let mut made = function.params.len();
    let mut consumed: HashSet<Value> = HashSet::new();
    for (at, inst) in function.insts.iter().enumerate() {
        let place = |e: String| format!("instruction {at} (%{}): {e}", made);
        for arg in &inst.args {
            if arg.index() >= made {
                return Err(place(format!("operand %{} is used before it is made", arg.0)));
            }
            if consumed.contains(arg) {
                return Err(place(format!("operand %{} was consumed by an update before", arg.0)));
            }
        }
        let types: Vec<Type> = inst.args.iter().map(|a| function.ty(*a).clone()).collect();
        let inferred = result_types(module, id, inst, &types).map_err(place)?;
        let found: Vec<&Type> = inst.results.iter().map(|r| function.ty(*r)).collect();
        if found != inferred.iter().collect::<Vec<_>>() {
            return Err(place(format!("the types are {found:?}, inferred {inferred:?}")));
        }
        consumed.extend(consumed_operands(module, inst).into_iter().map(|i| inst.args[i]));
        made += inst.results.len();
    }
    for result in &function.results {
        if result.index() >= made {
            return Err(format!("result %{} is never made", result.0));
        }
        if consumed.contains(result) {
            return Err(format!("result %{} was consumed by an update", result.0));
        }
    }
    Ok(())
}

fn result_types(module: &Module, id: usize, inst: &Inst, types: &[Type]) -> Result<Vec<Type>, String> {
    match &inst.kind {
        InstKind::Op(op) => op.def().infer(types).map_err(|e| format!("`{}`: {e}", op.name())),
        InstKind::Call(callee) if callee.index() >= id => Err("a call goes to an earlier function".into()),
        InstKind::Call(callee) => {
            let callee = module.function(*callee);
            let wanted: Vec<Type> = callee.params.iter().map(|p| p.ty.clone()).collect();
            if wanted != types {
                return Err(format!("@{} takes {wanted:?}, found {types:?}", callee.name));
            }
            Ok(callee.results.iter().map(|r| callee.ty(*r).clone()).collect())
        }
    }
}

/// Positions of the operands whose memory the instruction takes over; a call's are its callee's consumed parameters.
pub fn consumed_operands(module: &Module, inst: &Inst) -> Vec<usize> {
    match &inst.kind {
        InstKind::Op(op) => op.def().in_place().iter().map(|(_, operand)| *operand).collect(),
        InstKind::Call(callee) => {
            let callee = module.function(*callee);
            let consumed: HashSet<Value> = callee
                .insts
                .iter()
                .flat_map(|inst| consumed_operands(module, inst).into_iter().map(|i| inst.args[i]))
                .collect();
            (0..callee.params.len()).filter(|i| consumed.contains(&Value::new(*i))).collect()
        }
    }
}
