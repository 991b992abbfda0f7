//! Random networks, compiled and interpreted: whatever the passes fuse, recompute and place, loss and gradients are those of
//! the graph. A failure is shrunk to a small network, which is printed.
use crate::stages::reversed;
use amc::compiler::emit::{Destination, Papers, emit};
use amc_artifact::{Artifact, ProgramKind};
use amc_ir::eval::{Tensor, eval};
use amc_ir::ops::*;
use amc_ir::{Binding, Bindings, DType, Function, Init, Module, Type, Value, View};
use amc_passes::pass::{Context, Recompute};
use amc_passes::pipeline;
use amc_passes::plan::{Optimizer, Unit, assemble};
use amc_runtime::session::{Part, Session, SessionOptions};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const VOCABULARY: usize = 11;
/// Large, so that a norm of zeros, such as of `x - x`, does not blow up roundings.
const EPS: f32 = 0.5;
const NETWORKS: u32 = 24;
/// Of the largest number of a tensor: some dozens of roundings of f32 on the way to it.
const TOLERANCE: f64 = 3e-4;

/// A network: sizes, layers, what a layer does, and how much its backward half computes again.
#[derive(Clone, Debug)]
struct Recipe {
    tokens: usize,
    width: usize,
    layers: usize,
    /// An operation and the two earlier values that it is given, each modulo how many there are.
    steps: Vec<(u8, u8, u8)>,
    recompute: usize,
    /// Whether values computed again wait for gradients of their operands.
    late: bool,
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let steps = prop::collection::vec((0..15u8, any::<u8>(), any::<u8>()), 1..14);
    (1..20usize, 1..40usize, 1..4usize, steps, 0..12usize, any::<bool>()).prop_map(
        |(tokens, width, layers, steps, recompute, late)| Recipe { tokens, width, layers, steps, recompute, late },
    )
}

