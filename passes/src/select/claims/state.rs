//! Attention, lookups, dropout and the optimizer.
use super::{accumulation, operands, value_elem};
use crate::select::{Operand, Selector, rows};
use amc_ir::{Op, ops};
use amc_kernels::{attention, attention_cached, dropout, embedding, optimizer, reduce};

pub(super) fn claim(s: &mut Selector, at: usize, op: &Op, done: &mut [bool]) {
    let function = s.function;
    let inst = &function.insts[at];
    let (args, results) = (&inst.args[..], &inst.results[..]);
    match op {
        Op::Attention(_) | Op::AttentionGrad(_) | Op::CacheAppend(_) | Op::AttentionCached(_) => attend(s, at, op),
        Op::LinearCrossEntropy(op) => super::loss::claim(s, at, (op.logit_scale, op.softcap), None, done),
        Op::LinearCrossEntropyGrad(op) => super::loss::claim(s, at, (op.logit_scale, op.softcap), Some(op), done),
        Op::Embedding(op) => {
            let (vocab, width) = rows(function.ty(args[0]));
            let kernel = embedding::Embedding {
                tokens: function.ty(args[1]).len(),
                vocab,
                width,
                scale: op.scale,
                table: value_elem(function, args[0]),
                elem: value_elem(function, results[0]),
            };
            s.launch(kernel.build(s.target), operands(args, results), "embedding");
        }
        Op::EmbeddingGrad(op) => {
            let (tokens, width) = rows(function.ty(args[1]));
            let (to, accumulate) = accumulation(s, at, 0, done);
            let kernel = embedding::EmbeddingGrad {
                tokens,
                vocab: op.vocab,
                width,
                scale: op.scale,
                padding: op.padding,
                accumulate,
                elem: value_elem(function, args[1]),
            };
            s.launch(kernel.build(s.target), vec![args[0].into(), args[1].into(), to], "embedding_grad");
        }
        Op::Dropout(op) => {
            let kernel = dropout::Dropout {
                n: function.ty(args[0]).len(),
                p: op.p,
                site: op.site as u32,
                elem: value_elem(function, args[0]),
            };
            s.launch(kernel.build(s.target), operands(args, results), "dropout");
        }
        Op::DeriveSeed(op) => {
            let kernel = dropout::DeriveSeed { index: op.index as u32 };
            s.launch(kernel.build(s.target), operands(args, results), "derive_seed");
        }
        Op::ClipCoefficient(_) => {
            let squares = reduce::SumSquares { n: function.ty(args[0]).len() };
            let partials = s.temporary(squares.parts() * 4);
            s.launch(squares.build(s.target), vec![args[0].into(), partials], "clip_coefficient");
            let finish = optimizer::FinishNorm { parts: squares.parts() }.build(s.target);
            s.launch(finish, vec![partials, args[1].into(), results[0].into(), results[1].into()], "clip_coefficient");
        }
        Op::Adam(op) => {
            let kernel = optimizer::Adam {
                n: function.ty(args[0]).len(),
                elem: value_elem(function, args[0]),
                beta1: op.beta1,
                beta2: op.beta2,
                eps: op.eps,
                decoupled: op.decoupled,
            };
            s.launch(kernel.build(s.target), operands(args, &[]), "adam");
            for (result, arg) in results.iter().zip(args) {
                s.place(*result, *arg, 0);
            }
        }
        other => panic!("no kernel claims `{}`", other.name()),
    }
}

fn attend(s: &mut Selector, at: usize, op: &Op) {
    let function = s.function;
    let inst = &function.insts[at];
    let (args, results) = (&inst.args[..], &inst.results[..]);
    let elem = value_elem(function, args[0]);
    let (tokens, width) = rows(function.ty(args[0]));
    let problem = |op: &ops::Attention| attention::Attention {
        batch: tokens / op.seq,
        seq: op.seq,
        heads: op.heads,
        kv_heads: op.kv_heads,
        head_dim: width / op.heads,
        value_dim: rows(function.ty(args[2])).1 / op.kv_heads,
        scale: op.scale,
        window: op.window,
        softcap: op.softcap,
        alibi: op.alibi,
        elem,
    };
    match op {
        Op::Attention(a) => {
            s.launch(s.target.attention(&problem(a)), operands(args, results), "attention");
        }
        Op::AttentionGrad(a) => {
            let problem = problem(&a.forward());
            let [q, k, v, o, lse, dy, segments] = args.iter().map(|a| Operand::from(*a)).collect::<Vec<_>>()[..] else {
                unreachable!("checked by infer")
            };
            let [dq, dk, dv] = [0, 1, 2].map(|i| Operand::from(results[i]));
            let steps = s.target.attention_gradient(&problem);
            s.launch_steps(steps, &[q, k, v, segments, o, lse, dy, dq, dk, dv], "attention_grad");
        }
        Op::CacheAppend(_) => {
            let (chunk, _) = rows(function.ty(args[1]));
            let kernel = attention_cached::CacheAppend { chunk, width, capacity: tokens, elem };
            s.launch(kernel.build(s.target), vec![args[1].into(), args[0].into(), args[2].into()], "cache_append");
            s.place(results[0], args[0], 0);
        }
        Op::AttentionCached(a) => {
            let kernel = attention_cached::AttentionCached {
                chunk: tokens,
                capacity: rows(function.ty(args[1])).0,
                heads: a.heads,
                kv_heads: a.kv_heads,
                head_dim: width / a.heads,
                value_dim: rows(function.ty(args[2])).1 / a.kv_heads,
                scale: a.scale,
                window: a.window,
                softcap: a.softcap,
                alibi: a.alibi,
                elem,
            };
            let kernel = s.target.attention_cached(&kernel).expect("text is generated on CPUs only");
            s.launch(kernel, operands(args, results), "attention_cached");
        }
        other => unreachable!("`{}` is no attention", other.name()),
    }
}
