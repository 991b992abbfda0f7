//! Every op with a gradient, one row each: reverse mode against central differences of the reference interpreter.
use amc_ir::eval::{Tensor, eval};
use amc_ir::{Binding, Bindings, DType, Module, View, text};
use amc_passes::pass::Context;
use amc_passes::pipeline;

/// The loss beside its gradient, against the loss alone: sums in f64 whose order may differ.
const LOSS_TOLERANCE: f64 = 1e-12;
/// Central differences err by the square of their step, and by the loss's last place over the step: 1e-10 each.
const GRADIENT_TOLERANCE: f64 = 1e-6;
const DIFFERENCE: f64 = 1e-5;

/// The op with its attributes, the types of its operands, and the types of its results.
const ROWS: &[(&str, &[&str], &[&str])] = &[
    ("add", &["f32[2,3]", "f32[2,3]"], &["f32[2,3]"]),
    ("sub", &["f32[2,3]", "f32[2,3]"], &["f32[2,3]"]),
    ("mul", &["f32[2,3]", "f32[2,3]"], &["f32[2,3]"]),
    ("div", &["f32[2,3]", "f32[2,3]"], &["f32[2,3]"]),
    ("max", &["f32[2,3]", "f32[2,3]"], &["f32[2,3]"]),
    ("neg", &["f32[2,3]"], &["f32[2,3]"]),
    ("exp", &["f32[2,3]"], &["f32[2,3]"]),
    ("tanh", &["f32[2,3]"], &["f32[2,3]"]),
    ("erf", &["f32[2,3]"], &["f32[2,3]"]),
    ("sigmoid", &["f32[2,3]"], &["f32[2,3]"]),
    ("silu", &["f32[2,3]"], &["f32[2,3]"]),
    ("gelu", &["f32[2,3]"], &["f32[2,3]"]),
    ("gelu_tanh", &["f32[2,3]"], &["f32[2,3]"]),
    ("relu", &["f32[2,3]"], &["f32[2,3]"]),
    ("scale {value = -2.5e0}", &["f32[2,3]"], &["f32[2,3]"]),
    ("offset {value = 2.5e0}", &["f32[2,3]"], &["f32[2,3]"]),
    ("broadcast {shape = [4,3]}", &["f32[3]"], &["f32[4,3]"]),
    ("broadcast {shape = [4,3]}", &["f32[4,1]"], &["f32[4,3]"]),
    ("sum_to {shape = [4,1], dtype = f32}", &["f32[4,3]"], &["f32[4,1]"]),
    ("reshape {shape = [2,6]}", &["f32[4,3]"], &["f32[2,6]"]),
    ("matmul {ta = false, tb = false, dtype = f32}", &["f32[2,3]", "f32[3,4]"], &["f32[2,4]"]),
    ("matmul {ta = false, tb = true, dtype = f32}", &["f32[2,3]", "f32[4,3]"], &["f32[2,4]"]),
    ("matmul {ta = true, tb = false, dtype = f32}", &["f32[3,2]", "f32[3,4]"], &["f32[2,4]"]),
    ("matmul {ta = true, tb = true, dtype = f32}", &["f32[3,2]", "f32[4,3]"], &["f32[2,4]"]),
    (
        "grouped_matmul {tb = true, dtype = f32}",
        &["f32[6,3]", "index[4]", "f32[4,3]", "f32[4,3]", "f32[4,3]"],
        &["f32[6,4]"],
    ),
    (
        "grouped_matmul {tb = false, dtype = f32}",
        &["f32[6,3]", "index[4]", "f32[3,4]", "f32[3,4]", "f32[3,4]"],
        &["f32[6,4]"],
    ),
    ("route {k = 2, normalize = true}", &["f32[4,5]"], &["f32[4,2]", "index[4,2]"]),
    ("route {k = 3, normalize = false}", &["f32[4,5]"], &["f32[4,3]", "index[4,3]"]),
    ("gather_rows {k = 3}", &["f32[2,5]", "index[6]", "index[6]"], &["f32[6,5]"]),
    ("sum_rows {k = 3}", &["f32[6,5]", "index[6]", "index[6]"], &["f32[2,5]"]),
    ("embedding {scale = 1.5e0, padding = none, dtype = f32}", &["f32[5,3]", "token[4]"], &["f32[4,3]"]),
    ("rms_norm {eps = 1e-5, plus_one = false}", &["f32[2,4]", "f32[4]"], &["f32[2,4]"]),
    ("rms_norm {eps = 1e-5, plus_one = true}", &["f32[2,4]", "f32[4]"], &["f32[2,4]"]),
    ("layer_norm {eps = 1e-5, plus_one = false}", &["f32[2,4]", "f32[4]", "f32[4]"], &["f32[2,4]"]),
    ("layer_norm {eps = 1e-5, plus_one = true}", &["f32[2,4]", "f32[4]"], &["f32[2,4]"]),
    (
        "rope {heads = 2, first = 1, neighbours = false, inverse = false}",
        &["f32[3,12]", "position[3]", "f32[8,2]", "f32[8,2]"],
        &["f32[3,12]"],
    ),
    (
        "rope {heads = 2, first = 1, neighbours = true, inverse = false}",
        &["f32[3,12]", "position[3]", "f32[8,2]", "f32[8,2]"],
        &["f32[3,12]"],
    ),
    (
        "split_heads {heads = 2, sizes = [3, 1, 2], shared = false}",
        &["f32[3,12]"],
        &["f32[3,6]", "f32[3,2]", "f32[3,4]"],
    ),
    ("split_heads {heads = 2, sizes = [3, 2], shared = true}", &["f32[3,10]"], &["f32[3,6]", "f32[3,2]"]),
    ("join_heads {heads = 2, shared = false}", &["f32[3,6]", "f32[3,2]"], &["f32[3,8]"]),
    ("join_heads {heads = 2, shared = true}", &["f32[3,6]", "f32[3,2]"], &["f32[3,10]"]),
    (
        "attention {seq = 4, heads = 4, kv_heads = 2, scale = 5e-1, window = none, softcap = none, alibi = none}",
        &["f32[8,12]", "f32[8,6]", "f32[8,6]", "segment[8]"],
        &["f32[8,12]", "f32[8,4]"],
    ),
    (
        "attention {seq = 8, heads = 2, kv_heads = 1, scale = 5e-1, window = 3, softcap = none, alibi = none}",
        &["f32[8,6]", "f32[8,3]", "f32[8,3]", "segment[8]"],
        &["f32[8,6]", "f32[8,2]"],
    ),
    (
        "attention {seq = 8, heads = 2, kv_heads = 1, scale = 5e-1, window = none, softcap = 1.5e0, alibi = none}",
        &["f32[8,6]", "f32[8,3]", "f32[8,3]", "segment[8]"],
        &["f32[8,6]", "f32[8,2]"],
    ),
    (
        "attention {seq = 4, heads = 6, kv_heads = 3, scale = 5e-1, window = none, softcap = none, alibi = 5e-1}",
        &["f32[8,12]", "f32[8,6]", "f32[8,9]", "segment[8]"],
        &["f32[8,18]", "f32[8,6]"],
    ),
    (
        "attention {seq = 8, heads = 3, kv_heads = 1, scale = 7e-1, window = 5, softcap = 2e0, alibi = 1e0}",
        &["f32[8,15]", "f32[8,5]", "f32[8,2]", "segment[8]"],
        &["f32[8,6]", "f32[8,3]"],
    ),
    (
        "linear_cross_entropy {logit_scale = 5e-1, softcap = none}",
        &["f32[4,3]", "f32[5,3]", "label[4]", "loss_scale[1]"],
        &["f32[1]"],
    ),
    (
        "linear_cross_entropy {logit_scale = -3e0, softcap = 2e0}",
        &["f32[4,3]", "f32[5,3]", "label[4]", "loss_scale[1]", "f32[5]"],
        &["f32[1]"],
    ),
    ("dropout {p = 5e-1, site = 3}", &["f32[4,5]", "seed[2]"], &["f32[4,5]"]),
];

