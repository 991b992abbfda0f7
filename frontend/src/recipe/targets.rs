//! The one table of `_target_` names.
//!
//! Automodel imports whatever Python object a `_target_` names. amc knows the names that its recipes use, in the spellings of
//! their time, and says of each what it stands for here: something supported, something without effect, or something that is
//! refused with a reason. A name outside the table is an error that shows the nearest known one.
use Kind::*;
use Target::*;

/// What a target is wanted for. One kind serves every section of the same sort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Recipe,
    Model,
    ModelConfig,
    Backend,
    Tokenizer,
    Peft,
    Dataset,
    DataLoader,
    Collate,
    Loss,
    Optimizer,
    Distributed,
    /// Sections without effect here, whose targets are known all the same.
    Other,
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Finetune,
    Benchmark,
    FromPretrained,
    FromConfig,
    AutoConfig,
    AutoTokenizer,
    Lora,
    Squad,
    ColumnMapped,
    MockIterable,
    TokenFile,
    Loader,
    DefaultCollater,
    PackedCollater,
    MaskedCrossEntropy,
    FusedLinearCrossEntropy,
    Adam,
    AdamW,
    /// Known and without effect on one device.
    NoEffect,
    /// Known, and what to say instead of doing it.
    Unsupported(&'static str),
}

/// One meaning and its names; the first name is the one that messages and lock files use.
pub struct Row {
    pub kind: Kind,
    pub target: Target,
    pub names: &'static [&'static str],
}

const fn row(kind: Kind, target: Target, names: &'static [&'static str]) -> Row {
    Row { kind, target, names }
}

