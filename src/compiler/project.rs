//! A recipe with all it names read: model, tokenizer, data, shapes. Everything short of graphs and code.
use super::adapter::Adapter;
use super::model::{self, LoadedModel};
use amc_artifact::Sampler;
use amc_frontend::build::{Dropout, Lora};
use amc_frontend::data::{self, MOST_SHAPES, Preparation, Prepared, ShapeSet};
use amc_frontend::hub::{Hub, Need};
use amc_frontend::names::Names;
use amc_frontend::recipe::{
    self, Collate, DataLoader, Dataset, DropoutPosition, LoraInit, ModelSource, PackedSequence, Places, Recipe,
    TorchDtype,
};
use amc_frontend::tokenizer::{Tokenizer, TokenizerOptions};
use amc_ir::{DType, Init};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

/// A dataset with the order and the shapes in which it is gone through.
pub struct Data {
    pub name: String,
    pub prepared: Prepared,
    pub sampler: Sampler,
    pub shapes: ShapeSet,
}

/// Everything that a recipe names.
pub struct Project {
    pub recipe: Recipe,
    /// The recipe's text as it was read.
    pub text: String,
    pub model: LoadedModel,
    /// The model by the recipe's name for it.
    pub model_name: String,
    /// Where the data needs one.
    pub tokenizer: Option<Tokenizer>,
    pub tokenizer_folder: PathBuf,
    pub lora: Option<Lora>,
    pub train: Data,
    pub validation: Vec<Data>,
    /// Where the keys of the recipe stand.
    pub places: Places,
}

/// Most tokens of a microbatch: beyond that, kernels would have more tasks than they can count.
const MOST_TOKENS: usize = 1 << 24;

/// Reads a recipe with overrides; warnings go to standard error.
///
/// # Errors
/// All mistakes of the recipe in one message, each with its place.
pub fn read_recipe(path: &Path, overrides: &[String]) -> Result<(Recipe, String)> {
    let environment = |name: &str| std::env::var(name).ok();
    match recipe::load(path, overrides, &environment) {
        Ok((recipe, warnings)) => {
            warnings.iter().for_each(|warning| eprintln!("{}", warning.render()));
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((recipe, text))
        }
        Err(diagnostics) => {
            let all: Vec<String> = diagnostics.iter().map(|d| d.render()).collect();
            bail!("{} cannot be used\n{}", path.display(), all.join("\n\n"))
        }
    }
}

impl Project {
    /// Reads the recipe at `path` and everything that it names.
    ///
    /// # Errors
    /// The first thing that is missing, broken, or does not fit.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Project> {
        let (recipe, text) = read_recipe(path, overrides)?;
        let places = Places::new(&path.display().to_string(), &text, overrides);
        let hub = Hub::from_environment();
        let (model, model_name) = read_model(&recipe, &hub, &places)?;
        let tokenizer_folder = tokenizer_folder(&recipe, &hub, &model, &places)?;
        let tokenizer = read_tokenizer(&recipe, &tokenizer_folder, &places)?;
        let lora = recipe.peft.as_ref().map(|peft| lora(peft, &model)).transpose();
        let lora = lora.with_context(|| places.of(&["peft", "target_modules"]))?;
        check_adapter(&recipe, &model, lora.as_ref()).with_context(|| places.of(&["amc", "initial_adapter"]))?;
        let shards = amc_artifact::shard_folder();
        let tokenizer_used = tokenizer.as_ref();
        let reader =
            DataReader { recipe: &recipe, tokenizer: tokenizer_used, hub: &hub, shards: &shards, places: &places };
        let train = reader.train()?;
        let validation = reader.validation()?;
        let project =
            Project { recipe, text, model, model_name, tokenizer, tokenizer_folder, lora, train, validation, places };
        project.check_vocabulary()?;
        Ok(project)
    }

    fn check_vocabulary(&self) -> Result<()> {
        let vocab = self.model.model.vocab as u64;
        for data in self.validation.iter().chain([&self.train]) {
            let wanted = data.prepared.shard.summary().vocabulary;
            ensure!(
                wanted <= vocab,
                "the data of `{}` holds token {}, the model's vocabulary has {vocab}: the tokenizer is not this model's",
                data.name,
                wanted - 1
            );
        }
        Ok(())
    }
}

fn dtype(dtype: TorchDtype) -> Option<DType> {
    match dtype {
        TorchDtype::Auto => None,
        TorchDtype::Float32 => Some(DType::F32),
        TorchDtype::Bfloat16 => Some(DType::Bf16),
    }
}