/// `sum(op(operands) * weights)` over the first result, as an entry function.
fn module(op: &str, operands: &[&str], results: &[&str]) -> Module {
    let wide = results[0];
    let n = operands.len();
    let mut source = String::from("func @main(");
    for (i, ty) in operands.iter().chain([&wide]).enumerate() {
        source += &format!("{}%{i} \"p{i}\": {ty}", if i > 0 { ", " } else { "" });
    }
    let names: Vec<String> = (0..n).map(|i| format!("%{i}")).collect();
    let outs: Vec<String> = (0..results.len()).map(|i| format!("%{}", n + 1 + i)).collect();
    let (name, attrs) = op.split_once(' ').unwrap_or((op, ""));
    let (product, total) = (n + 1 + results.len(), n + 2 + results.len());
    source += &format!(
        ") {{\n  {} = {name} {} {attrs} : {}\n  %{product} = mul %{}, %{n} : {wide}\n  \
         %{total} = sum_to %{product} {{shape = [1], dtype = f32}} : f32[1]\n  return %{total}\n}}\n",
        outs.join(", "),
        names.join(", "),
        results.join(", "),
        n + 1
    );
    text::parse(&source).unwrap_or_else(|e| panic!("{op}: {e}"))
}

/// Deterministic numbers that look random; kinds of integers get what they mean.
fn value(dtype: DType, shape: &[usize], salt: usize) -> Tensor {
    let noise = |i: usize| ((i * 37 + salt * 101 + 11) as f64 * 0.73).sin() * 1.3;
    let pick = |i: usize| match dtype {
        DType::Token => [3.0, 1.0, 3.0, 0.0][i % 4],
        DType::Position => i as f64,
        DType::Segment => [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 0.0][i % 8],
        DType::Label => [2.0, -100.0, 4.0, 0.0][i % 4],
        DType::LossScale => 0.25,
        DType::Seed => i as f64 + 5.0,
        // Six rows in three groups, of which one is empty; or a permutation that is its own inverse.
        DType::Index if shape == [4] => [0.0, 2.0, 2.0, 6.0][i],
        DType::Index => [4.0, 2.0, 1.0, 3.0, 0.0, 5.0][i],
        _ => noise(i),
    };
    Tensor::new(shape, (0..shape.iter().product()).map(pick).collect())
}

