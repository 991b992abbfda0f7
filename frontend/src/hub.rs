//! Where models and datasets come from: a local folder, the Hugging Face cache, or the Hub, in this order.
//!
//! What is in the cache is taken as it is; the Hub is asked only for what is missing. `HF_HOME`, `HF_HUB_CACHE`,
//! `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean to Hugging Face's own tools.
mod cache;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::safetensors::{is_pickle, refuse_pickle};
use anyhow::{Context, Result, anyhow, bail, ensure};
pub(crate) use cache::files as local_files;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};

/// Files of a model that are ever read, by how their names end.
const MODEL_FILES: [&str; 5] = [".json", ".safetensors", ".jinja", ".model", ".txt"];
/// Where the Hub keeps the Parquet files that it makes of a dataset in any other form.
const CONVERTED: &str = "refs/convert/parquet";

/// What of a model must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// `config.json`.
    Config,
    /// `tokenizer.json`.
    Tokenizer,
    /// `config.json` and every safetensors file.
    Weights,
}

/// Access to models and datasets by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hub {
    /// The folder that holds `models--ORG--NAME` and `datasets--ORG--NAME`.
    pub cache: PathBuf,
    /// Never ask the network.
    pub offline: bool,
    /// Another address of the Hub than its own.
    pub endpoint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Model,
    Dataset,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Dataset => "dataset",
        }
    }
}