fn read_model(recipe: &Recipe, hub: &Hub, places: &Places) -> Result<(LoadedModel, String)> {
    let (name, pretrained, key) = match &recipe.model.source {
        ModelSource::Pretrained { name_or_path } => (name_or_path, true, "pretrained_model_name_or_path"),
        ModelSource::Config { name_or_path } => (name_or_path, false, "config"),
    };
    let place = || places.of(&["model", key]);
    let local = Path::new(name);
    let folder = match local.is_file() {
        true if pretrained => bail!("{}: {name} is a file, wanted the folder of a model", place()),
        true => local.to_path_buf(),
        false => {
            let need = if pretrained { Need::Weights } else { Need::Config };
            hub.model(name, recipe.model.revision.as_deref(), need).with_context(place)?
        }
    };
    if recipe.model.revision.is_some() && local.exists() {
        eprintln!("warning: {} is ignored: {name} is a folder here", places.of(&["model", "revision"]));
    }
    let model = model::load(&folder, &recipe.model.config_overrides, dtype(recipe.model.torch_dtype), pretrained)
        .with_context(place)?;
    for key in model.config.unread() {
        eprintln!("warning: {}: `{key}` is not used", folder.join("config.json").display());
    }
    Ok((model, name.clone()))
}

/// The folder of the recipe's tokenizer, else of the model, whether it is needed or not: checkpoints carry its files.
fn tokenizer_folder(recipe: &Recipe, hub: &Hub, model: &LoadedModel, places: &Places) -> Result<PathBuf> {
    Ok(match recipe.tokenizer.as_ref().and_then(|c| c.pretrained_model_name_or_path.as_deref()) {
        Some(name) => hub
            .model(name, None, Need::Tokenizer)
            .with_context(|| places.of(&["dataset", "tokenizer", "pretrained_model_name_or_path"]))?,
        None if model.folder.is_file() => model.folder.parent().unwrap_or(Path::new(".")).to_path_buf(),
        None => model.folder.clone(),
    })
}

/// The tokenizer, where a dataset has text.
fn read_tokenizer(recipe: &Recipe, folder: &Path, places: &Places) -> Result<Option<Tokenizer>> {
    let all = recipe.validation_datasets.iter().map(|set| &set.dataset).chain([&recipe.dataset]);
    if !all.into_iter().any(|dataset| matches!(dataset, Dataset::Squad(_) | Dataset::ColumnMapped(_))) {
        return Ok(None);
    }
    let config = recipe.tokenizer.as_ref();
    let options = TokenizerOptions {
        add_bos_token: config.and_then(|c| c.add_bos_token).unwrap_or(false),
        add_eos_token: config.and_then(|c| c.add_eos_token).unwrap_or(false),
    };
    let tokenizer = Tokenizer::load(folder, &options).with_context(|| match config {
        Some(_) => places.of(&["dataset", "tokenizer"]),
        None => format!("{}: its tokenizer", places.of(&["model", "pretrained_model_name_or_path"])),
    });
    tokenizer.map(Some)
}

/// Whether `amc.initial_adapter` is an adapter such as the recipe trains.
fn check_adapter(recipe: &Recipe, model: &LoadedModel, lora: Option<&Lora>) -> Result<()> {
    let Some(dir) = &recipe.amc.initial_adapter else { return Ok(()) };
    let lora = lora.context("the recipe has no `peft` section, so it trains no adapter")?;
    let found = Adapter::read(Path::new(dir), model)?.lora;
    ensure!(found.rank == lora.rank, "{dir} has rank {}, `peft.dim` is {}", found.rank, lora.rank);
    if let Some(other) = found.modules.symmetric_difference(&lora.modules).next() {
        bail!(
            "{dir} adapts {} modules, `peft` {}; `{other}` is one of them alone",
            found.modules.len(),
            lora.modules.len()
        );
    }
    Ok(())
}

fn lora(peft: &recipe::PeftConfig, model: &LoadedModel) -> Result<Lora> {
    let matcher = peft.matcher();
    let modules = Names::new(&model.model).modules();
    let names = || modules.iter().map(|module| module.name.clone());
    let matched = names().filter(|name| matcher.matches(name, true)).collect::<std::collections::BTreeSet<_>>();
    ensure!(
        !matched.is_empty(),
        "no linear module matches; the model's are {} and so on",
        names().take(7).collect::<Vec<_>>().join(", ")
    );
    Ok(Lora {
        modules: matched,
        rank: peft.dim as usize,
        scale: (peft.alpha / peft.dim as f64) as f32,
        init: match peft.lora_a_init {
            LoraInit::Xavier => Init::XavierNormal,
            LoraInit::Kaiming => Init::KaimingUniform,
        },
        dtype: Some(peft.lora_dtype.and_then(dtype).unwrap_or(model.compute)),
        dropout: (peft.dropout > 0.0)
            .then(|| Dropout { p: peft.dropout as f32, on_input: peft.dropout_position == DropoutPosition::Pre }),
    })
}

