//! Reads the vocabulary of [`crate::arch`] against a config.
use super::{Attention, Experts, Ffn, Glu, Latent, Layer, Mixer, Model, Norm, Plain, Position, QkNorm, SharedExpert};
use crate::arch::{
    self, Act, Arch, Choice, EmbedScale, Flag, Num, Only, Padding, RopePart, Schedule, Softcap, Values, Window,
};
use crate::config::{Section, whole};
use crate::rope::RopeSpec;
use anyhow::{Result, anyhow, ensure};

/// Deeper models do not exist; a config that claims more is not believed.
const DEEPEST: usize = 1 << 14;
/// A GPU's kernel takes the address of every expert's matrix as a parameter (`MOST_GROUPS` of the kernels).
const MOST_EXPERTS: usize = 512;

/// Evaluates the vocabulary of [`crate::arch`] against a config.
pub(super) struct Reader<'a> {
    pub root: Section<'a>,
}

impl Reader<'_> {
    pub fn model(&self, family: &Arch) -> Result<Model> {
        family.only.iter().copied().flatten().try_for_each(|only| self.only(only))?;
        family.ignored.iter().for_each(|key| self.root.touch(key));
        let vocab = self.size(&family.vocab)?;
        let (embed_scale, embed_scale_rounded) = match &family.embed_scale {
            EmbedScale::No => (1.0, false),
            EmbedScale::By(factor) => (self.number(factor)?, false),
            EmbedScale::Rounded(factor) => (self.number(factor)?, true),
        };
        let (kinds, layers) = self.layers(family)?;
        Ok(Model {
            vocab,
            hidden: self.size(&family.hidden)?,
            embed_scale,
            embed_scale_rounded,
            padding: match family.padding {
                Padding::Key(default) => self.padding(default, vocab)?,
                Padding::No => self.padding(None, vocab)?.and(None),
            },
            kinds,
            layers,
            final_norm: self.norm(&family.final_norm)?,
            tied: self.flag(&family.head.tied)?,
            head_bias: self.flag(&family.head.bias)?,
            logit_divisor: self.nonzero(&family.head.divisor)?,
            logit_softcap: self.softcap(&family.head.softcap)?,
            longest: self.root.size("max_position_embeddings")?,
            paths: family.paths,
        })
    }

    /// The kinds that occur, in the order in which they do, and the kind of each layer.
    fn layers(&self, family: &Arch) -> Result<(Vec<Layer>, Vec<usize>)> {
        let depth = self.size(&family.depth)?;
        ensure!(depth <= DEEPEST, "{} is {depth}; at most {DEEPEST} layers are believed", self.place(&family.depth));
        let schedule = self.schedule(&family.layers.schedule, depth)?;
        // Kinds that do not occur are read too: their keys are known, so they must not be called unread.
        let all: Vec<Layer> = family.layers.kinds.iter().map(|kind| self.layer(kind)).collect::<Result<_>>()?;
        let mut kinds: Vec<Layer> = Vec::new();
        let mut layers = Vec::new();
        for kind in schedule.into_iter().map(|kind| &all[kind]) {
            let known = kinds.iter().position(|other| other == kind);
            layers.push(known.unwrap_or(kinds.len()));
            kinds.extend(known.is_none().then(|| kind.clone()));
        }
        Ok((kinds, layers))
    }

    fn schedule(&self, schedule: &Schedule, depth: usize) -> Result<Vec<usize>> {
        match schedule {
            Schedule::Same => Ok(vec![0; depth]),
            Schedule::Split { flag, count } => {
                let (split, count) = (self.flag(flag)?, self.number(count)?);
                Ok((0..depth).map(|i| usize::from(split && i as f64 >= count)).collect())
            }
            Schedule::Every { step, dense } => {
                let (step, dense) = (self.size(step)?, self.root.numbers(dense)?.unwrap_or_default());
                let listed = |i: usize| dense.contains(&(i as f64));
                Ok((0..depth).map(|i| usize::from((i + 1) % step != 0 || listed(i))).collect())
            }
            Schedule::Crossed { columns, i, j } => {
                let pairs = self.schedule(i, depth)?.into_iter().zip(self.schedule(j, depth)?);
                Ok(pairs.map(|(i, j)| i + columns * j).collect())
            }
            Schedule::LastOf(count) => {
                let count = self.size(count)?;
                Ok((1..=depth).map(|number| usize::from(number.is_multiple_of(count))).collect())
            }
            Schedule::Named { key, words, otherwise } => {
                let fallback = self.schedule(otherwise, depth)?;
                let Some(list) = self.root.words(key)? else { return Ok(fallback) };
                let place = self.root.name(key);
                ensure!(list.len() == depth, "{place} has {} words, one a layer would be {depth}", list.len());
                let kind = |word: &&str| {
                    words
                        .iter()
                        .position(|known| known == word)
                        .ok_or_else(|| anyhow!("{place} has {word:?}; this family knows {}", words.join(", ")))
                };
                list.iter().map(kind).collect()
            }
        }
    }

    fn layer(&self, layer: &arch::Layer) -> Result<Layer> {
        Ok(Layer {
            mixer: match &layer.mixer {
                arch::Mixer::Attention(attention) => Mixer::Attention(self.attention(attention)?),
                arch::Mixer::Latent(latent) => Mixer::Latent(self.latent(latent)?),
            },
            ffn: match &layer.ffn {
                arch::Ffn::Glu(glu) => Ffn::Glu(self.glu(glu)?),
                arch::Ffn::Plain(plain) => Ffn::Plain(self.plain(plain)?),
                arch::Ffn::Experts(experts) => Ffn::Experts(self.experts(experts)?),
            },
            wiring: self.choose(&layer.wiring)?,
            norm: self.norm(&layer.norm)?,
            residual: self.number(&layer.residual)?,
        })
    }

    fn attention(&self, attention: &arch::Attention) -> Result<Attention> {
        let (heads, kv_heads) = (self.size(&attention.heads)?, self.size(&attention.kv_heads)?);
        let place = self.place(&attention.kv_heads);
        ensure!(heads.is_multiple_of(kv_heads), "{place} is {kv_heads}, which does not divide the {heads} heads");
        let head_dim = self.size(&attention.head_dim)?;
        Ok(Attention {
            heads,
            kv_heads,
            head_dim,
            scale: self.number(&attention.scale)?,
            softcap: self.softcap(&attention.softcap)?,
            qkv: attention.qkv,
            qkv_bias: self.flag(&attention.qkv_bias)?,
            out_bias: self.flag(&attention.out_bias)?,
            qk_norm: match &self.choose(&attention.qk_norm)? {
                arch::QkNorm::No => QkNorm::No,
                arch::QkNorm::PerHead(norm) => QkNorm::PerHead(self.norm(norm)?),
                arch::QkNorm::ByHead(norm) => QkNorm::ByHead(self.norm(norm)?),
                arch::QkNorm::Whole(norm) => QkNorm::Whole(self.norm(norm)?),
            },
            clip: attention.clip.map(|key| self.bound(key, None)).transpose()?.flatten(),
            position: match &self.choose(&attention.position)? {
                arch::Position::Rope(rope) => Position::Rope(self.rope(rope, head_dim)?),
                arch::Position::Alibi => Position::Alibi,
                arch::Position::No => Position::No,
            },
            window: self.window(&attention.window)?,
        })
    }

    fn latent(&self, latent: &arch::Latent) -> Result<Latent> {
        let (plain_dim, rotated_dim) = (self.size(&latent.plain_dim)?, self.size(&latent.rotated_dim)?);
        let (whole, place) = (rotated_dim.is_multiple_of(2), self.place(&latent.rotated_dim));
        ensure!(whole, "{place} is {rotated_dim}; wanted an even number, as elements are rotated in pairs");
        Ok(Latent {
            heads: self.size(&latent.heads)?,
            q_rank: self.size(&latent.q_rank)?,
            kv_rank: self.size(&latent.kv_rank)?,
            plain_dim,
            rotated_dim,
            value_dim: self.size(&latent.value_dim)?,
            scale: ((plain_dim + rotated_dim) as f64).powf(-0.5),
            norm: self.norm(&latent.norm)?,
            rope: self.rope(&latent.rope, rotated_dim)?,
        })
    }

    fn rope(&self, rope: &arch::Rope, head_dim: usize) -> Result<RopeSpec> {
        let rotary = match rope.part {
            RopePart::Elements(count) => Some(self.size(&count)?),
            RopePart::Whole | RopePart::Partial(..) => None,
        };
        RopeSpec::read(self.root, rope, head_dim, rotary)
    }

    fn glu(&self, glu: &arch::Glu) -> Result<Glu> {
        Ok(Glu {
            width: self.size(&glu.width)?,
            act: self.act(&glu.act)?,
            bias: self.flag(&glu.bias)?,
            gate_up: glu.gate_up,
        })
    }

    fn plain(&self, plain: &arch::Plain) -> Result<Plain> {
        Ok(Plain { width: self.size(&plain.width)?, act: self.act(&plain.act)?, bias: self.flag(&plain.bias)? })
    }

    fn experts(&self, experts: &arch::Experts) -> Result<Experts> {
        let (count, chosen) = (self.size(&experts.count)?, self.size(&experts.chosen)?);
        let place = self.place(&experts.count);
        ensure!(count <= MOST_EXPERTS, "{place} is {count}; at most {MOST_EXPERTS} experts are supported");
        let place = self.place(&experts.chosen);
        ensure!(chosen <= count, "{place} is {chosen}; there are {count} experts");
        Ok(Experts {
            count,
            chosen,
            normalize: self.flag(&experts.normalize)?,
            glu: self.glu(&experts.glu)?,
            paths: experts.paths,
            shared: experts.shared.as_ref().map(|shared| self.shared_expert(shared)).transpose()?,
        })
    }

    fn shared_expert(&self, shared: &arch::SharedExpert) -> Result<SharedExpert> {
        Ok(SharedExpert { glu: self.glu(&shared.glu)?, path: shared.path, gate: shared.gate })
    }

    fn norm(&self, norm: &arch::Norm) -> Result<Norm> {
        let eps = self.number(&norm.eps)?;
        ensure!(eps > 0.0, "{} is {eps}; wanted more than 0", self.place(&norm.eps));
        Ok(Norm { kind: norm.kind, eps, gain: norm.gain })
    }

    fn act(&self, act: &arch::ActKey) -> Result<Act> {
        // A file may have several; the later ones are known, so they must not be called unread.
        act.keys.iter().for_each(|key| self.root.touch(key));
        for key in act.keys {
            if let Some(word) = self.root.word(key)? {
                let known = act.words.iter().find(|row| row.0 == word);
                return known.map(|row| row.1).ok_or_else(|| {
                    let words: Vec<&str> = act.words.iter().map(|row| row.0).collect();
                    anyhow!("{} is {word:?}; this family knows {}", self.root.name(key), words.join(", "))
                });
            }
        }
        Ok(act.default)
    }

    fn window(&self, window: &Window) -> Result<Option<usize>> {
        match window {
            Window::All => Ok(None),
            Window::Key(key, default) => {
                if self.root.integer(key).is_ok_and(|found| found == Some(0)) {
                    return Ok(None);
                }
                let found = self.root.size(key)?;
                Ok(found.or(default.filter(|_| !self.root.has(key))))
            }
        }
    }

    /// The padding row; a negative id counts from the end, as in torch.
    fn padding(&self, default: Option<i64>, vocab: usize) -> Result<Option<usize>> {
        let key = "pad_token_id";
        let found = self.root.integer(key)?;
        let Some(id) = found.or(default.filter(|_| !self.root.has(key))) else { return Ok(None) };
        let row = if id < 0 { id.checked_add(vocab as i64) } else { Some(id) };
        let row = row.and_then(|row| usize::try_from(row).ok()).filter(|row| *row < vocab);
        row.map(Some).ok_or_else(|| anyhow!("{} is {id}; the vocabulary has {vocab} tokens", self.root.name(key)))
    }

    fn only(&self, only: &Only) -> Result<()> {
        let Some(found) = self.root.get(only.key) else { return Ok(()) };
        let text = found.to_string();
        let (taken, wanted) = match only.values {
            Values::These(these) => (these.contains(&text.as_str()), these.first().copied().unwrap_or("null")),
            Values::AllBut(others) => (!others.contains(&text.as_str()), "another value"),
        };
        ensure!(
            taken,
            "{}, which asks for {}: that is not supported",
            self.root.wrong(only.key, found, wanted),
            only.otherwise
        );
        Ok(())
    }

    fn number(&self, num: &Num) -> Result<f64> {
        Ok(match num {
            Num::Is(x) => *x,
            Num::Key(key) => self.root.number(key)?.ok_or_else(|| self.root.missing(key, "a number"))?,
            Num::KeyOr(key, default) => match self.root.number(key)? {
                Some(x) => x,
                None => self.number(default)?,
            },
            Num::Div(a, b) => self.number(a)? / self.nonzero(b)?,
            Num::Sqrt(a) => self.number(a)?.sqrt(),
        })
    }

    fn nonzero(&self, num: &Num) -> Result<f64> {
        let x = self.number(num)?;
        ensure!(x != 0.0 && x.is_finite(), "{} is {x}, which cannot divide", self.place(num));
        Ok(x)
    }

    fn softcap(&self, softcap: &Softcap) -> Result<Option<f64>> {
        match softcap {
            Softcap::No => Ok(None),
            Softcap::Key(key, default) => self.bound(key, *default),
        }
    }

    /// The number under a key, which is above 0; none where it is `null`, and the default where it is absent.
    fn bound(&self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        let Some(bound) = self.root.number(key)?.or(default.filter(|_| !self.root.has(key))) else { return Ok(None) };
        ensure!(bound > 0.0, "{} is {bound}; wanted more than 0", self.root.name(key));
        Ok(Some(bound))
    }

    fn choose<T: Copy>(&self, choice: &Choice<T>) -> Result<T> {
        match choice {
            Choice::Always(only) => Ok(*only),
            Choice::If(flag, yes, no) => Ok(if self.flag(flag)? { *yes } else { *no }),
        }
    }

    fn size(&self, num: &Num) -> Result<usize> {
        let x = self.number(num)?;
        whole(x).ok_or_else(|| anyhow!("{} is {x}; wanted a whole number from 1 to 2147483648", self.place(num)))
    }

    fn flag(&self, flag: &Flag) -> Result<bool> {
        let (keys, default) = match flag {
            Flag::Is(yes) => return Ok(*yes),
            Flag::Has(key) => return Ok(self.root.has(key)),
            Flag::Keys(keys, default) => (keys, default),
        };
        let found: Vec<Option<bool>> = keys.iter().map(|key| self.root.flag(key)).collect::<Result<_>>()?;
        Ok(found.into_iter().flatten().next().unwrap_or(*default))
    }

    /// Where a number comes from, for messages.
    fn place(&self, num: &Num) -> String {
        match num {
            Num::Key(key) | Num::KeyOr(key, _) if self.root.has(key) => self.root.name(key),
            Num::KeyOr(_, default) => self.place(default),
            _ => format!("{}: {num}", self.root.place()),
        }
    }
}
