//! Rebuilding functions: every rewrite makes the next graph and leaves the old one alone.
use amc_ir::{Function, Value};

/// Where the values of the old function went in the new one.
pub struct Map(Vec<Option<Value>>);

impl Map {
    /// Parameters keep their places.
    pub fn new(from: &Function) -> Map {
        let mut map = vec![None; from.value_count()];
        for (i, slot) in map.iter_mut().take(from.params.len()).enumerate() {
            *slot = Some(Value::new(i));
        }
        Map(map)
    }
    pub fn set(&mut self, from: Value, to: Value) {
        self.0[from.index()] = Some(to);
    }
    pub fn get(&self, from: Value) -> Value {
        self.0[from.index()].expect("operands precede users")
    }
    pub fn all(&self, from: &[Value]) -> Vec<Value> {
        from.iter().map(|v| self.get(*v)).collect()
    }
}

/// Rebuilds `from` instruction by instruction. `replace` may return the values that stand for the results of instruction
/// `at`, given the new operands; where it returns `None` the instruction is copied.
pub fn rebuild(
    from: &Function,
    mut replace: impl FnMut(&mut Function, usize, &[Value], &Map) -> Option<Vec<Value>>,
) -> Function {
    let mut to = from.rebuild();
    let mut map = Map::new(from);
    for (at, inst) in from.insts.iter().enumerate() {
        let args = map.all(&inst.args);
        let results = replace(&mut to, at, &args, &map).unwrap_or_else(|| to.copy(from, at, &args));
        for (old, new) in inst.results.iter().zip(results) {
            map.set(*old, new);
        }
    }
    to.results = map.all(&from.results);
    to
}

/// The same instructions in another order, in which operands precede users too.
pub fn reorder(from: &Function, order: impl Iterator<Item = usize>) -> Function {
    let mut to = from.rebuild();
    let mut map = Map::new(from);
    for at in order {
        let inst = &from.insts[at];
        let results = to.copy(from, at, &map.all(&inst.args));
        for (old, new) in inst.results.iter().zip(results) {
            map.set(*old, new);
        }
    }
    to.results = map.all(&from.results);
    to
}

/// Keeps the instructions for which `keep` holds; nothing kept may use what is dropped.
pub fn retain(from: &Function, keep: impl Fn(usize) -> bool) -> Function {
    reorder(from, (0..from.insts.len()).filter(|at| keep(*at)))
}