fn differentiated(module: &Module) -> (Module, Vec<usize>) {
    let entry = module.entry();
    let mut bindings = Bindings::default();
    let mut trained = vec![];
    for (i, param) in entry.params.iter().enumerate() {
        let rope_table = entry.insts[0].op().is_some_and(|op| op.name() == "rope") && i >= 2;
        if param.ty.dtype.is_float() && i + 1 < entry.params.len() && !rope_table {
            let view = View { tensor: param.name.clone(), start: 0, rows: param.ty.shape[0] };
            bindings.params.insert(param.name.clone(), Binding::Trainable(view));
            trained.push(i);
        }
    }
    let mut module = module.clone();
    pipeline::run(&mut module, &mut Context::new(bindings, true), None, |_, _| {});
    (module, trained)
}

#[test]
fn reverse_mode_agrees_with_differences() {
    for (op, operands, results) in ROWS {
        let forward = module(op, operands, results);
        let params = &forward.entry().params;
        let args: Vec<Tensor> = params.iter().enumerate().map(|(i, p)| value(p.ty.dtype, &p.ty.shape, i)).collect();
        let (joint, trained) = differentiated(&forward);
        let mut all = args.clone();
        all.extend(trained.iter().map(|i| Tensor::zeros(&args[*i].shape)));
        let found = eval(&joint, &all);
        assert!((found[0].data[0] - eval(&forward, &args)[0].data[0]).abs() < LOSS_TOLERANCE, "{op}: loss");
        for (k, &i) in trained.iter().enumerate() {
            for e in 0..args[i].data.len() {
                let at = |shift: f64| {
                    let mut moved = args.clone();
                    moved[i].data[e] += shift;
                    eval(&forward, &moved)[0].data[0]
                };
                let wanted = (at(DIFFERENCE) - at(-DIFFERENCE)) / (2.0 * DIFFERENCE);
                let got = found[1 + k].data[e];
                let allowed = GRADIENT_TOLERANCE * wanted.abs().max(1.0);
                assert!((got - wanted).abs() < allowed, "{op}: operand {i}[{e}]: {got}, {wanted}");
            }
        }
    }
}