/// The key that says where a dataset comes from.
fn path_key(dataset: &Dataset) -> &'static str {
    match dataset {
        Dataset::Squad(_) => "dataset_name",
        Dataset::ColumnMapped(_) => "path_or_dataset_id",
        Dataset::TokenFile(_) => "path",
        Dataset::MockIterable(_) => "_target_",
    }
}

struct DataReader<'a> {
    recipe: &'a Recipe,
    tokenizer: Option<&'a Tokenizer>,
    hub: &'a Hub,
    shards: &'a Path,
    places: &'a Places,
}

impl DataReader<'_> {
    fn train(&self) -> Result<Data> {
        let packed = self.recipe.packed_sequence.as_ref();
        let rows = self.recipe.rows_per_microbatch();
        let steps = &self.recipe.step_scheduler;
        let accumulation = (steps.global_batch_size / steps.local_batch_size.max(1)).max(1);
        let loader = &self.recipe.dataloader;
        let place = self.places.of(&["dataset", path_key(&self.recipe.dataset)]);
        self.read("dataset", &self.recipe.dataset, packed, loader, rows, accumulation).context(place)
    }

    fn validation(&self) -> Result<Vec<Data>> {
        let loader = &self.recipe.validation_dataloader;
        let rows = loader.batch_size.unwrap_or(1);
        let sets = self.recipe.validation_datasets.iter();
        sets.map(|set| {
            let rows = if let Dataset::MockIterable(mock) = &set.dataset { rows * mock.batch_size } else { rows };
            let place = || self.places.of_validation(&set.name, path_key(&set.dataset));
            let data = self.read(&set.name, &set.dataset, None, loader, rows, 1).with_context(place)?;
            if data.sampler.rows_per_rank() < data.sampler.rows {
                let key = self.places.of(&["validation_dataloader", "drop_last"]);
                eprintln!(
                    "warning: {key} is ignored: all {} rows of `{}` are validated on",
                    data.sampler.rows, set.name
                );
            }
            Ok(data)
        })
        .collect()
    }

    fn read(
        &self,
        name: &str,
        dataset: &Dataset,
        packed: Option<&PackedSequence>,
        loader: &DataLoader,
        rows: u64,
        accumulation: u64,
    ) -> Result<Data> {
        let how = Preparation {
            dialect: self.recipe.dialect,
            seed: self.recipe.seed,
            tokenizer: self.tokenizer,
            packed,
            inherited_template: data::template_of(&self.recipe.dataset),
            hub: self.hub,
            shards: self.shards,
        };
        let prepared = data::prepare(dataset, &how)?;
        let all = u32::try_from(prepared.shard.summary().rows).context("more than 2^32 rows")?;
        let local_batch_size =
            u32::try_from(rows).with_context(|| format!("a microbatch of {rows} rows is too large"))?;
        let kept = if loader.drop_last { all / local_batch_size * local_batch_size } else { all };
        ensure!(kept > 0, "{all} rows make no batch of {local_batch_size} with drop_last");
        // A microbatch larger than the data is all of the data.
        let local_batch_size = local_batch_size.min(all.max(1));
        let mock = matches!(dataset, Dataset::MockIterable(_));
        let sampler = Sampler {
            rows: all,
            shuffle: loader.shuffle && !mock,
            seed: self.recipe.seed,
            replicas: 1,
            rank: 0,
            local_batch_size,
            accumulation: u32::try_from(accumulation).context("microbatches of a step")?,
            drop_last: loader.drop_last,
        };
        let multiple_of = match loader.collate {
            Collate::Padded { multiple_of } => multiple_of as usize,
            Collate::Packed => 1,
        };
        let epochs = self.recipe.step_scheduler.num_epochs.unwrap_or(1);
        let shapes = ShapeSet::solve(&prepared.shard, &sampler, epochs, multiple_of, MOST_SHAPES)?;
        let longest = shapes.lengths.last().copied().unwrap_or(0);
        ensure!(
            shapes.batch.saturating_mul(longest) <= MOST_TOKENS,
            "a microbatch of {} rows of {longest} tokens: amc takes at most {MOST_TOKENS} tokens; lower \
             step_scheduler.local_batch_size, or shorten the rows",
            shapes.batch
        );
        Ok(Data { name: name.into(), prepared, sampler, shapes })
    }
}
