//! A model with every number known: an [`Arch`] read against a config.
use crate::arch::{
    self, Act, Arch, Choice, EmbedScale, ExpertPaths, Flag, Gain, NormKind, Num, Only, Padding, Paths, RopePart,
    Schedule, Softcap, Stored, Values, Window, Wiring,
};
use crate::config::{Config, Section, whole};
use crate::families;
use crate::names::Names;
use crate::rope::RopeSpec;
use anyhow::{Result, anyhow, ensure};

/// Deeper models do not exist; a config that claims more is not believed.
const DEEPEST: usize = 1 << 14;
/// Nor do larger ones; below this, sizes in bytes fit in 64 bits.
const MOST_PARAMETERS: u128 = 1 << 50;
/// A GPU's kernel takes the address of every expert's matrix as a parameter, for which it has 4,352 bytes.
const MOST_EXPERTS: usize = 512;

/// A decoder-only language model.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    pub vocab: usize,
    pub hidden: usize,
    pub embed_scale: f64,
    /// Whether `embed_scale` is rounded to the dtype of the weights first.
    pub embed_scale_rounded: bool,
    /// The row of the embedding that the lookup gives no gradient.
    pub padding: Option<usize>,
    /// The distinct kinds of layer that occur.
    pub kinds: Vec<Layer>,
    /// The kind of each layer.
    pub layers: Vec<usize>,
    pub final_norm: Norm,
    /// Whether the head's matrix is the embedding's.
    pub tied: bool,
    pub head_bias: bool,
    /// Logits are divided by it.
    pub logit_divisor: f64,
    /// Then logits `z` become `c · tanh(z / c)`.
    pub logit_softcap: Option<f64>,
    /// The longest row that the model is said to take.
    pub longest: Option<usize>,
    pub paths: Paths,
}

/// A mixer and what follows it, two branches that are added to the stream.
#[derive(Clone, PartialEq, Debug)]
pub struct Layer {
    pub mixer: Mixer,
    pub ffn: Ffn,
    pub wiring: Wiring,
    /// Of all norms.
    pub norm: Norm,
    /// What branches are multiplied by.
    pub residual: f64,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Mixer {
    Attention(Attention),
    Latent(Latent),
}

impl Mixer {
    /// The rotation, if there is one.
    pub fn rope(&self) -> Option<&RopeSpec> {
        match self {
            Mixer::Attention(Attention { position: Position::Rope(rope), .. }) => Some(rope),
            Mixer::Attention(Attention { position: Position::Alibi | Position::No, .. }) => None,
            Mixer::Latent(latent) => Some(&latent.rope),
        }
    }

    /// Columns of the caches of keys and of values.
    pub fn cache_widths(&self) -> [usize; 2] {
        match self {
            Mixer::Attention(attention) => [attention.kv_heads * attention.head_dim; 2],
            Mixer::Latent(Latent { heads, plain_dim, rotated_dim, value_dim, .. }) => {
                [heads * (plain_dim + rotated_dim), heads * value_dim]
            }
        }
    }
}

/// Multi-head latent attention.
#[derive(Clone, PartialEq, Debug)]
pub struct Latent {
    pub heads: usize,
    /// Inner sizes of the low-rank products.
    pub q_rank: usize,
    pub kv_rank: usize,
    /// Elements of a head of queries and keys that are not rotated, those behind them that are, and of a head of values.
    pub plain_dim: usize,
    pub rotated_dim: usize,
    pub value_dim: usize,
    pub scale: f64,
    /// Of both latents.
    pub norm: Norm,
    pub rope: RopeSpec,
}

/// Causal grouped-query attention.
#[derive(Clone, PartialEq, Debug)]
pub struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f64,
    /// Scores `s` become `c · tanh(s / c)`.
    pub softcap: Option<f64>,
    pub qkv: Stored,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub qk_norm: QkNorm,
    /// The largest absolute value that queries, keys and values keep.
    pub clip: Option<f64>,
    pub position: Position,
    /// How many tokens, itself included, a token sees; all if `None`.
    pub window: Option<usize>,
}

/// How attention knows where tokens are.
#[derive(Clone, PartialEq, Debug)]
pub enum Position {
    Rope(RopeSpec),
    /// Scores fall with the distance.
    Alibi,
    /// It does not, but for what comes before.
    No,
}

/// A norm of queries and keys before the rotation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum QkNorm {
    No,
    /// Of each head; all heads share the weight.
    PerHead(Norm),
    /// Of each head, which has a weight of its own.
    ByHead(Norm),
    /// Of all heads together.
    Whole(Norm),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Ffn {
    Glu(Glu),
    Plain(Plain),
    Experts(Experts),
}

/// Experts, each a [`Glu`], of which the likeliest are chosen by `softmax(router · x)`.
#[derive(Clone, PartialEq, Debug)]
pub struct Experts {
    pub count: usize,
    /// Experts of a token.
    pub chosen: usize,
    /// Whether the probabilities of those are divided by their sum.
    pub normalize: bool,
    pub glu: Glu,
    pub paths: ExpertPaths,
    pub shared: Option<SharedExpert>,
}

/// An expert of all tokens, whose result is added, multiplied by `sigmoid(gate · x)`.
#[derive(Clone, PartialEq, Debug)]
pub struct SharedExpert {
    pub glu: Glu,
    pub path: &'static str,
    pub gate: &'static str,
}

/// `down(act(gate(x)) · up(x))`.
#[derive(Clone, PartialEq, Debug)]
pub struct Glu {
    pub width: usize,
    pub act: Act,
    pub bias: bool,
    pub gate_up: Stored,
}

/// `down(act(up(x)))`.
#[derive(Clone, PartialEq, Debug)]
pub struct Plain {
    pub width: usize,
    pub act: Act,
    pub bias: bool,
}

/// `gain · x / sqrt(mean(x²) + eps)`, of `x` as it is or without its mean, with or without a bias.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Norm {
    pub kind: NormKind,
    pub eps: f64,
    pub gain: Gain,
}

impl Model {
    /// The model that a config describes; its family is that of the first class under `architectures`.
    ///
    /// # Errors
    /// An unknown family, a key that is missing or out of range, a setting that is not supported.
    pub fn read(config: &Config) -> Result<Model> {
        let root = config.root();
        let classes = root.words("architectures")?.unwrap_or_default();
        let wanted = "a list with the class of the model, such as \"LlamaForCausalLM\"";
        let class = classes.first().ok_or_else(|| root.missing("architectures", wanted))?;
        let family = families::find(class).map_err(|error| anyhow!("{}: {error}", root.name("architectures")))?;
        let model = Reader { root }.model(family)?;
        let parameters = model.parameters();
        ensure!(parameters < MOST_PARAMETERS, "{}: a model of {parameters} parameters is not believed", root.place());
        Ok(model)
    }

    /// Number of parameters; of a tied head none.
    pub fn parameters(&self) -> u128 {
        let tensors = Names::new(self).tensors();
        tensors.values().map(|shape| shape.iter().map(|&size| size as u128).product::<u128>()).sum()
    }
}

/// Evaluates the vocabulary of [`crate::arch`] against a config.
struct Reader<'a> {
    root: Section<'a>,
}

impl Reader<'_> {
    fn model(&self, family: &Arch) -> Result<Model> {
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
