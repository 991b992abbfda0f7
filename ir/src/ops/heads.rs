//! Heads that hold several things side by side, as fused projections leave them: taken apart and put together.
use super::{Constant, operands, want_float, want_matrix};
use crate::eval::Tensor;
use crate::graph::Function;
use crate::op::{Named, OpDef, Vjp};
use crate::{Type, Value, op};

op! {
    /// `x` [T, heads·(a + b + …)] holds for every head `sizes` = [a, b, …] elements side by side; result i has those of part i,
    /// head after head. With `shared` the last result [T, z] is the sum over heads.
    "split_heads" SplitHeads { heads: usize, sizes: Vec<usize>, shared: bool } (x)
        -> "x.dtype[T, heads·a]", "x.dtype[T, heads·b]"
}

op! {
    /// The parts of heads side by side, the other way of `split_heads`: [T, heads·a], [T, heads·b] and so on become
    /// [T, heads·(a + b + …)]. With `shared` the last operand [T, z] goes to every head.
    "join_heads" JoinHeads { heads: usize, shared: bool } (more) -> "more.dtype[T, heads·(a + b + …)]"
}

/// Where the elements of a part are: its head, the first element within the whole head, and how many.
struct Places {
    heads: usize,
    sizes: Vec<usize>,
    shared: bool,
}

impl Places {
    fn head(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// Columns of part `i` on its own.
    fn width(&self, i: usize) -> usize {
        if self.is_shared(i) { self.sizes[i] } else { self.heads * self.sizes[i] }
    }

    fn is_shared(&self, i: usize) -> bool {
        self.shared && i + 1 == self.sizes.len()
    }

    /// Pairs of an element of the whole and one of part `i`, for `tokens` tokens.
    fn pairs(&self, tokens: usize, i: usize) -> impl Iterator<Item = (usize, usize)> {
        let (heads, head, size, width) = (self.heads, self.head(), self.sizes[i], self.width(i));
        let first: usize = self.sizes[..i].iter().sum();
        let step = if self.is_shared(i) { 0 } else { size };
        let of_heads = (0..tokens).flat_map(move |t| (0..heads).map(move |h| (t, h)));
        of_heads.flat_map(move |(t, h)| {
            (0..size).map(move |e| ((t * heads + h) * head + first + e, t * width + h * step + e))
        })
    }
}

impl OpDef for SplitHeads {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let [x] = operands(args, Self::OPERANDS)?;
        want_float("x", &x)?;
        let (tokens, width) = want_matrix("x", &x)?;
        let places = self.places();
        if self.sizes.contains(&0) || self.sizes.is_empty() || self.heads.checked_mul(places.head()) != Some(width) {
            return Err(format!("`x` is {x}: it does not divide into {} heads of {:?}", self.heads, self.sizes));
        }
        Ok((0..self.sizes.len()).map(|i| Type::new(x.dtype, [tokens, places.width(i)])).collect())
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let (tokens, _) = types[0].matrix()?;
        let places = self.places();
        let part = |i: usize| {
            let mut part = Tensor::zeros(&[tokens, places.width(i)]);
            places.pairs(tokens, i).for_each(|(from, to)| part.data[to] += args[0].data[from]);
            part
        };
        Some((0..self.sizes.len()).map(part).collect())
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let mut parts = vec![];
        for (result, d) in at.results.iter().zip(at.cotangents) {
            let Type { dtype, shape } = g.ty(*result).clone();
            parts.push(d.unwrap_or_else(|| g.op(Constant { value: 0.0, dtype, shape }, &[])));
        }
        Some(vec![Some(g.op(JoinHeads { heads: self.heads, shared: self.shared }, &parts))])
    }
}

impl SplitHeads {
    fn places(&self) -> Places {
        Places { heads: self.heads, sizes: self.sizes.clone(), shared: self.shared }
    }
}

impl JoinHeads {
    fn places(&self, parts: &[Type]) -> Result<(usize, Places), String> {
        let Some(first) = parts.first() else { return Err("takes at least one part, found none".into()) };
        let (tokens, _) = want_matrix("the first part", first)?;
        let mut sizes = vec![];
        for (i, part) in parts.iter().enumerate() {
            want_float("a part", part)?;
            let heads = if self.shared && i + 1 == parts.len() { 1 } else { self.heads };
            let (rows, width) = want_matrix("a part", part)?;
            if rows != tokens || part.dtype != first.dtype || heads == 0 || width == 0 || width % heads != 0 {
                return Err(format!("part {i} is {part}: not {heads} heads of {tokens} tokens like {first}"));
            }
            sizes.push(width / heads);
        }
        Ok((tokens, Places { heads: self.heads, sizes, shared: self.shared }))
    }
}

impl OpDef for JoinHeads {
    fn infer(&self, args: &[Type]) -> Result<Vec<Type>, String> {
        let (tokens, places) = self.places(args)?;
        Ok(vec![Type::new(args[0].dtype, [tokens, self.heads * places.head()])])
    }

    fn eval(&self, args: &[&Tensor], types: &[Type]) -> Option<Vec<Tensor>> {
        let (tokens, places) = self.places(types).ok()?;
        let mut whole = Tensor::zeros(&[tokens, self.heads * places.head()]);
        for (i, part) in args.iter().enumerate() {
            places.pairs(tokens, i).for_each(|(to, from)| whole.data[to] = part.data[from]);
        }
        Some(vec![whole])
    }

    fn vjp(&self, g: &mut Function, at: &Vjp) -> Option<Vec<Option<Value>>> {
        let types: Vec<Type> = at.args.iter().map(|part| g.ty(*part).clone()).collect();
        let (_, Places { sizes, .. }) = self.places(&types).ok()?;
        let parts = g.push(SplitHeads { heads: self.heads, sizes, shared: self.shared }, &[at.dy()]);
        Some(parts.into_iter().map(Some).collect())
    }
}
