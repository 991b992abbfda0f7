//! The program that clips, steps and clears the gradient, as a module.
use super::Optimizer;
use amc_artifact::Storage;
use amc_ir::ops::{Adam, ClipCoefficient};
use amc_ir::{DType, Function, Module, Type};

/// The update as a module, and what its parameters stand for: `region.group`, `grads` (all of them), or an input's name.
pub fn update_module(
    groups: &[(Storage, u64, u64, u64)],
    elements: usize,
    optimizer: Optimizer,
) -> (Module, Vec<String>) {
    let mut main = Function::new("main");
    let mut names = vec![];
    let mut param = |main: &mut Function, name: String, ty: Type| {
        names.push(name.clone());
        main.param(name, ty)
    };
    let grads = param(&mut main, "grads".into(), Type::new(DType::F32, [elements]));
    let scalars = ["max_norm", "learning_rate", "weight_decay", "bias_correction1", "bias_correction2"]
        .map(|name| param(&mut main, name.into(), Type::new(DType::F32, [1])));
    let mut flat = vec![];
    for (i, (storage, _, _, n)) in groups.iter().enumerate() {
        let dtype = if *storage == Storage::Bf16 { DType::Bf16 } else { DType::F32 };
        let regions = [("param", dtype), ("grad", DType::F32), ("exp_avg", DType::F32), ("exp_avg_sq", DType::F32)];
        flat.push(regions.map(|(r, dtype)| param(&mut main, format!("{r}.{i}"), Type::new(dtype, [*n as usize]))));
    }
    let clip = main.push(ClipCoefficient {}, &[grads, scalars[0]]);
    let mut results = vec![clip[0]];
    for [p, g, m, v] in flat {
        let Optimizer { beta1, beta2, eps, decoupled } = optimizer;
        let args = [p, g, m, v, clip[1], scalars[1], scalars[2], scalars[3], scalars[4]];
        results.extend(main.push(Adam { beta1, beta2, eps, decoupled }, &args));
    }
    main.results = results;
    let mut module = Module::default();
    module.add(main);
    (module, names)
}
