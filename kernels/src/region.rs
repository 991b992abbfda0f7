//! Scalar computations applied at every element: the body of a pointwise kernel, or the epilogue of a GEMM.
//!
//! A region is a straight line of scalar ops in f32. Nodes refer to inputs and to earlier nodes only. Storage is
//! converted at its edges: what is loaded as bf16 is widened, what is stored as bf16 is rounded.
use crate::emit::{Elem, Emitter, Value};
use crate::{Work, math};

/// A scalar computation over the elements of an `[m, n]` problem.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Region {
    pub inputs: Vec<RegionInput>,
    pub nodes: Vec<RegionNode>,
    pub outputs: Vec<RegionOutput>,
}

/// An operand that is read at every element.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RegionInput {
    pub elem: Elem,
    pub broadcast: Broadcast,
}

/// How an input is laid over the `[m, n]` problem.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Broadcast {
    /// `[m, n]`: one value an element.
    Full,
    /// `[n]`: one value a column.
    Row,
    /// `[m]`: one value a row.
    Column,
    /// `[1]`: one value for all.
    Scalar,
}

/// One scalar operation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RegionNode {
    pub op: ScalarOp,
    pub args: Vec<RegionValue>,
}

/// What a node reads, or an output stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RegionValue {
    /// The value of the `i`-th input.
    Input(usize),
    /// The result of the `i`-th node.
    Node(usize),
}

/// A full `[m, n]` result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RegionOutput {
    pub value: RegionValue,
    pub elem: Elem,
}

/// Where an element of a problem lies: its index in `[m, n]`, its row and its column.
pub struct Place<'a> {
    pub full: &'a str,
    pub row: &'a str,
    pub column: &'a str,
}

/// Operations that a function of [`math`] counts as.
const FUNCTION: usize = 16;

