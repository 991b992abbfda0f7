//! Where the variables that a kernel names lie.
use crate::{
    machine::address,
    parse::{Address, Entry, Module, Operand, Space, Statement, Variable},
    program::{SharedLayout, VariableImage},
};
use std::collections::{HashMap, HashSet};

pub struct Layout {
    pub symbols: HashMap<String, u64>,
    pub shared: SharedLayout,
    pub local_bytes: u64,
    pub variables: VariableImage,
}

impl Layout {
    pub fn of(module: &Module, entry: &Entry) -> Layout {
        let mut layout = Layout {
            symbols: HashMap::new(),
            shared: SharedLayout::default(),
            local_bytes: 0,
            variables: VariableImage::default(),
        };
        for parameter in &entry.parameters {
            layout.symbols.insert(parameter.name.clone(), parameter.offset);
        }
        let named = named_symbols(entry);
        let variables: Vec<&Variable> =
            module.variables.iter().chain(&entry.variables).filter(|v| named.contains(v.name.as_str())).collect();
        layout.place_shared(&variables);
        for variable in variables {
            match variable.space {
                Space::Local => layout.place_local(variable),
                Space::Global | Space::Constant => layout.place_module(variable),
                _ => {}
            }
        }
        layout
    }

    /// Static arrays in order behind the reserved start, then the dynamic ones, which share their start.
    fn place_shared(&mut self, variables: &[&Variable]) {
        let shared = |v: &&&Variable| v.space == Space::Shared;
        let mut end = address::SHARED_RESERVED;
        for variable in variables.iter().filter(shared).filter(|v| v.bytes > 0) {
            let start = end.next_multiple_of(variable.align.max(1));
            self.symbols.insert(variable.name.clone(), start);
            end = start + variable.bytes;
        }
        let dynamic: Vec<_> = variables.iter().filter(shared).filter(|v| v.bytes == 0).collect();
        let align = dynamic.iter().map(|v| v.align.max(16)).max();
        let dynamic_start = align.map(|align| end.next_multiple_of(align));
        for variable in dynamic {
            self.symbols.extend(dynamic_start.map(|start| (variable.name.clone(), start)));
        }
        self.shared = SharedLayout { static_end: end, dynamic_start };
    }

    fn place_local(&mut self, variable: &Variable) {
        let start = self.local_bytes.next_multiple_of(variable.align.max(1));
        self.symbols.insert(variable.name.clone(), start);
        self.local_bytes = start + variable.bytes;
    }

    fn place_module(&mut self, variable: &Variable) {
        let image = &mut self.variables.bytes;
        let start = image.len().next_multiple_of(variable.align.max(1) as usize);
        self.symbols.insert(variable.name.clone(), address::VARIABLES + start as u64);
        image.resize(start, 0);
        image.extend_from_slice(&variable.initial);
        image.resize(start + variable.bytes as usize, 0);
    }
}

fn named_symbols(entry: &Entry) -> HashSet<&str> {
    fn collect<'e>(operand: &'e Operand, into: &mut HashSet<&'e str>) {
        match operand {
            Operand::Symbol(name) => {
                into.insert(name);
            }
            Operand::Address(address) => {
                let Address { base, coordinates, .. } = address.as_ref();
                collect(base, into);
                coordinates.iter().for_each(|c| collect(c, into));
            }
            _ => {}
        }
    }
    let mut names = HashSet::new();
    for statement in &entry.statements {
        if let Statement::Instruction(instruction) = statement {
            instruction.operands.iter().for_each(|operand| collect(operand, &mut names));
        }
    }
    names
}