impl Hub {
    /// The cache and the mode that the environment asks for.
    pub fn from_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let offline =
            set("HF_HUB_OFFLINE").is_some_and(|v| matches!(v.to_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        Hub { cache: cache::folder(&set), offline, endpoint: set("HF_ENDPOINT") }
    }

    /// The folder of a model: `name` itself where that is a folder, else a snapshot of the Hub's model of that name.
    ///
    /// # Errors
    /// A name that is neither a folder nor of the form `organisation/name`; a model that is not cached where the Hub
    /// cannot be reached, or does not have it.
    pub fn model(&self, name: &str, revision: Option<&str>, need: Need) -> Result<PathBuf> {
        let local = Path::new(name);
        if local.is_dir() {
            return Ok(local.to_path_buf());
        }
        self.check_name(Kind::Model, name)?;
        if let Some(snapshot) = self.snapshot(Kind::Model, name, revision)
            && cache::holds(&snapshot, need)
        {
            return Ok(snapshot);
        }
        let api = self.api(Kind::Model, name)?;
        let repository = api.repo(Repo::with_revision(name.into(), RepoType::Model, revision.unwrap_or("main").into()));
        let unreachable = |error| self.unreachable(Kind::Model, name, &error);
        let mut files = file_names(&repository).map_err(unreachable)?;
        files.retain(|file| !file.contains('/'));
        if need == Need::Weights
            && !files.iter().any(|file| file.ends_with(".safetensors"))
            && let Some(pickle) = files.iter().find(|file| is_pickle(file))
        {
            bail!("model {name}: {}", refuse_pickle(pickle, &name));
        }
        files.retain(|file| MODEL_FILES.iter().any(|end| file.ends_with(end)));
        let files: Result<Vec<PathBuf>, _> = files.iter().map(|file| repository.get(file)).collect();
        let files = files.map_err(unreachable)?;
        let folder = files.first().and_then(|file| file.parent());
        Ok(folder.with_context(|| format!("model {name}: there are no files in it that amc reads"))?.to_path_buf())
    }

    /// Files of a dataset of the Hub. `choose` gets the paths of the files in the repository and says which are wanted.
    ///
    /// # Errors
    /// As for [`Hub::model`]; or what `choose` refuses.
    pub fn dataset(&self, name: &str, choose: &dyn Fn(&[String]) -> Result<Vec<String>>) -> Result<Vec<PathBuf>> {
        let name = if name.contains('/') { name.to_string() } else { canonical(name) };
        self.check_name(Kind::Dataset, &name)?;
        for revision in [None, Some(CONVERTED)] {
            if let Some(files) = self.cached_dataset(&name, revision, choose) {
                return Ok(files);
            }
        }
        let api = self.api(Kind::Dataset, &name)?;
        let mut refused = None;
        for revision in ["main", CONVERTED] {
            let repository = api.repo(Repo::with_revision(name.clone(), RepoType::Dataset, revision.into()));
            let paths = match file_names(&repository) {
                Ok(paths) => paths,
                Err(_) if refused.is_some() => break,
                Err(error) => return Err(self.unreachable(Kind::Dataset, &name, &error)),
            };
            match choose(&paths) {
                Ok(chosen) => {
                    let files: Result<Vec<PathBuf>, _> = chosen.iter().map(|path| repository.get(path)).collect();
                    return files.map_err(|error| self.unreachable(Kind::Dataset, &name, &error));
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| anyhow!("no files")).context(format!("dataset {name}")))
    }

    fn cached_dataset(
        &self,
        name: &str,
        revision: Option<&str>,
        choose: &dyn Fn(&[String]) -> Result<Vec<String>>,
    ) -> Option<Vec<PathBuf>> {
        let snapshot = self.snapshot(Kind::Dataset, name, revision)?;
        let chosen = choose(&cache::files(&snapshot)).ok()?;
        cache::is_complete(&chosen).then(|| chosen.iter().map(|path| snapshot.join(path)).collect())
    }

    fn snapshot(&self, kind: Kind, name: &str, revision: Option<&str>) -> Option<PathBuf> {
        let folder = self.cache.join(format!("{}s--{}", kind.name(), name.replace('/', "--")));
        cache::snapshot(&folder, revision.unwrap_or("main"))
    }

    fn check_name(&self, kind: Kind, name: &str) -> Result<()> {
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let is_id = name.split_once('/').is_some_and(|(owner, repository)| part(owner) && part(repository));
        ensure!(
            is_id,
            "{} {name:?}: no such folder or file, and not a name on the Hub, which is `organisation/name`",
            kind.name()
        );
        Ok(())
    }

    fn api(&self, kind: Kind, name: &str) -> Result<Api> {
        if self.offline {
            bail!("{}\nHF_HUB_OFFLINE is set, so the Hub is not asked", self.missing(kind, name));
        }
        let mut builder = ApiBuilder::from_env().with_retries(2).with_progress(std::io::stderr().is_terminal());
        if let Ok(token) = std::env::var("HF_TOKEN")
            && !token.is_empty()
        {
            builder = builder.with_token(Some(token));
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        builder.with_cache_dir(self.cache.clone()).build().context("setting up access to the Hugging Face Hub")
    }

    fn missing(&self, kind: Kind, name: &str) -> String {
        format!("{} {name}: not a local path, and not (all of it) in the cache {}", kind.name(), self.cache.display())
    }

    fn unreachable(&self, kind: Kind, name: &str, error: &ApiError) -> anyhow::Error {
        let (kind_name, flag) = match kind {
            Kind::Model => ("model", ""),
            Kind::Dataset => ("dataset", " --repo-type dataset"),
        };
        anyhow!(
            "{}\nthe Hub could not serve it: {error}\nthree ways on: give the path of a local copy; fill the cache where \
             there is a network (`hf download {name}{flag}`; HF_HOME or HF_HUB_CACHE say where it lies); or, where access \
             to this {kind_name} is restricted, set HF_TOKEN",
            self.missing(kind, name)
        )
    }
}

/// The files of a repository of the Hub, but for those whose names would lead out of its folder.
fn file_names(repository: &ApiRepo) -> Result<Vec<String>, ApiError> {
    let inside =
        |name: &String| Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    Ok(repository.info()?.siblings.into_iter().map(|file| file.rfilename).filter(inside).collect())
}

/// Datasets from before names had an organisation.
fn canonical(name: &str) -> String {
    match name {
        "squad" | "squad_v2" => format!("rajpurkar/{name}"),
        _ => name.to_string(),
    }
}

#[cfg(test)]
mod tests;
