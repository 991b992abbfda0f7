//! The lanes of a warp, which part at branches and meet again.
//!
//! A path is a set of lanes at one instruction. Where lanes part, their path waits at the reconvergence point and each
//! side becomes a path of its own, to end there. Any path that is not waiting may run, so lanes that spin cannot keep
//! others of their warp from making what they wait for.
use super::waiting::Wait;
use crate::ops::Mask;

#[derive(Debug)]
pub struct Path {
    pub pc: u32,
    pub lanes: Mask,
    /// Where it ends and its parent goes on.
    end: u32,
    parent: Option<usize>,
    children: u32,
    pub wait: Option<Wait>,
}

/// All paths of a warp. A path without lanes is free for use.
#[derive(Debug)]
pub struct Paths {
    all: Vec<Path>,
    /// Lanes that did not exit.
    pub live: Mask,
}

const NOWHERE: u32 = u32::MAX;

impl Paths {
    pub fn new(lanes: Mask) -> Paths {
        let root = Path { pc: 0, lanes, end: NOWHERE, parent: None, children: 0, wait: None };
        Paths { all: vec![root], live: lanes }
    }

    /// Paths that may run or wait for something outside of them.
    pub fn leaves(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.all.len()).filter(|&i| self.all[i].lanes != 0 && self.all[i].children == 0)
    }

    pub fn get(&self, path: usize) -> &Path {
        &self.all[path]
    }

    pub fn get_mut(&mut self, path: usize) -> &mut Path {
        &mut self.all[path]
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_leaf(&self, path: usize) -> bool {
        self.all[path].lanes != 0 && self.all[path].children == 0
    }

    /// Moves `path` on to `pc`; at its end it dissolves into its parent.
    pub fn advance(&mut self, path: usize, pc: u32) {
        self.all[path].pc = pc;
        if pc == self.all[path].end {
            self.dissolve(path);
        }
    }

    /// Parts the lanes of `path` by where they go next, to meet at `meeting`.
    pub fn diverge(&mut self, path: usize, sides: &[(u32, Mask)], meeting: u32) {
        // A path that ends at the meeting point anyway needs no parent waiting there: its own does.
        let parent = if self.all[path].end == meeting && self.all[path].parent.is_some() {
            let parent = self.all[path].parent.expect("just tested");
            self.all[path].lanes = 0;
            self.all[parent].children -= 1;
            parent
        } else {
            self.all[path].pc = meeting;
            path
        };
        for &(pc, lanes) in sides.iter().filter(|(pc, lanes)| *pc != meeting && *lanes != 0) {
            let child = Path { pc, lanes, end: meeting, parent: Some(parent), children: 0, wait: None };
            self.all[parent].children += 1;
            self.insert(child);
        }
        self.resume(parent);
    }

    /// Ends lanes for good.
    pub fn exit(&mut self, path: usize, lanes: Mask) {
        self.live &= !lanes;
        self.all[path].lanes &= !lanes;
        if self.all[path].lanes == 0 {
            self.dissolve(path);
        }
    }

    fn insert(&mut self, path: Path) {
        match self.all.iter().position(|old| old.lanes == 0 && old.children == 0) {
            Some(free) => self.all[free] = path,
            None => self.all.push(path),
        }
    }

    fn dissolve(&mut self, path: usize) {
        self.all[path].lanes = 0;
        if let Some(parent) = self.all[path].parent.take() {
            self.all[parent].children -= 1;
            self.resume(parent);
        }
    }

    /// A parent whose children are gone goes on with the lanes that still live.
    fn resume(&mut self, path: usize) {
        if self.all[path].children > 0 {
            return;
        }
        self.all[path].lanes &= self.live;
        if self.all[path].lanes == 0 || self.all[path].pc == self.all[path].end {
            self.dissolve(path);
        }
    }
}
