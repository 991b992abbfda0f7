//! What instructions compute, as functions over the 32 lanes of a warp; no state, no memory.
//!
//! A function computes all lanes, active or not; the machine keeps only the active ones. `.approx` functions are
//! computed to full accuracy, so an error bound of the hardware is not modelled.
pub mod compare;
pub mod convert;
pub mod float;
pub mod half;
pub mod integer;

/// Lanes of a warp.
pub const LANES: usize = 32;

/// A bit per lane.
pub type Mask = u32;
pub type Words = [u32; LANES];
pub type Doubles = [u64; LANES];

pub type Words1 = fn(&Words) -> Words;
pub type Words2 = fn(&Words, &Words) -> Words;
pub type Words3 = fn(&Words, &Words, &Words) -> Words;
pub type Doubles1 = fn(&Doubles) -> Doubles;
pub type Doubles2 = fn(&Doubles, &Doubles) -> Doubles;
pub type Doubles3 = fn(&Doubles, &Doubles, &Doubles) -> Doubles;
/// A shift: the amount is a word.
pub type DoublesByWords = fn(&Doubles, &Words) -> Doubles;
/// A bit field: position and length are words.
pub type DoublesByWords2 = fn(&Doubles, &Words, &Words) -> Doubles;
pub type Widening2 = fn(&Words, &Words) -> Doubles;
pub type Narrowing1 = fn(&Doubles) -> Words;
pub type WordsTest = fn(&Words, &Words) -> Mask;
pub type DoublesTest = fn(&Doubles, &Doubles) -> Mask;

/// A function of lanes from one of a lane. A plain loop, because there are hundreds of these to compile.
macro_rules! lanes {
    (|$a:ident| $body:expr) => {
        |a| {
            let mut to = [0; $crate::ops::LANES];
            for (to, &$a) in to.iter_mut().zip(a) {
                *to = $body;
            }
            to
        }
    };
    (|$a:ident, $b:ident| $body:expr) => {
        |a, b| {
            let mut to = [0; $crate::ops::LANES];
            for (to, (&$a, &$b)) in to.iter_mut().zip(a.iter().zip(b)) {
                *to = $body;
            }
            to
        }
    };
    (|$a:ident, $b:ident, $c:ident| $body:expr) => {
        |a, b, c| {
            let mut to = [0; $crate::ops::LANES];
            for (to, ((&$a, &$b), &$c)) in to.iter_mut().zip(a.iter().zip(b).zip(c)) {
                *to = $body;
            }
            to
        }
    };
}
pub(crate) use lanes;
