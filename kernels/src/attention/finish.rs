//! The sum of key and value gradients over the query heads of a key head, and over the parts of their queries.
use super::{Attention, Layout};
use crate::emit::{Elem, Emitter};
use crate::{Kernel, Target, Work};

/// A task is a token.
pub fn build(attention: &Attention, target: &Target) -> Kernel {
    let mut e = Emitter::for_cpu(target.lanes, target.pairs);
    let layout = Layout::new(attention, target);
    let (d, part) = (attention.head_dim, layout.padded_keys() * layout.width);
    let tasks = attention.group() * attention.query_parts().len();
    let [workspace, dk, dv] = [0, 1, 2].map(|i| e.arg(i));
    e.tasks(|e, token| {
        let (seq, zero, heads) = (e.index(attention.seq as i64), e.index(0), e.index(attention.kv_heads as i64));
        let (row, place) = (e.int2("divui", token, &seq), e.int2("remui", token, &seq));
        e.repeat(&zero, &heads, 1, |e, head| {
            let first = e.times(&row, attention.kv_heads);
            let first = e.int2("addi", &first, head);
            let sources = e.row(&workspace, &first, tasks * 2 * part, Elem::F32);
            let sources = e.row(&sources, &place, layout.width, Elem::F32);
            for (skip, gradient) in [(0, &dk), (part, &dv)] {
                let sources = e.at(&sources, skip as i64, Elem::F32);
                let target = attention.head_at(e, gradient, attention.kv_heads, token, head);
                let columns = e.index(d as i64);
                e.each(&columns, layout.panel, |e, c, lanes| {
                    let mut sum = e.load_at(&sources, c, Elem::F32, lanes);
                    for other in 1..tasks {
                        let source = e.at(&sources, (other * 2 * part) as i64, Elem::F32);
                        let value = e.load_at(&source, c, Elem::F32, lanes);
                        sum = e.float2("addf", &sum, &value, lanes);
                    }
                    e.store_at(&sum, &target, c, attention.elem, lanes);
                });
            }
        });
    });
    let (heads, width) = (attention.batch * attention.seq * attention.kv_heads * tasks, attention.kv_heads * d);
    let work = Work::new("column_sum", 2 * heads * d)
        .moving(2 * heads * layout.width, Elem::F32)
        .moving(2 * attention.batch * attention.seq * width, attention.elem);
    e.finish(&attention.name("attention_grad_finish"), attention.batch * attention.seq, 0, work)
}
