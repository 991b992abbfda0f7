//! Which module of the model a launch belongs to, told by the tensors that it touches.
use crate::schedule::{Launch, Location, Schedule};
use amc_artifact::{Arg, Param, Plan};
use std::collections::BTreeMap;

/// What PEFT puts before the names of an adapter's tensors.
const ADAPTER: &str = "base_model.model.";

/// Modules of the stored tensors, by where these are.
#[derive(Default)]
pub struct Owners {
    /// By index of the frozen tensor.
    frozen: Vec<String>,
    /// By first byte in the arena: the byte behind, and the module. Values and gradients of parameters.
    trained: BTreeMap<u64, (u64, String)>,
}

/// Modules of a schedule's calls.
pub struct Modules<'a> {
    owners: &'a Owners,
    /// By number of the call.
    calls: Vec<String>,
}

impl Owners {
    pub fn new(plan: &Plan) -> Owners {
        let places = |param: &Param| {
            let elements: u64 = param.shape.iter().product();
            let (value, grad) = (param.value_offset, param.grad_offset);
            [(value, elements * param.storage.bytes()), (grad, elements * 4)]
                .map(|(first, bytes)| (first, (first + bytes, module_of(&param.name))))
        };
        Owners {
            frozen: plan.weights.iter().map(|weight| module_of(&weight.name)).collect(),
            trained: plan.params.iter().flat_map(places).collect(),
        }
    }

    /// The module of a frozen tensor.
    pub fn of_frozen(&self, tensor: u32) -> &str {
        &self.frozen[tensor as usize]
    }

    pub fn modules(&self, schedule: &Schedule) -> Modules<'_> {
        let mut calls: Vec<Option<String>> = vec![None; schedule.calls];
        for launch in &schedule.launches {
            if let Some(module) = self.of(launch) {
                let call = &mut calls[launch.call];
                *call = Some(call.as_ref().map_or(module.clone(), |so_far| common(so_far, &module)));
            }
        }
        // What is not in a layer's call belongs to many modules or to none.
        calls[0] = None;
        Modules { owners: self, calls: calls.into_iter().map(Option::unwrap_or_default).collect() }
    }

    /// The innermost module that holds all stored tensors that the launch touches.
    fn of(&self, launch: &Launch) -> Option<String> {
        let owner = |location: &Location| match location {
            Location::Fixed(Arg::Weight { tensor, .. }) => Some(self.frozen[*tensor as usize].as_str()),
            Location::Fixed(Arg::Arena(at)) => {
                let (_, (end, module)) = self.trained.range(..=at).next_back()?;
                (at < end).then_some(module.as_str())
            }
            _ => None,
        };
        let touched = launch.operands.iter().filter_map(owner).map(String::from);
        touched.reduce(|a, b| common(&a, &b))
    }
}

impl Modules<'_> {
    /// The module of a launch; that of its call where it touches no stored tensor.
    pub fn of_launch(&self, launch: &Launch) -> String {
        self.owners.of(launch).unwrap_or_else(|| self.of_call(launch.call))
    }

    pub fn of_call(&self, call: usize) -> String {
        self.calls[call].clone()
    }
}

/// The module whose parameter a tensor is; of an adapter's matrices, the module that is adapted.
fn module_of(tensor: &str) -> String {
    let name = tensor.strip_prefix(ADAPTER).unwrap_or(tensor);
    let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
    let adapted = [".lora_A", ".lora_B"].iter().find_map(|matrix| module.strip_suffix(matrix));
    adapted.unwrap_or(module).into()
}

/// The parts that two dotted names begin with.
fn common(a: &str, b: &str) -> String {
    let same = a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b);
    same.map(|(part, _)| part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_belong_to_the_module_that_people_know() {
        assert_eq!(module_of("model.layers.3.mlp.up_proj.weight"), "model.layers.3.mlp.up_proj");
        let adapter = "base_model.model.model.layers.3.mlp.up_proj.lora_A.weight";
        assert_eq!(module_of(adapter), "model.layers.3.mlp.up_proj");
        assert_eq!(common("model.layers.3.mlp.up_proj", "model.layers.3.mlp.gate_proj"), "model.layers.3.mlp");
        assert_eq!(common("model.norm", "lm_head"), "");
    }
}
