//! Prints modules.
use crate::graph::{Function, Inst, InstKind, Module};
use crate::{Type, Value};
use std::fmt::Write;

/// The text of a module; [`super::parse()`] reads it back.
pub fn print(module: &Module) -> String {
    module.functions.iter().map(|f| function(module, f)).collect::<Vec<_>>().join("\n")
}

fn function(module: &Module, function: &Function) -> String {
    let mut text = format!("func @{}(", function.name);
    let params: Vec<String> =
        function.params.iter().enumerate().map(|(i, p)| format!("%{i} {:?}: {}", p.name, p.ty)).collect();
    if params.len() <= 3 {
        text += &params.join(", ");
    } else {
        text += &format!("\n    {}", params.join(",\n    "));
    }
    text += ") {\n";
    for inst in &function.insts {
        writeln!(text, "  {}", instruction(module, function, inst)).expect("writing to a string");
    }
    writeln!(text, "  return {}\n}}", values(&function.results)).expect("writing to a string");
    text
}

fn values(values: &[Value]) -> String {
    values.iter().map(|v| format!("%{}", v.0)).collect::<Vec<_>>().join(", ")
}

fn instruction(module: &Module, function: &Function, inst: &Inst) -> String {
    let types: Vec<&Type> = inst.results.iter().map(|r| function.ty(*r)).collect();
    let types = types.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
    let head = match &inst.kind {
        InstKind::Call(callee) => format!("call @{}({})", module.function(*callee).name, values(&inst.args)),
        InstKind::Op(op) => {
            let attrs: Vec<String> = op.print_attrs().into_iter().map(|(k, v)| format!("{k} = {v}")).collect();
            let attrs = if attrs.is_empty() { String::new() } else { format!(" {{{}}}", attrs.join(", ")) };
            let space = if inst.args.is_empty() { "" } else { " " };
            format!("{}{space}{}{attrs}", op.name(), values(&inst.args))
        }
    };
    format!("{} = {head} : {types}", values(&inst.results))
}
