//! The sum of key and value gradients over the query heads of a key head, and over the parts of their queries.
use super::{Attention, Layout};
use crate::emit::{Elem, Emitter};
use crate::{Kernel, Target, Work};

/// A task is a token.
pub fn build(attention: &Attention, target: &Target) -> Kernel {
    let mut e = Emitter::for_cpu(target.lanes, target.pairs);
    let layout = Layout::new(attention, target);
    let part = layout.part();
    let tasks = attention.group() * attention.query_parts().len();
    let [workspace, dk, dv] = [0, 1, 2].map(|i| e.arg(i));
    e.tasks(|e, token| {
        let (seq, zero, heads) = (e.index(attention.seq as i64), e.index(0), e.index(attention.kv_heads as i64));
        let (row, place) = (e.int2("divui", token, &seq), e.int2("remui", token, &seq));
        e.repeat(&zero, &heads, 1, |e, head| {
            let first = e.times(&row, attention.kv_heads);
            let first = e.int2("addi", &first, head);
            let sources = e.row(&workspace, &first, tasks * part, Elem::F32);
            let gradients = [
                (0, layout.key_width, attention.key_heads(), &dk),
                (layout.key_part(), layout.value_width, attention.value_heads(), &dv),
            ];
            for (skip, width, heads, gradient) in gradients {
                let sources = e.row(&sources, &place, width, Elem::F32);
                let sources = e.at(&sources, skip as i64, Elem::F32);
                let target = attention.head_at(e, gradient, heads, token, head);
                let columns = e.index(heads.entries as i64);
                e.each(&columns, layout.panel, |e, c, lanes| {
                    let mut sum = e.load_at(&sources, c, Elem::F32, lanes);
                    for other in 1..tasks {
                        let source = e.at(&sources, (other * part) as i64, Elem::F32);
                        let value = e.load_at(&source, c, Elem::F32, lanes);
                        sum = e.float2("addf", &sum, &value, lanes);
                    }
                    e.store_at(&sum, &target, c, attention.elem, lanes);
                });
            }
        });
    });
    let (tokens, [keys, values]) = (attention.batch * attention.seq, [attention.key_heads(), attention.value_heads()]);
    let heads = tokens * attention.kv_heads * tasks;
    let work = Work::new("column_sum", heads * (keys.entries + values.entries))
        .moving(heads * (layout.key_width + layout.value_width), Elem::F32)
        .moving(tokens * (keys.width() + values.width()), attention.elem);
    e.finish(&attention.name("attention_grad_finish"), attention.batch * attention.seq, 0, work)
}