/// Two calls of one layer function: gradients pass through calls, shared weights gather both contributions, and an
/// operand that nothing trained reaches costs nothing.
#[test]
fn gradients_pass_through_calls() {
    let source = r#"func @layer(%0 "x": f32[2,4], %1 "w": f32[4,4], %2 "norm": f32[4]) {
  %3 = rms_norm %0, %2 {eps = 1e-5, plus_one = false} : f32[2,4]
  %4 = matmul %3, %1 {ta = false, tb = true, dtype = f32} : f32[2,4]
  %5 = silu %4 : f32[2,4]
  %6 = add %0, %5 : f32[2,4]
  return %6
}

func @main(%0 "x": f32[2,4], %1 "a": f32[4,4], %2 "b": f32[4,4], %3 "norm": f32[4], %4 "labels": label[2], %5 "s": loss_scale[1]) {
  %6 = call @layer(%0, %1, %3) : f32[2,4]
  %7 = call @layer(%6, %2, %3) : f32[2,4]
  %8 = linear_cross_entropy %7, %1, %4, %5 {logit_scale = 1e0, softcap = none} : f32[1]
  return %8
}
"#;
    let forward = text::parse(source).unwrap();
    let mut bindings = Bindings::default();
    for name in ["a", "b", "norm"] {
        let view = View { tensor: name.into(), start: 0, rows: 4 };
        bindings.params.insert(name.into(), Binding::Trainable(view));
    }
    let mut joint = forward.clone();
    let mut context = Context::new(bindings, true);
    pipeline::run(&mut joint, &mut context, None, |_, _| {});
    let printed = text::print(&joint);
    assert_eq!(text::print(&text::parse(&printed).unwrap_or_else(|e| panic!("{e}"))), printed);
    let args: Vec<Tensor> =
        forward.entry().params.iter().enumerate().map(|(i, p)| value(p.ty.dtype, &p.ty.shape, i)).collect();
    let mut all = args.clone();
    all.extend([1, 2, 3].map(|i| Tensor::zeros(&args[i].shape)));
    let found = eval(&joint, &all);
    for (k, i) in [1, 2, 3].into_iter().enumerate() {
        for e in 0..args[i].data.len() {
            let at = |shift: f64| {
                let mut moved = args.clone();
                moved[i].data[e] += shift;
                eval(&forward, &moved)[0].data[0]
            };
            let wanted = (at(DIFFERENCE) - at(-DIFFERENCE)) / (2.0 * DIFFERENCE);
            assert!(
                (found[1 + k].data[e] - wanted).abs() < GRADIENT_TOLERANCE,
                "operand {i}[{e}]: {}, {wanted}",
                found[1 + k].data[e]
            );
        }
    }
    for steps in 1.. {
        let mut again = Context::new(context.bindings.clone(), true);
        again.recompute.wanted = steps;
        let mut joint = forward.clone();
        pipeline::run(&mut joint, &mut again, None, |_, _| {});
        assert_eq!(eval(&joint, &all), found, "{steps} steps of recomputation");
        assert!(again.recompute.operations > 0.0);
        let saved = joint.functions.iter().filter(|f| f.name.contains("forward")).map(|f| f.results.len()).min();
        if steps == again.recompute.possible {
            assert_eq!(saved, Some(1), "a layer that computes everything again saves nothing");
            break;
        }
    }
    let results = |name: &str| joint.functions.iter().find(|f| f.name == name).map(|f| f.results.len());
    assert_eq!(results("layer.backward"), Some(2), "the first layer returns two states and no cotangent of its input");
    assert_eq!(results("layer.backward.1"), Some(3), "the second one also the cotangent of its input");
}
