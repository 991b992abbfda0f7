//! Attention of a chunk of new tokens against a key/value cache, and writing to the cache.
use crate::attention::Heads;
use crate::attention::scores::{penalty, tanh_of, times};
use crate::emit::{Elem, Emitter, Value, float_type};
use crate::loops::Reduction;
use crate::{Kernel, Machine, Target, Work, math};

/// Writes the rows of `new` into `cache` from row `start[0]` on; rows that would lie outside are left out.
///
/// Operands: `new [chunk, width]`, `cache [capacity, width]`, `start` i32 `[1]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheAppend {
    pub chunk: usize,
    pub width: usize,
    pub capacity: usize,
    /// Storage of `new` and `cache`.
    pub elem: Elem,
}

impl CacheAppend {
    pub fn build(&self, machine: &dyn Machine) -> Kernel {
        let (width, elem) = (self.width, self.elem);
        let mut e = machine.emitter();
        let [new, cache, start] = [0, 1, 2].map(|i| e.arg(i));
        let zero = e.index(0);
        let start = e.load_int_at(&start, &zero);
        e.tasks(|e, row| {
            let place = e.int2("addi", &start, row);
            let inside = e.within(&place, self.capacity);
            let copy = |e: &mut Emitter| {
                let (from, to) = (e.row(&new, row, width, elem), e.row(&cache, &place, width, elem));
                e.copy_row(&from, &to, elem, width, 2 * machine.lanes());
            };
            e.branch(&inside, copy, |_| {});
        });
        let work = Work::new("rows", 0).moving(2 * self.chunk * width, elem);
        e.finish(&format!("cache_append_{}x{width}_{}", self.chunk, elem.name()), self.chunk, 0, work)
    }
}

/// `softmax(scale · q kᵀ) v` of a chunk whose first token stands at `start[0]`: token `i` sees cache rows `j` with
/// `j <= start + i` and, with a window, `j > start + i - window`. Query head `h` reads key head `h / (heads / kv_heads)`.
/// Scores may be capped and lowered by the distance, as those of [`crate::attention::Attention`]. A token that sees nothing
/// gets zeros. Arithmetic is f32; one task per token and head.
///
/// Operands: `q [chunk, heads * head_dim]`, `k_cache [capacity, kv_heads * head_dim]`, `v_cache [capacity, kv_heads *
/// value_dim]`, `start` i32 `[1]`, `o [chunk, heads * value_dim]`.
#[derive(Clone, PartialEq, Debug)]
pub struct AttentionCached {
    pub chunk: usize,
    pub capacity: usize,
    /// A multiple of `kv_heads`.
    pub heads: usize,
    pub kv_heads: usize,
    /// Entries of a head of queries and keys, and of a head of values and results.
    pub head_dim: usize,
    pub value_dim: usize,
    pub scale: f32,
    pub window: Option<usize>,
    pub softcap: Option<f32>,
    pub alibi: Option<f32>,
    /// Storage of queries, caches and result.
    pub elem: Elem,
}

/// What a task works with: one query, the rows of its keys and values from the first that it sees on, and how many.
struct Task<'a> {
    q: &'a str,
    keys: &'a str,
    values: &'a str,
    count: &'a str,
    o: &'a str,
    /// What a distance of one token takes from a score, with ALiBi.
    penalty: Option<&'a str>,
}

