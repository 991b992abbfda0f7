//! Attention and its gradient: 9 query and 3 key heads of 64, causal, 1024 tokens in two rows and in one.
use crate::case::Case;
use crate::rounds::Operand;
use crate::rounds::Use::{Read, Write};
use amc_kernels::attention::Attention;
use amc_kernels::emit::Elem::{Bf16, F32};
use amc_kernels::{Kernel, Target};

pub fn cases(target: &Target) -> Vec<Case> {
    let sizes = [(2, 512), (1, 1024)];
    let problem = |elem, (batch, seq)| Attention {
        batch,
        seq,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        value_dim: 64,
        scale: 0.125,
        window: None,
        softcap: None,
        alibi: None,
        elem,
    };
    let problems = [F32, Bf16].into_iter().flat_map(|elem| sizes.map(|size| problem(elem, size)));
    problems.flat_map(|problem| kernels(&problem, target)).collect()
}

fn kernels(a: &Attention, target: &Target) -> [Case; 3] {
    let tokens = a.batch * a.seq;
    let q = |usage| Operand::floats(usage, a.elem, tokens * a.heads * a.head_dim);
    let k = |usage| Operand::floats(usage, a.elem, tokens * a.kv_heads * a.head_dim);
    let lse = |usage| Operand::floats(usage, F32, tokens * a.heads);
    let workspace = |usage| Operand::floats(usage, F32, a.workspace_len(target));
    let segments = Operand::ints(Read, tokens, |_| 1);
    let size = format!("{} x {}, {} x {} heads of {}", a.batch, a.seq, a.heads, a.kv_heads, a.head_dim);
    let case = |role, kernel: Kernel, operands: Vec<Operand>| {
        let pairs = kernel.work.family.ends_with("_bf16");
        Case { pairs, ..Case::new(role, size.clone(), a.elem, kernel, operands) }
    };
    let seen = [q(Read), k(Read), k(Read), segments];
    let forward = [&seen[..], &[q(Write), lse(Write)]].concat();
    let backward = [&seen[..], &[q(Read), lse(Read), q(Read), q(Write), workspace(Write)]].concat();
    [
        case("attention", a.forward(target), forward),
        case("attention: gradient", a.gradient(target), backward),
        case("attention: sums of heads", a.gradient_finish(target), vec![workspace(Read), k(Write), k(Write)]),
    ]
}