impl Recipe {
    /// Weights of a layer, by name and shape.
    fn weights(&self) -> [(&'static str, Vec<usize>); 6] {
        let n = self.width;
        let square = |name| (name, vec![n, n]);
        let rows = |name, rows: usize| (name, vec![rows, n]);
        [square("a"), square("b"), rows("wide", 2 * n), rows("router", 2), ("bias", vec![n]), ("norm", vec![n])]
    }

    fn layer(&self) -> Function {
        let mut g = Function::new("layer");
        let ty = Type::new(DType::F32, [self.tokens, self.width]);
        let mut values = vec![g.param("x", ty.clone())];
        let [a, b, wide, router, bias, norm] =
            self.weights().map(|(name, shape)| g.param(name, Type::new(DType::F32, shape)));
        let segments = g.param("segments", Type::new(DType::Segment, [self.tokens]));
        for &(op, first, second) in &self.steps {
            let x = values[first as usize % values.len()];
            let y = values[second as usize % values.len()];
            let value = match op {
                0 => g.op(RmsNorm { eps: EPS, plus_one: false }, &[x, norm]),
                1 => g.op(Matmul::linear(DType::F32), &[x, a]),
                2 => g.op(Matmul::linear(DType::F32), &[x, b]),
                3 => g.op(Add {}, &[x, y]),
                4 => g.op(Sub {}, &[x, y]),
                5 => {
                    let gate = g.op(Sigmoid {}, &[y]);
                    g.op(Mul {}, &[x, gate])
                }
                6 => g.op(Silu {}, &[x]),
                7 => g.op(GeluTanh {}, &[x]),
                8 => g.op(Scale { value: -0.5 }, &[x]),
                9 => {
                    let wide = g.op(Broadcast { shape: ty.shape.clone() }, &[bias]);
                    g.op(Add {}, &[x, wide])
                }
                10 => g.op(Tanh {}, &[x]),
                11 => {
                    let [q, k] = [x, y].map(|x| g.op(Matmul::linear(DType::F32), &[x, wide]));
                    g.push(self.attention(second), &[q, k, y, segments])[0]
                }
                12 => self.experts(&mut g, second, [x, router, a, b]),
                13 => g.op(LayerNorm { eps: EPS, plus_one: false }, &[x, norm, bias]),
                _ => g.op(Max {}, &[x, y]),
            };
            values.push(value);
        }
        let last = *values.last().expect("there is x");
        // Whatever came of it, the next layer gets numbers of a size.
        let last = g.op(RmsNorm { eps: EPS, plus_one: false }, &[last, norm]);
        let result = g.op(Add {}, &[values[0], last]);
        g.results = vec![result];
        g
    }

    /// Attention of one head, whose values have half as many entries as its keys; which variants it has is drawn.
    fn attention(&self, drawn: u8) -> Attention {
        let (seq, scale) = (self.tokens, 0.3);
        let window = (drawn & 1 > 0).then_some(3);
        let (softcap, alibi) = ((drawn & 2 > 0).then_some(0.5), (drawn & 4 > 0).then_some(2.0));
        Attention { seq, heads: 1, kv_heads: 1, scale, window, softcap, alibi }
    }

    /// Two experts of one matrix each, of which a token has one or both.
    fn experts(&self, g: &mut Function, drawn: u8, [x, router, a, b]: [Value; 4]) -> Value {
        let (k, normalize) = (1 + usize::from(drawn & 1), drawn & 2 > 0);
        let logits = g.op(Matmul::linear(DType::F32), &[x, router]);
        let chosen = g.push(Route { k, normalize }, &[logits]);
        let rows = g.push(GroupRows { groups: 2 }, &[chosen[1]]);
        let x = g.op(GatherRows { k }, &[x, rows[1], rows[2]]);
        let y = g.op(GroupedMatmul { tb: true, dtype: DType::F32 }, &[x, rows[0], a, b]);
        let weights = g.op(Reshape { shape: vec![k * self.tokens, 1] }, &[chosen[0]]);
        let weights = g.op(GatherRows { k: 1 }, &[weights, rows[1], rows[2]]);
        let weights = g.op(Broadcast { shape: vec![k * self.tokens, self.width] }, &[weights]);
        let y = g.op(Mul {}, &[y, weights]);
        g.op(SumRows { k }, &[y, rows[1], rows[2]])
    }

    fn module(&self) -> (Module, Bindings) {
        let (mut module, mut main, mut bindings) = (Module::default(), Function::new("main"), Bindings::default());
        let layer = module.add(self.layer());
        let mut input = |main: &mut Function, name: &str, dtype, n: usize| {
            bindings.params.insert(name.into(), Binding::Input);
            main.param(name, Type::new(dtype, [n]))
        };
        let tokens = input(&mut main, "tokens", DType::Token, self.tokens);
        let labels = input(&mut main, "labels", DType::Label, self.tokens);
        let segments = input(&mut main, "segments", DType::Segment, self.tokens);
        let scale = input(&mut main, "loss_scale", DType::LossScale, 1);
        let mut weight = |main: &mut Function, name: String, shape: Vec<usize>| -> Value {
            let ty = Type::new(DType::F32, shape);
            let view = View { tensor: name.clone(), start: 0, rows: ty.shape[0] };
            bindings.params.insert(name.clone(), Binding::Trainable(view));
            let tensor = amc_ir::binding::Tensor { ty: ty.clone(), trainable: true, init: Init::Zeros };
            bindings.tensors.insert(name.clone(), tensor);
            main.param(name, ty)
        };
        let table = weight(&mut main, "table".into(), vec![VOCABULARY, self.width]);
        let layers: Vec<Vec<Value>> = (0..self.layers)
            .map(|i| self.weights().map(|(name, shape)| weight(&mut main, format!("{i}.{name}"), shape)).into())
            .collect();
        let mut x = main.op(Embedding { scale: 1.0, padding: None, dtype: DType::F32 }, &[table, tokens]);
        for weights in layers {
            x = main.call(&module, layer, &[&[x][..], &weights, &[segments]].concat())[0];
        }
        let loss = main.op(LinearCrossEntropy { logit_scale: 1.0, softcap: Some(4.0) }, &[x, table, labels, scale]);
        main.results = vec![loss];
        module.add(main);
        (module, bindings)
    }
}

/// The same numbers for the same name: weights within ±1, integers that mean what their type wants.
fn numbers(name: &str, ty: &Type) -> Tensor {
    let salt = name.bytes().fold(7usize, |sum, byte| sum * 31 % 1009 + byte as usize);
    let number = |i: usize| match ty.dtype {
        DType::Token => ((i * 5 + salt) % VOCABULARY) as f64,
        DType::Label => [3.0, -100.0, 0.0, 10.0, 7.0][(i + salt) % 5],
        // Documents of five tokens, and padding.
        DType::Segment => ((i / 5 + 1) % 3) as f64,
        DType::LossScale => 0.25,
        // Rounded to what f32 holds, so that both sides begin with the same.
        _ => f64::from((((i * 37 + salt * 101) as f64 * 0.73).sin() * 0.6) as f32),
    };
    Tensor::new(ty.shape.clone(), (0..ty.len()).map(number).collect())
}

/// What the compiled program finds: the loss, then the gradients in the order of `names`.
fn compiled(unit: Unit, names: &[String]) -> Vec<Vec<f32>> {
    let entry = unit.module.entry().clone();
    let destination = Destination::parse("cpu").expect("this CPU");
    let optimizer = Optimizer { beta1: 0.9, beta2: 0.999, eps: 1e-8, decoupled: true };
    let assembled = assemble(&[unit], Some(optimizer), destination.machine().as_ref(), 0);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("artifact");
    emit(&dir, &assembled, &destination, folder.path(), &[], Papers::default()).expect("an artifact");
    let artifact = Artifact::open(&dir).expect("the artifact");
    let found = run(&artifact, &entry, names);
    let other_order = Artifact { plan: reversed(&artifact.plan), ..artifact };
    assert!(run(&other_order, &entry, names) == found, "launches of one stage depend on each other");
    found
}

/// Loss and gradients.
fn run(artifact: &Artifact, entry: &Function, names: &[String]) -> Vec<Vec<f32>> {
    let options = SessionOptions { threads: Some(2), model: None };
    let mut session = Session::open(artifact, &options).expect("a session");
    let id = session.program("train").expect("the program");
    for param in &entry.params {
        let values = numbers(&param.name, &param.ty);
        let floats: Vec<f32> = values.data.iter().map(|x| *x as f32).collect();
        let ints: Vec<i32> = values.data.iter().map(|x| *x as i32).collect();
        match param.name.as_str() {
            "tokens" | "labels" | "segments" => session.write(id, &param.name, &ints).expect("an input"),
            "loss_scale" => session.write(id, &param.name, &floats).expect("an input"),
            name if names.iter().any(|n| n == name) => {
                session.write_param(name, Part::Value, &floats).expect("a weight");
            }
            _ => {}
        }
    }
    session.run(id).expect("a CPU does not fail");
    let gradients = names.iter().map(|name| session.read_param(name, Part::Gradient).expect("a gradient"));
    std::iter::once(session.read(id, "loss").expect("the loss")).chain(gradients).collect()
}

fn check(recipe: &Recipe) -> Result<(), TestCaseError> {
    let (mut module, bindings) = recipe.module();
    let forward = module.entry().clone();
    let trained = forward.params.iter().filter(|p| matches!(bindings.params[&p.name], Binding::Trainable(_)));
    let names: Vec<String> = trained.map(|p| p.name.clone()).collect();
    let mut context = Context::new(bindings, true);
    context.recompute = Recompute { wanted: recipe.recompute, late: recipe.late, ..Recompute::default() };
    pipeline::run(&mut module, &mut context, None, |_, _| {});
    let value = |param: &amc_ir::Param| match param.name.starts_with("grad:") {
        true => Tensor::zeros(&param.ty.shape),
        false => numbers(&param.name, &param.ty),
    };
    let arguments: Vec<Tensor> = module.entry().params.iter().map(value).collect();
    let wanted = eval(&module, &arguments);
    let text = amc_ir::text::print(&module);
    let unit = Unit {
        name: "train".into(),
        kind: ProgramKind::Train,
        batch: 1,
        seq: recipe.tokens,
        module,
        bindings: context.bindings,
        outputs: vec!["loss".into()],
        recompute: context.recompute,
    };
    let found = compiled(unit, &names);
    for (what, (found, wanted)) in
        std::iter::once("loss").chain(names.iter().map(String::as_str)).zip(found.iter().zip(&wanted))
    {
        let largest = wanted.data.iter().fold(0f64, |top, x| top.max(x.abs()));
        for (i, (found, wanted)) in found.iter().zip(&wanted.data).enumerate() {
            let apart = (f64::from(*found) - wanted).abs();
            prop_assert!(apart <= TOLERANCE * largest + 1e-6, "{what}[{i}]: found {found}, wanted {wanted}\n{text}");
        }
    }
    Ok(())
}

#[test]
fn compiled_networks_mean_what_their_graphs_mean() {
    let config = Config { cases: NETWORKS, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    if let Err(failure) = runner.run(&recipes(), |recipe| check(&recipe)) {
        panic!("{failure}");
    }
}