impl AttentionCached {
    pub fn build(&self, target: &Target) -> Kernel {
        let mut e = Emitter::for_cpu(target.lanes, target.pairs);
        let [q, keys, values, start, o] = [0, 1, 2, 3, 4].map(|i| e.arg(i));
        let zero = e.index(0);
        let start = e.load_int_at(&start, &zero);
        e.tasks(|e, task| {
            let heads = e.index(self.heads as i64);
            let (token, head) = (e.int2("divui", task, &heads), e.int2("remui", task, &heads));
            let place = e.int2("addi", &start, &token);
            let (first, count) = self.visible(e, &place);
            let (q, o) = (e.row(&q, task, self.head_dim, self.elem), e.row(&o, task, self.value_dim, self.elem));
            let [keys, values] = [(&keys, self.key_heads()), (&values, self.value_heads())]
                .map(|(cache, heads)| self.head_rows(e, cache, heads, &first, &head));
            let penalty = penalty(e, self.alibi, self.heads, &head);
            let (keys, values, penalty) = (&keys, &values, penalty.as_deref());
            self.task(e, target, &Task { q: &q, keys, values, count: &count, o: &o, penalty });
        });
        let AttentionCached { chunk, capacity, heads, kv_heads, head_dim, value_dim, .. } = *self;
        let values = if value_dim == head_dim { String::new() } else { format!("x{value_dim}") };
        let elem = self.elem.name();
        let name = format!("attention_cached_{chunk}x{heads}x{head_dim}{values}_{capacity}x{kv_heads}_{elem}");
        let seen = chunk * self.window.map_or(capacity, |window| window.min(capacity));
        let entries = head_dim + value_dim;
        let work = Work::new("attention_cached", 2 * seen * heads * entries)
            .moving((chunk * heads + capacity * kv_heads) * entries, self.elem);
        e.finish(&name, self.chunk * self.heads, 4 * self.capacity as u64, work)
    }

    /// The first cache row that the token at `place` sees, and how many.
    fn visible(&self, e: &mut Emitter, place: &str) -> (Value, Value) {
        let (zero, one, capacity) = (e.index(0), e.index(1), e.index(self.capacity as i64));
        let after = e.int2("addi", place, &one);
        let first = match self.window {
            Some(window) => {
                let window = e.index(window.min(self.capacity) as i64);
                let first = e.int2("subi", &after, &window);
                e.int2("maxsi", &first, &zero)
            }
            None => zero.clone(),
        };
        let after = e.int2("minsi", &after, &capacity);
        let count = e.int2("subi", &after, &first);
        (first, e.int2("maxsi", &count, &zero))
    }

    /// Row `first` of a cache at the key head of query head `head`.
    fn head_rows(&self, e: &mut Emitter, cache: &str, heads: Heads, first: &str, head: &str) -> Value {
        let group = e.index((self.heads / self.kv_heads) as i64);
        let kv_head = e.int2("divui", head, &group);
        let row = e.row(cache, first, heads.width(), self.elem);
        e.row(&row, &kv_head, heads.entries, self.elem)
    }

    fn key_heads(&self) -> Heads {
        Heads { count: self.kv_heads, entries: self.head_dim }
    }

    fn value_heads(&self) -> Heads {
        Heads { count: self.kv_heads, entries: self.value_dim }
    }

    /// The lanes of at most `most` vectors that divide a head of so many entries evenly, if any do.
    fn lanes(&self, entries: usize, target: &Target, most: usize) -> usize {
        let fits = |vectors: &usize| entries.is_multiple_of(vectors * target.lanes);
        target.lanes * [8, 4, 2].into_iter().filter(|vectors| *vectors <= most).find(fits).unwrap_or(1)
    }

    fn task(&self, e: &mut Emitter, target: &Target, task: &Task) {
        let mut top = self.scores(e, target, task);
        if self.softcap.is_some() || task.penalty.is_some() {
            top = self.changed_scores(e, target, task);
        }
        let sum = e.reduce(task.count, 2 * target.lanes, &[Reduction::Sum], |e, j, lanes, so_far| {
            let (score, top) = (e.load_at("%scratch", j, Elem::F32, lanes), e.splat(&top, lanes));
            let score = e.float2("subf", &score, &top, lanes);
            let weight = math::exp_of_small(e, &score, lanes);
            e.store_at(&weight, "%scratch", j, Elem::F32, lanes);
            vec![e.float2("addf", &so_far[0], &weight, lanes)]
        });
        let (zero, one) = (e.float(0.0, 1), e.float(1.0, 1));
        let nothing = e.compare("oeq", &sum[0], &zero, 1);
        let sum = e.select(&nothing, &one, &sum[0], 1);
        self.weighted_values(e, target, task, &sum);
    }