macro_rules! scalar_ops {
    ($($(#[doc = $doc:literal])* $op:ident $name:literal ($($arg:ident),*) |$e:ident, $n:ident| $emit:expr;)*) => {
        /// A scalar operation on f32.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ScalarOp {
            /// The f32 with these bits.
            Constant(u32),
            $($(#[doc = $doc])* $op,)*
        }

        impl ScalarOp {
            /// Every op but `Constant`.
            pub const ALL: &[ScalarOp] = &[$(ScalarOp::$op),*];

            /// The name in dumps.
            pub fn name(self) -> &'static str {
                match self {
                    ScalarOp::Constant(_) => "constant",
                    $(ScalarOp::$op => $name,)*
                }
            }

            /// Number of arguments.
            pub fn arity(self) -> usize {
                match self {
                    ScalarOp::Constant(_) => 0,
                    $(ScalarOp::$op => [$(stringify!($arg)),*].len(),)*
                }
            }

            /// Writes the operation on `lanes` values; `args` has [`ScalarOp::arity`] of them.
            pub fn emit(self, emitter: &mut Emitter, args: &[Value], lanes: usize) -> Value {
                match self {
                    ScalarOp::Constant(bits) => emitter.float(f32::from_bits(bits), lanes),
                    $(ScalarOp::$op => {
                        let [$($arg),*] = args else {
                            panic!("{} takes {} arguments, not {}", $name, self.arity(), args.len())
                        };
                        let ($e, $n) = (emitter, lanes);
                        $emit
                    })*
                }
            }
        }
    };
}

scalar_ops! {
    /// `a + b`
    Add "add" (a, b) |e, n| e.float2("addf", a, b, n);
    /// `a - b`
    Sub "sub" (a, b) |e, n| e.float2("subf", a, b, n);
    /// `a · b`
    Mul "mul" (a, b) |e, n| e.float2("mulf", a, b, n);
    /// `a / b`
    Div "div" (a, b) |e, n| e.float2("divf", a, b, n);
    /// The larger, NaN if either is.
    Max "max" (a, b) |e, n| e.float2("maximumf", a, b, n);
    /// `-a`
    Neg "neg" (a) |e, n| e.float1("negf", a, n);
    /// `e^a`
    Exp "exp" (a) |e, n| math::exp(e, a, n);
    /// Natural logarithm.
    Log "log" (a) |e, n| math::log(e, a, n);
    /// `√a`
    Sqrt "sqrt" (a) |e, n| e.square_root(a, n);
    /// `1 / √a`
    Rsqrt "rsqrt" (a) |e, n| e.reciprocal_root(a, n);
    /// Hyperbolic tangent.
    Tanh "tanh" (a) |e, n| math::tanh(e, a, n);
    /// Error function.
    Erf "erf" (a) |e, n| math::erf(e, a, n);
    /// `1 / (1 + e^-a)`
    Sigmoid "sigmoid" (a) |e, n| math::sigmoid(e, a, n);
    /// `a · sigmoid(a)`
    Silu "silu" (a) |e, n| math::silu(e, a, n);
    /// GELU by its tanh approximation.
    GeluTanh "gelu_tanh" (a) |e, n| math::gelu_tanh(e, a, n);
    /// GELU by the error function.
    Gelu "gelu" (a) |e, n| math::gelu(e, a, n);
    /// `max(a, 0)`
    Relu "relu" (a) |e, n| {
        let zero = e.float(0.0, n);
        e.float2("maximumf", a, &zero, n)
    };
    /// 1 where `a > 0`, else 0.
    Step "step" (a) |e, n| {
        let (zero, one) = (e.float(0.0, n), e.float(1.0, n));
        let positive = e.compare("ogt", a, &zero, n);
        e.select(&positive, &one, &zero, n)
    };
}

impl RegionInput {
    /// Its value at `lanes` elements; `operand` is its pointer, or the value of a scalar.
    fn load(self, e: &mut Emitter, operand: &str, place: &Place, lanes: usize) -> Value {
        match self.broadcast {
            Broadcast::Full => e.load_at(operand, place.full, self.elem, lanes),
            // A view of some columns of a longer row begins anywhere.
            Broadcast::Row => e.unaligned(|e| e.load_at(operand, place.column, self.elem, lanes)),
            Broadcast::Column => {
                let value = e.load_at(operand, place.row, self.elem, 1);
                e.splat(&value, lanes)
            }
            Broadcast::Scalar => e.splat(operand, lanes),
        }
    }
}

impl ScalarOp {
    /// How many floating-point operations it counts as.
    fn operations(self) -> usize {
        use ScalarOp::*;
        match self {
            Constant(_) => 0,
            Exp | Log | Tanh | Erf | Sigmoid | Silu | GeluTanh | Gelu => FUNCTION,
            Add | Sub | Mul | Div | Max | Neg | Sqrt | Rsqrt | Relu | Step => 1,
        }
    }
}

impl Region {
    /// The widest storage of what has a value for every element.
    pub(crate) fn widest(&self) -> Elem {
        let inputs = self.inputs.iter().filter(|input| input.broadcast == Broadcast::Full).map(|input| input.elem);
        let all = inputs.chain(self.outputs.iter().map(|output| output.elem));
        all.max_by_key(|elem| elem.bytes()).unwrap_or(Elem::F32)
    }

    /// One full input stored as it is, converted from `input` to `output`.
    pub fn identity(input: Elem, output: Elem) -> Region {
        Region {
            inputs: vec![RegionInput { elem: input, broadcast: Broadcast::Full }],
            nodes: vec![],
            outputs: vec![RegionOutput { value: RegionValue::Input(0), elem: output }],
        }
    }

    /// Adds the work of an `[m, n]` problem to `work`, whose first `skip` inputs have no memory.
    pub(crate) fn work(&self, work: Work, skip: usize, m: usize, n: usize) -> Work {
        let operations: usize = self.nodes.iter().map(|node| node.op.operations()).sum();
        let work = Work { operations: work.operations + (m * n * operations) as u64, ..work };
        let elements = |input: &RegionInput| match input.broadcast {
            Broadcast::Full => m * n,
            Broadcast::Row => n,
            Broadcast::Column => m,
            Broadcast::Scalar => 1,
        };
        let work = self.inputs[skip..].iter().fold(work, |work, input| work.moving(elements(input), input.elem));
        self.outputs.iter().fold(work, |work, output| work.moving(m * n, output.elem))
    }

    /// The kernel's operands from the `first` on: pointers of the inputs but the first `given`, which have no memory, and of
    /// the outputs; of a scalar input its value.
    pub fn operands(&self, e: &mut Emitter, first: usize, given: usize) -> Vec<Value> {
        let inputs = self.inputs[given..].iter().enumerate().map(|(i, input)| {
            let pointer = e.arg(first + i);
            if input.broadcast == Broadcast::Scalar { e.load(&pointer, input.elem, 1) } else { pointer }
        });
        let mut operands: Vec<Value> = inputs.collect();
        let outputs = first + operands.len();
        operands.extend((0..self.outputs.len()).map(|i| e.arg(outputs + i)));
        operands
    }

    /// Loads the inputs of `lanes` elements behind those that are `given`, computes, and stores the outputs. All inputs are
    /// read before an output is written.
    pub fn element(&self, e: &mut Emitter, given: &[Value], operands: &[Value], place: &Place, lanes: usize) {
        let loaded = self.load(e, given.len(), operands, place, lanes);
        self.store(e, &[given, &loaded].concat(), operands, place.full, lanes);
    }

    /// Loads the inputs of `lanes` elements behind the first `given`.
    pub fn load(&self, e: &mut Emitter, given: usize, operands: &[Value], place: &Place, lanes: usize) -> Vec<Value> {
        let inputs = self.inputs[given..].iter().zip(operands);
        inputs.map(|(input, operand)| input.load(e, operand, place, lanes)).collect()
    }

    /// Computes the outputs of `lanes` elements from all inputs and stores them, from element `full` on.
    pub fn store(&self, e: &mut Emitter, inputs: &[Value], operands: &[Value], full: &str, lanes: usize) {
        let results = self.emit(e, inputs, lanes);
        let outputs = &operands[operands.len() - self.outputs.len()..];
        for ((output, pointer), value) in self.outputs.iter().zip(outputs).zip(&results) {
            e.store_at(value, pointer, full, output.elem, lanes);
        }
    }

    /// Writes the computation on `lanes` elements; `inputs` are the loaded values in order. Returns the outputs' values,
    /// which the caller stores.
    pub fn emit(&self, e: &mut Emitter, inputs: &[Value], lanes: usize) -> Vec<Value> {
        let rounded = self.outputs.iter().all(|output| output.elem == Elem::Bf16);
        e.approximating(rounded, |e| self.emit_nodes(e, inputs, lanes))
    }

    fn emit_nodes(&self, e: &mut Emitter, inputs: &[Value], lanes: usize) -> Vec<Value> {
        let mut nodes: Vec<Value> = Vec::with_capacity(self.nodes.len());
        let value = |nodes: &[Value], v: RegionValue| match v {
            RegionValue::Input(i) => inputs[i].clone(),
            RegionValue::Node(i) => nodes[i].clone(),
        };
        for node in &self.nodes {
            let args: Vec<Value> = node.args.iter().map(|&a| value(&nodes, a)).collect();
            nodes.push(node.op.emit(e, &args, lanes));
        }
        self.outputs.iter().map(|o| value(&nodes, o.value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arities_are_distinct_and_right() {
        let mut names: Vec<_> = ScalarOp::ALL.iter().map(|op| op.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ScalarOp::ALL.len());
        assert_eq!(ScalarOp::Add.arity(), 2);
        assert_eq!(ScalarOp::Silu.arity(), 1);
        assert_eq!(ScalarOp::Constant(0).arity(), 0);
    }

    #[test]
    fn rows_begin_anywhere() {
        let input = |broadcast| RegionInput { elem: Elem::Bf16, broadcast };
        let region =
            Region { inputs: vec![input(Broadcast::Row), input(Broadcast::Full)], nodes: vec![], outputs: vec![] };
        let mut e = Emitter::new();
        let operands = ["%row", "%full"].map(String::from);
        let place = Place { full: "%i", row: "%r", column: "%c" };
        e.aligned(|e| region.load(e, 0, &operands, &place, 4));
        let text = e.into_text();
        let loads = text.lines().filter_map(|line| line.split_once("alignment = "));
        let alignments: Vec<&str> = loads.map(|(_, rest)| rest.split_once(' ').expect("a type").0).collect();
        assert_eq!(alignments, ["2", "8"], "{text}");
    }

    #[test]
    fn emits_nodes_in_order() {
        let region = Region {
            inputs: vec![RegionInput { elem: Elem::F32, broadcast: Broadcast::Full }; 2],
            nodes: vec![
                RegionNode { op: ScalarOp::Mul, args: vec![RegionValue::Input(0), RegionValue::Input(1)] },
                RegionNode { op: ScalarOp::Neg, args: vec![RegionValue::Node(0)] },
            ],
            outputs: vec![RegionOutput { value: RegionValue::Node(1), elem: Elem::F32 }],
        };
        let mut e = Emitter::new();
        let out = region.emit(&mut e, &["%a".into(), "%b".into()], 8);
        assert_eq!(out, ["%v2"]);
        let want = "  %v1 = arith.mulf %a, %b : vector<8xf32>\n  %v2 = arith.negf %v1 : vector<8xf32>\n";
        assert_eq!(e.into_text(), want);
    }
}
