//! How an op is declared: `op!` makes its struct, name and attributes; `ops!` lists every op once.
use crate::eval::Tensor;
use crate::graph::Function;
use crate::{DType, Type, Value};

/// What the `op!` macro supplies.
pub trait Named: Sized {
    const NAME: &'static str;
    /// Names of the operands; a last name starting with `more` stands for any number.
    const OPERANDS: &'static [&'static str];
    /// Name and Rust type of each attribute.
    const ATTRIBUTES: &'static [(&'static str, &'static str)];
    /// The type of each result, for people: an operand whose type it has, or element type and sizes.
    const RESULTS: &'static [&'static str];
    const DOC: &'static str;
    fn print_attrs(&self) -> Vec<(&'static str, String)>;
    fn parse_attrs(get: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, String>;
}

/// An op of the list, as `docs/ops.md` shows it; the fields are those of [`Named`].
pub struct Row {
    pub name: &'static str,
    pub operands: &'static [&'static str],
    pub attributes: &'static [(&'static str, &'static str)],
    pub results: &'static [&'static str],
    pub doc: &'static str,
    /// The file of `ir/src/ops` that declares it, without `.rs`.
    pub file: &'static str,
}

/// What a person writes for an op.
pub trait OpDef {
    /// Checks the operands and gives the types of the results: shape inference and verifier in one.
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String>;

    /// The reference value of a primitive, in f64. Operands have the types that `infer` accepted.
    fn eval(&self, _args: &[&Tensor], _types: &[Type]) -> Option<Vec<Tensor>> {
        None
    }

    /// A composite in simpler ops; its reference value follows from it.
    fn expand(&self, _g: &mut Function, _args: &[Value]) -> Option<Vec<Value>> {
        None
    }

    /// Cotangents of the operands, built from ops. `None` for an op that has no gradient of its own.
    fn vjp(&self, _g: &mut Function, _at: &Vjp) -> Option<Vec<Option<Value>>> {
        None
    }

    /// Arithmetic operations, for estimates of what it costs: one for each element of the first result, if not said
    /// otherwise.
    fn operations(&self, _args: &[Type], results: &[Type]) -> f64 {
        results.first().map_or(0.0, |ty| ty.len() as f64)
    }

    /// Pairs (result, operand) that must share memory: the operand is consumed.
    fn in_place(&self) -> &'static [(usize, usize)] {
        &[]
    }
}

/// Where a gradient is asked for.
pub struct Vjp<'a> {
    pub args: &'a [Value],
    pub results: &'a [Value],
    /// Cotangent of each result; `None` where nothing depends on it.
    pub cotangents: &'a [Option<Value>],
    /// Which operands need a cotangent.
    pub needs: &'a [bool],
}

impl Vjp<'_> {
    /// The cotangent of the only result.
    pub fn dy(&self) -> Value {
        self.cotangents[0].expect("an op is differentiated only where a result has a cotangent")
    }
}

/// An attribute's text form.
pub trait Attr: Sized {
    fn print(&self) -> String;
    fn parse(text: &str) -> Option<Self>;
}

macro_rules! attr_by_display {
    ($($ty:ty),*) => { $(impl Attr for $ty {
        fn print(&self) -> String { self.to_string() }
        fn parse(text: &str) -> Option<Self> { text.parse().ok() }
    })* };
}
attr_by_display!(usize, i64, bool);

impl Attr for f32 {
    fn print(&self) -> String {
        format!("{self:e}")
    }
    fn parse(text: &str) -> Option<f32> {
        text.parse().ok()
    }
}

impl Attr for DType {
    fn print(&self) -> String {
        self.name().into()
    }
    fn parse(text: &str) -> Option<DType> {
        DType::from_name(text)
    }
}

impl<T: Attr> Attr for Option<T> {
    fn print(&self) -> String {
        self.as_ref().map_or("none".into(), T::print)
    }
    fn parse(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { T::parse(text).map(Some) }
    }
}

impl<T: Attr> Attr for Vec<T> {
    fn print(&self) -> String {
        format!("[{}]", self.iter().map(T::print).collect::<Vec<_>>().join(", "))
    }
    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?.trim();
        if inner.is_empty() {
            return Some(vec![]);
        }
        inner.split(',').map(|item| T::parse(item.trim())).collect()
    }
}

/// Declares one op: doc, name, struct of attributes, operand names, types of the results.
#[macro_export]
macro_rules! op {
    ($(#[doc = $doc:literal])* $name:literal $ty:ident { $($attr:ident : $aty:ty),* $(,)? } ($($operand:ident),*)
        -> $($result:literal),+) => {
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $ty { $(pub $attr: $aty),* }
        impl $crate::op::Named for $ty {
            const NAME: &'static str = $name;
            const OPERANDS: &'static [&'static str] = &[$(stringify!($operand)),*];
            const ATTRIBUTES: &'static [(&'static str, &'static str)] = &[$((stringify!($attr), stringify!($aty))),*];
            const RESULTS: &'static [&'static str] = &[$($result),+];
            const DOC: &'static str = concat!($($doc, "\n"),*);
            fn print_attrs(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($attr), $crate::op::Attr::print(&self.$attr))),*]
            }
            fn parse_attrs(_get: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, String> {
                Ok($ty { $($attr: {
                    let text = _get(stringify!($attr))?;
                    $crate::op::Attr::parse(&text)
                        .ok_or_else(|| format!("attribute `{}` of `{}` cannot be {text:?}", stringify!($attr), $name))?
                }),* })
            }
        }
    };
}

/// Lists every op once and makes the `Op` enum out of the list.
#[macro_export]
macro_rules! ops {
    ($($module:ident :: $ty:ident),* $(,)?) => {
        /// Any op with its attributes.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Op { $($ty($module::$ty)),* }
        impl Op {
            /// Every op, in the order of the list.
            pub const TABLE: &'static [$crate::op::Row] = &[$($crate::op::Row {
                name: <$module::$ty as Named>::NAME,
                operands: <$module::$ty as Named>::OPERANDS,
                attributes: <$module::$ty as Named>::ATTRIBUTES,
                results: <$module::$ty as Named>::RESULTS,
                doc: <$module::$ty as Named>::DOC,
                file: stringify!($module),
            }),*];
            pub fn def(&self) -> &dyn OpDef {
                match self { $(Op::$ty(op) => op),* }
            }
            pub fn name(&self) -> &'static str {
                match self { $(Op::$ty(_) => <$module::$ty as Named>::NAME),* }
            }
            pub fn operands(&self) -> &'static [&'static str] {
                match self { $(Op::$ty(_) => <$module::$ty as Named>::OPERANDS),* }
            }
            pub fn print_attrs(&self) -> Vec<(&'static str, String)> {
                match self { $(Op::$ty(op) => op.print_attrs()),* }
            }
            /// The op called `name`, its attributes read through `get`.
            pub fn parse(name: &str, get: &dyn Fn(&str) -> Result<String, String>) -> Result<Op, String> {
                $(if name == <$module::$ty as Named>::NAME {
                    return Ok(Op::$ty(<$module::$ty as Named>::parse_attrs(get)?));
                })*
                Err($crate::diag::unknown("op", name, Op::TABLE.iter().map(|row| row.name)))
            }
        }
        $(impl From<$module::$ty> for Op { fn from(op: $module::$ty) -> Op { Op::$ty(op) } })*
    };
}