    /// Scores of all keys into the scratch; returns the largest.
    fn scores(&self, e: &mut Emitter, target: &Target, task: &Task) -> Value {
        let (zero, lowest) = (e.index(0), e.float(Reduction::Max.initial(), 1));
        let top = e.for_loop(&zero, task.count, 1, &[(lowest, float_type(1))], |e, j, so_far| {
            let key = e.row(task.keys, j, self.key_heads().width(), self.elem);
            let count = e.index(self.head_dim as i64);
            let dot =
                e.reduce(&count, self.lanes(self.head_dim, target, 4), &[Reduction::Sum], |e, i, lanes, so_far| {
                    let (q, k) = (e.load_at(task.q, i, self.elem, lanes), e.load_at(&key, i, self.elem, lanes));
                    vec![e.fma(&q, &k, &so_far[0], lanes)]
                });
            let scale = e.float(self.scale, 1);
            let score = e.float2("mulf", &dot[0], &scale, 1);
            e.store_at(&score, "%scratch", j, Elem::F32, 1);
            vec![Reduction::Max.join(e, &so_far[0], &score, 1)]
        });
        top[0].clone()
    }

    /// Scores that were only scaled, capped and lowered by the distance; returns the largest.
    fn changed_scores(&self, e: &mut Emitter, target: &Target, task: &Task) -> Value {
        let last = e.plus(task.count, -1);
        let top = e.reduce(task.count, target.lanes, &[Reduction::Max], |e, j, lanes, so_far| {
            let mut score = e.load_at("%scratch", j, Elem::F32, lanes);
            if let Some(cap) = self.softcap {
                let tanh = tanh_of(e, &score, 1.0 / cap, lanes);
                score = times(e, &tanh, cap, lanes);
            }
            if let Some(penalty) = task.penalty {
                let distance = e.int2("subi", &last, j);
                let distances = distances_from(e, &distance, lanes);
                let slope = e.float1("negf", penalty, 1);
                let slope = e.splat(&slope, lanes);
                score = e.fma(&slope, &distances, &score, lanes);
            }
            e.store_at(&score, "%scratch", j, Elem::F32, lanes);
            vec![Reduction::Max.join(e, &so_far[0], &score, lanes)]
        });
        top[0].clone()
    }

    /// `o = Σ weight · value / sum`
    fn weighted_values(&self, e: &mut Emitter, target: &Target, task: &Task, sum: &str) {
        let entries = e.index(self.value_dim as i64);
        e.each(&entries, self.lanes(self.value_dim, target, 8), |e, i, lanes| {
            let (zero, nothing) = (e.index(0), e.float(0.0, lanes));
            let total = e.for_loop(&zero, task.count, 1, &[(nothing, float_type(lanes))], |e, j, so_far| {
                let value = e.row(task.values, j, self.value_heads().width(), self.elem);
                let value = e.load_at(&value, i, self.elem, lanes);
                let weight = e.load_at("%scratch", j, Elem::F32, 1);
                let weight = e.splat(&weight, lanes);
                vec![e.fma(&weight, &value, &so_far[0], lanes)]
            });
            let sum = e.splat(sum, lanes);
            let mean = e.float2("divf", &total[0], &sum, lanes);
            e.store_at(&mean, task.o, i, self.elem, lanes);
        });
    }
}

/// Distances of a query from successive keys, the first of which is `distance` behind it, as f32.
fn distances_from(e: &mut Emitter, distance: &str, lanes: usize) -> Value {
    let distance = e.op(format!("arith.sitofp {distance} : i64 to f32"));
    if lanes == 1 {
        return distance;
    }
    let distance = e.splat(&distance, lanes);
    let steps: Vec<String> = (0..lanes).map(|lane| format!("{lane}.0")).collect();
    let steps = e.op(format!("arith.constant dense<[{}]> : {}", steps.join(", "), float_type(lanes)));
    e.float2("subf", &distance, &steps, lanes)
}