/// Every known name.
#[rustfmt::skip]
pub const TARGETS: &[Row] = &[
    row(Recipe, Finetune, &[
        "TrainFinetuneRecipeForNextTokenPrediction",
        "nemo_automodel.recipes.llm.train_ft.TrainFinetuneRecipeForNextTokenPrediction",
        "FinetuneRecipeForNextTokenPrediction",
    ]),
    row(Recipe, Benchmark, &[
        "BenchmarkingRecipeForNextTokenPrediction",
        "nemo_automodel.recipes.llm.benchmark.BenchmarkingRecipeForNextTokenPrediction",
    ]),
    row(Recipe, Unsupported("knowledge distillation"), &[
        "KnowledgeDistillationRecipeForNextTokenPrediction",
        "nemo_automodel.recipes.llm.kd.KnowledgeDistillationRecipeForNextTokenPrediction",
    ]),
    row(Recipe, Unsupported("sequence classification"), &[
        "TrainFinetuneRecipeForSequenceClassification",
        "nemo_automodel.recipes.llm.train_seq_cls.TrainFinetuneRecipeForSequenceClassification",
    ]),
    row(Recipe, Unsupported("vision-language models"), &[
        "FinetuneRecipeForVLM",
        "nemo_automodel.recipes.vlm.finetune.FinetuneRecipeForVLM",
    ]),
    row(Model, FromPretrained, &[
        "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
        "nemo_automodel._transformers.NeMoAutoModelForCausalLM.from_pretrained",
        "nemo_automodel._transformers.auto_model.NeMoAutoModelForCausalLM.from_pretrained",
        "NeMoAutoModelForCausalLM.from_pretrained",
    ]),
    row(Model, FromConfig, &[
        "nemo_automodel.NeMoAutoModelForCausalLM.from_config",
        "nemo_automodel._transformers.NeMoAutoModelForCausalLM.from_config",
        "nemo_automodel._transformers.auto_model.NeMoAutoModelForCausalLM.from_config",
        "NeMoAutoModelForCausalLM.from_config",
    ]),
    row(Model, Unsupported("sequence-to-sequence models"), &[
        "nemo_automodel.NeMoAutoModelForSeq2SeqLM.from_pretrained",
    ]),
    row(Model, Unsupported("image and text models"), &[
        "nemo_automodel.NeMoAutoModelForImageTextToText.from_pretrained",
    ]),
    row(ModelConfig, AutoConfig, &[
        "transformers.AutoConfig.from_pretrained",
        "transformers.models.auto.configuration_auto.AutoConfig.from_pretrained",
        "AutoConfig.from_pretrained",
    ]),
    row(ModelConfig, Unsupported("DeepSeek V4 models"), &[
        "nemo_automodel.components.models.deepseek_v4.config.DeepseekV4Config.from_pretrained",
        "nemo_automodel.components.models.deepseek_v4.config.DeepseekV4Config",
    ]),
    row(ModelConfig, Unsupported("DeepSeek V3.2 models"), &[
        "nemo_automodel.components.models.deepseek_v32.config.DeepseekV32Config.from_pretrained",
    ]),
    row(ModelConfig, Unsupported("Kimi Linear models"), &[
        "nemo_automodel.components.models.kimi_linear.config.KimiLinear48BConfig.from_pretrained",
    ]),
    row(ModelConfig, Unsupported("Qwen3 mixture-of-experts models"), &[
        "transformers.models.qwen3_moe.configuration_qwen3_moe.Qwen3MoeConfig",
    ]),
    row(ModelConfig, Unsupported("GLM-4 mixture-of-experts models"), &[
        "transformers.models.glm4_moe_lite.configuration_glm4_moe_lite.Glm4MoeLiteConfig",
    ]),
    row(ModelConfig, Unsupported("MiMo V2 Flash models"), &[
        "nemo_automodel.components.models.mimo_v2_flash.config.MiMoV2FlashConfig.from_pretrained",
    ]),
    row(Backend, NoEffect, &[
        "nemo_automodel.components.models.common.BackendConfig",
        "nemo_automodel.components.models.common.utils.BackendConfig",
        "nemo_automodel.components.models.common.utils.TEFp8Config",
    ]),
    row(Tokenizer, AutoTokenizer, &[
        "transformers.AutoTokenizer.from_pretrained",
        "nemo_automodel.NeMoAutoTokenizer.from_pretrained",
        "nemo_automodel._transformers.auto_tokenizer.NeMoAutoTokenizer.from_pretrained",
        "NeMoAutoTokenizer.from_pretrained",
        "AutoTokenizer.from_pretrained",
    ]),
    row(Peft, Lora, &[
        "nemo_automodel.components._peft.lora.PeftConfig",
        "nemo_automodel._peft.lora.PeftConfig",
        "PeftConfig",
    ]),
    row(Dataset, Squad, &[
        "nemo_automodel.components.datasets.llm.squad.make_squad_dataset",
        "nemo_automodel.components.datasets.llm.make_squad_dataset",
        "nemo_automodel.components.datasets.llm.squad.SquadConfig",
        "nemo_automodel.datasets.llm.squad.make_squad_dataset",
        "make_squad_dataset",
    ]),
    row(Dataset, ColumnMapped, &[
        "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset.ColumnMappedTextInstructionDataset",
        "nemo_automodel.components.datasets.llm.ColumnMappedTextInstructionDataset",
        "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset.ColumnMappedTextInstructionDatasetConfig",
        "ColumnMappedTextInstructionDataset",
    ]),
    row(Dataset, MockIterable, &[
        "nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDataset",
        "nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDatasetConfig",
        "MockIterableDataset",
    ]),
    row(Dataset, TokenFile, &["amc.datasets.TokenFile"]),
    row(Dataset, Unsupported("HellaSwag datasets"), &["nemo_automodel.components.datasets.llm.hellaswag.HellaSwag", "HellaSwag"]),
    row(Dataset, Unsupported("chat datasets"), &["nemo_automodel.components.datasets.llm.chat_dataset.ChatDataset", "ChatDataset"]),
    row(Dataset, Unsupported("agent chat datasets"), &["nemo_automodel.components.datasets.llm.agent_chat.make_agent_chat_dataset"]),
    row(Dataset, Unsupported("mock sentence datasets"), &[
        "nemo_automodel.components.datasets.llm.mock.build_unpacked_dataset",
        "nemo_automodel.components.datasets.llm.mock_packed.build_packed_dataset",
    ]),
    row(Dataset, Unsupported("xLAM datasets"), &["nemo_automodel.components.datasets.llm.xlam.make_xlam_dataset"]),
    row(Dataset, Unsupported("prefix-tree datasets"), &["nemo_automodel.components.datasets.llm.mock_prefix_tree.build_mock_rollout_dataset"]),
    row(Dataset, Unsupported("sequence-to-sequence datasets"), &["nemo_automodel.components.datasets.llm.seq2seq.make_seq2seq_dataset"]),
    row(Dataset, Unsupported("streamed column-mapped datasets"), &[
        "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_iterable_dataset.ColumnMappedTextInstructionIterableDataset",
    ]),
    row(Dataset, Unsupported("pre-training datasets"), &["nemo_automodel.components.datasets.llm.nanogpt_dataset.NanogptDataset"]),
    row(DataLoader, Loader, &[
        "torchdata.stateful_dataloader.StatefulDataLoader",
        "torch.utils.data.DataLoader",
        "StatefulDataLoader",
    ]),
    row(Collate, DefaultCollater, &["nemo_automodel.components.datasets.utils.default_collater", "default_collater"]),
    row(Collate, PackedCollater, &[
        "nemo_automodel.components.datasets.utils.packed_sequence_thd_collater",
        "packed_sequence_thd_collater",
    ]),
    row(Collate, Unsupported("prefix-tree collation"), &["nemo_automodel.components.datasets.llm.prefix_tree.prefix_tree_collate_fn"]),
    row(Loss, MaskedCrossEntropy, &[
        "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy",
        "nemo_automodel.components.loss.masked_ce.masked_cross_entropy",
        "nemo_automodel.components.loss.chunked_ce.ChunkedCrossEntropy",
        "nemo_automodel.components.loss.te_parallel_ce.TEParallelCrossEntropy",
        "MaskedCrossEntropy",
    ]),
    row(Loss, FusedLinearCrossEntropy, &[
        "nemo_automodel.components.loss.linear_ce.FusedLinearCrossEntropy",
        "FusedLinearCrossEntropy",
    ]),
    row(Loss, Unsupported("the distillation loss"), &["nemo_automodel.components.loss.kd_loss.KDLoss"]),
    row(Optimizer, Adam, &["torch.optim.Adam", "torch.optim.adam.Adam", "adam"]),
    row(Optimizer, AdamW, &["torch.optim.AdamW", "torch.optim.adamw.AdamW", "adamw"]),
    row(Optimizer, Unsupported("the optimizer FlashAdamW"), &["flashoptim.FlashAdamW", "flash_adamw"]),
    row(Optimizer, Unsupported("Transformer Engine's FusedAdam"), &[
        "transformer_engine.pytorch.optimizers.FusedAdam",
        "transformer_engine.pytorch.optimizers.fused_adam.FusedAdam",
        "fused_adam",
    ]),
    row(Optimizer, Unsupported("the optimizer Muon"), &["dion.Muon", "muon", "normuon"]),
    row(Optimizer, Unsupported("the optimizer Dion"), &["dion.Dion", "dion", "dion2"]),
    row(Distributed, NoEffect, &[
        "nemo_automodel.components.distributed.fsdp2.FSDP2Manager",
        "nemo_automodel.components.distributed.ddp.DDPManager",
        "nemo_automodel.components.distributed.megatron_fsdp.MegatronFSDPManager",
        "nemo_automodel.components.distributed.nvfsdp.NVFSDPManager",
    ]),
    row(Other, NoEffect, &[
        "nemo_automodel.components.distributed.config.FSDP2Config",
        "nemo_automodel.components.distributed.pipelining.AutoPipeline",
        "nemo_automodel.components.distributed.pipelining.config.PipelineConfig",
        "nemo_automodel.components.moe.parallelizer.parallelize_model",
        "nemo_automodel.components.training.rng.StatefulRNG",
        "torch.distributed.fsdp.MixedPrecisionPolicy",
    ]),
    row(Other, Unsupported("quantisation-aware training"), &["nemo_automodel.components.quantization.qat.QATConfig"]),
    row(Other, Unsupported("tool-call evaluation"), &["nemo_automodel.components.eval.tool_call_evaluator.ToolCallAccuracyEvaluator"]),
];

