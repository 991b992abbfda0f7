//! Where lanes that part at a branch meet again: the first instruction of the immediate post-dominator.
use crate::{op::Op, program::Instruction};

/// For each instruction the reconvergence point; `code.len()`, the exit, for all that is not a branch.
pub fn reconvergence(code: &[Instruction]) -> Vec<u32> {
    let exit = code.len();
    let blocks = Blocks::of(code);
    let parent = blocks.immediate_post_dominators();
    let mut points = vec![exit as u32; exit];
    for (block, &last) in blocks.last.iter().enumerate() {
        if let Some(point) = parent[block] {
            points[last] = blocks.first.get(point).map_or(exit, |first| *first) as u32;
        }
    }
    points
}

/// Basic blocks in program order; the block `first.len()` is the exit.
struct Blocks {
    first: Vec<usize>,
    last: Vec<usize>,
    successors: Vec<Vec<usize>>,
}

impl Blocks {
    fn of(code: &[Instruction]) -> Blocks {
        let mut leads = vec![false; code.len() + 1];
        leads[0] = true;
        for (i, instruction) in code.iter().enumerate() {
            let targets = targets(&instruction.op);
            if ends_block(&instruction.op) {
                leads[i + 1] = true;
            }
            targets.iter().for_each(|&target| leads[target as usize] = true);
        }
        let first: Vec<usize> = (0..code.len()).filter(|&i| leads[i]).collect();
        let last: Vec<usize> = first.iter().skip(1).chain([&code.len()]).map(|next| next - 1).collect();
        let block_of = |i: usize| if i == code.len() { first.len() } else { first.partition_point(|f| *f <= i) - 1 };
        let successors = last.iter().map(|&i| successors(code, i).into_iter().map(block_of).collect()).collect();
        Blocks { first, last, successors }
    }

    /// Cooper, Harvey and Kennedy's iteration on the reversed graph; none for blocks that never reach the exit.
    fn immediate_post_dominators(&self) -> Vec<Option<usize>> {
        let exit = self.first.len();
        let order = self.reverse_post_order();
        let mut rank = vec![usize::MAX; exit + 1];
        order.iter().enumerate().for_each(|(i, &block)| rank[block] = i);
        let mut parent: Vec<Option<usize>> = vec![None; exit + 1];
        parent[exit] = Some(exit);
        let mut changed = true;
        while changed {
            changed = false;
            for &block in order.iter().skip(1) {
                let known = self.successors[block].iter().copied().filter(|&next| parent[next].is_some());
                let meet = known.reduce(|a, b| intersect(&parent, &rank, a, b));
                if meet.is_some() && parent[block] != meet {
                    parent[block] = meet;
                    changed = true;
                }
            }
        }
        parent
    }

    /// Of the reversed graph, from the exit.
    fn reverse_post_order(&self) -> Vec<usize> {
        let exit = self.first.len();
        let mut predecessors = vec![Vec::new(); exit + 1];
        for (block, next) in self.successors.iter().enumerate() {
            next.iter().for_each(|&next| predecessors[next].push(block));
        }
        let mut seen = vec![false; exit + 1];
        let mut order = Vec::new();
        let mut stack = vec![(exit, 0)];
        seen[exit] = true;
        while let Some((block, next)) = stack.pop() {
            match predecessors[block].get(next) {
                Some(&before) => {
                    stack.push((block, next + 1));
                    if !std::mem::replace(&mut seen[before], true) {
                        stack.push((before, 0));
                    }
                }
                None => order.push(block),
            }
        }
        order.reverse();
        order
    }
}

fn intersect(parent: &[Option<usize>], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    let up = |block: usize| parent[block].expect("a ranked block on the way has a parent");
    while a != b {
        while rank[a] > rank[b] {
            a = up(a);
        }
        while rank[b] > rank[a] {
            b = up(b);
        }
    }
    a
}

fn targets(op: &Op) -> &[u32] {
    match op {
        Op::Branch { target } => std::slice::from_ref(target),
        Op::BranchIndexed { targets, .. } => targets,
        _ => &[],
    }
}

fn ends_block(op: &Op) -> bool {
    matches!(op, Op::Branch { .. } | Op::BranchIndexed { .. } | Op::Exit | Op::Trap)
}

fn successors(code: &[Instruction], i: usize) -> Vec<usize> {
    let instruction = &code[i];
    let mut next: Vec<usize> = targets(&instruction.op).iter().map(|&target| target as usize).collect();
    if matches!(instruction.op, Op::Exit | Op::Trap) {
        next.push(code.len());
    }
    if instruction.guard.is_some() || !ends_block(&instruction.op) {
        next.push(i + 1);
    }
    next
}
