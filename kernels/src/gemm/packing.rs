//! B of many products packed once: all its panels, one after the other, in the form in which tiles read them.
//!
//! Frozen weights are the same in every step, so they are worth it: products of SmolLM2 gain 1 to 6 % (Zen 5, bf16). The copy takes
//! as much memory as the matrix; where it would take more, because bf16 is widened for products in f32, there is none.
use super::plan::{FeedB, Panel, Plan};
use super::way::Way;
use super::{Gemm, Operand, call, element, finish_text, pack};
use crate::emit::{Elem, Emitter};
use crate::{Kernel, Target, Work, gemv};

/// How a `[k, n]` matrix is packed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Packing {
    pub k: usize,
    pub n: usize,
    /// How it is stored: `[k, n]`, or `[n, k]` if transposed.
    pub stored: Operand,
    pub panel: Panel,
}

impl Packing {
    fn panels(&self) -> usize {
        self.n.div_ceil(self.panel.width())
    }

    /// Bytes of the packed matrix.
    pub fn bytes(&self) -> usize {
        4 * self.panels() * self.panel.words(self.k) * self.panel.width()
    }

    /// The kernel that packs, a panel a task. Operands: the stored matrix, and [`Packing::bytes`].
    pub fn build(&self) -> Kernel {
        let (panel, width) = (self.panel, self.panel.width());
        let functions = pack::panel_function("pack_b", panel, self.n, &self.stored);
        let mut e = Emitter::new();
        let (from, to) = (e.arg(0), e.arg(1));
        e.tasks(|e, task| {
            let (zero, depth, end) = (e.index(0), e.index(self.k as i64), e.index(self.n as i64));
            let column = e.times(task, width);
            let left = e.int2("subi", &end, &column);
            let width = e.index(width as i64);
            let extent = e.int2("minsi", &left, &width);
            let from = element(e, &from, (&zero, &column), self.stored);
            let to = e.row(&to, &column, panel.words(self.k), Elem::F32);
            let pointer = "!llvm.ptr";
            call(e, "pack_b", &[(&from, pointer), (&to, pointer), (&depth, "i64"), (&extent, "i64")]);
        });
        let letter = if self.stored.transposed { 't' } else { 'n' };
        let name = format!("pack_{}x{}_{letter}", self.n, self.k);
        let work = Work::new("pack", 0).moving(self.n * self.k, self.stored.elem).moving(self.bytes() / 4, Elem::F32);
        finish_text(&name, &functions, e, self.panels(), 0, work)
    }
}

impl Gemm {
    /// How B of a term is packed at best once for many products like this, and how often each of them packs it otherwise; `None`
    /// where it is better read as it lies, or would grow.
    pub fn packing(&self, term: usize, target: &Target) -> Option<(Packing, usize)> {
        if gemv::suits(self) || Way::turned(self).is_some() {
            return None;
        }
        let (plan, term) = (Plan::choose(self, target), &self.terms[term]);
        let panel = plan.panel(term);
        let grows = !panel.paired && term.b.elem != Elem::F32;
        let packs = plan.feed_b(self, term) == FeedB::Panel && !grows;
        packs.then(|| (Packing { k: term.k, n: self.n, stored: term.b, panel }, plan.m_tasks(self)))
    }
}