/// The meaning of `name` where a target of this kind is wanted.
pub fn find(kind: Kind, name: &str) -> Option<Target> {
    TARGETS.iter().find(|row| row.kind == kind && row.names.contains(&name)).map(|row| row.target)
}

/// The name under which `target` is written.
pub fn name_of(target: Target) -> &'static str {
    TARGETS.iter().find(|row| row.target == target).map_or("", |row| row.names[0])
}

/// The first names of everything supported of this kind.
pub fn supported(kind: Kind) -> Vec<&'static str> {
    let works = |row: &&Row| row.kind == kind && !matches!(row.target, Unsupported(_));
    TARGETS.iter().filter(works).map(|row| row.names[0]).collect()
}

/// The known name of this kind that a misspelt one was probably meant to be, judged by its last part where the whole is far off.
pub fn nearest_name(kind: Kind, name: &str) -> Option<&'static str> {
    let names = || TARGETS.iter().filter(|row| row.kind == kind).flat_map(|row| row.names.iter().copied());
    let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
    let wanted = name.rsplit('.').next().unwrap_or(name);
    crate::diagnostic::nearest(name, names()).or_else(|| {
        let near = crate::diagnostic::nearest(wanted, names().map(last))?;
        names().find(|name| last(name) == near)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The kind of target that a section of a recipe wants.
    fn kind_of(section: &str) -> Kind {
        match section {
            "recipe" => Recipe,
            "model" => Model,
            "model.config" => ModelConfig,
            "model.backend" | "model.backend.te_fp8" => Backend,
            "peft" => Peft,
            "loss_fn" => Loss,
            "optimizer" => Optimizer,
            "distributed" => Distributed,
            _ if section.ends_with("tokenizer") => Tokenizer,
            _ if section.ends_with("collate_fn") => Collate,
            _ if section.ends_with("dataloader") => DataLoader,
            _ if section.ends_with("dataset") => Dataset,
            _ => Other,
        }
    }

    /// All pairs of section and target in Automodel's own recipes.
    #[test]
    fn covers_every_known_pair() {
        let pairs = include_str!("../../tests/recipes/targets.tsv").lines().filter(|row| !row.starts_with('#'));
        let mut count = 0;
        for row in pairs {
            let (section, name) = row.split_once('\t').unwrap();
            assert!(find(kind_of(section), name).is_some(), "{section}: {name}");
            count += 1;
        }
        assert_eq!(count, 68);
    }

    #[test]
    fn no_name_means_two_things() {
        let mut seen = HashSet::new();
        for row in TARGETS {
            assert!(!row.names.is_empty());
            for name in row.names {
                assert!(seen.insert((row.kind as u8, name)), "{name} stands twice");
            }
        }
    }

    #[test]
    fn nearest_by_last_part() {
        let name = nearest_name(Optimizer, "torch.optim.AdamX").unwrap();
        assert!(name.starts_with("torch.optim.Adam"), "{name}");
        let name = nearest_name(Loss, "a.module.of.my.own.MaskedCrossEntropi").unwrap();
        assert!(name.ends_with(".MaskedCrossEntropy"), "{name}");
        assert_eq!(nearest_name(Loss, "wholly.different"), None);
    }
}
