//! What a model that has a config but no checkpoint begins with: as transformers makes one of `from_config`
//! (`PreTrainedModel._init_weights` in `modeling_utils.py`).
//!
//! Linear layers and the embedding are normal with standard deviation `initializer_range`, but for the row of the padding,
//! which is zero; biases are zero; norms pass on what they normalise, so their weights are ones, or zeros where one is added.
use crate::arch::Gain;
use crate::config::Config;
use crate::model::Model;
use crate::names::Names;
use amc_artifact::Init;
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// The standard deviation where a config names none, as in transformers' own configs.
const DEVIATION: f64 = 0.02;

/// The first value of each tensor of the model's checkpoint, if it had one.
///
/// # Errors
/// A deviation that is no positive number.
pub fn values(model: &Model, config: &Config) -> Result<BTreeMap<String, Init>> {
    let (root, key) = (config.root(), "initializer_range");
    let deviation = root.number(key)?.unwrap_or(DEVIATION);
    ensure!(deviation > 0.0 && deviation.is_finite(), "{} is {deviation}; wanted more than 0", root.name(key));
    let names = Names::new(model);
    let normal = |zero_row| Init::Normal { deviation: deviation as f32, zero_row };
    let norms: BTreeSet<&str> = names.norms().filter_map(|norm| Some(norm.weight.as_ref()?.tensor.as_str())).collect();
    let value = |(name, shape): (String, Vec<usize>)| {
        let init = match shape.len() {
            1 if name.ends_with(".bias") => Init::Zeros,
            _ if norms.contains(name.as_str()) => of_norm(model.final_norm.gain),
            _ if name == names.embed.tensor => normal(model.padding.map(|row| row as u64)),
            _ => normal(None),
        };
        (name, init)
    };
    Ok(names.tensors().into_iter().map(value).collect())
}

/// All norms of a model have one form.
fn of_norm(gain: Gain) -> Init {
    match gain {
        Gain::Weight | Gain::No => Init::Ones,
        Gain::OnePlusWeight => Init::Zeros,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = include_str!("../../tests/oracle/llama/config.json");

    #[test]
    fn each_kind_of_tensor_has_its_own() {
        let mut config = Config::parse(LLAMA, "config.json").unwrap();
        config.replace("pad_token_id", 3.into());
        config.replace("attention_bias", true.into());
        let values = values(&Model::read(&config).unwrap(), &config).unwrap();
        let normal = |zero_row| Init::Normal { deviation: 0.02, zero_row };
        assert_eq!(values["model.embed_tokens.weight"], normal(Some(3)));
        assert_eq!(values["lm_head.weight"], normal(None));
        assert_eq!(values["model.layers.1.mlp.up_proj.weight"], normal(None));
        assert_eq!(values["model.layers.1.self_attn.q_proj.bias"], Init::Zeros);
        assert_eq!(values["model.layers.1.input_layernorm.weight"], Init::Ones);
        let gemma = include_str!("../../tests/oracle/gemma/config.json");
        let gemma = Config::parse(gemma, "config.json").unwrap();
        let of_gemma = super::values(&Model::read(&gemma).unwrap(), &gemma).unwrap();
        assert_eq!(of_gemma["model.norm.weight"], Init::Zeros);
        let cohere = include_str!("../../tests/oracle/cohere__qknorm/config.json");
        let cohere = Config::parse(cohere, "config.json").unwrap();
        let of_cohere = super::values(&Model::read(&cohere).unwrap(), &cohere).unwrap();
        assert_eq!(of_cohere["model.layers.0.self_attn.k_norm.weight"], Init::Ones, "a matrix, but of a norm");
        config.replace("initializer_range", 0.into());
        let said = super::values(&Model::read(&config).unwrap(), &config).unwrap_err().to_string();
        assert!(said.contains("is 0; wanted more than 0"), "{said}");
    }
}
