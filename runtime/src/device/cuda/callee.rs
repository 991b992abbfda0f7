//! What a launch has the GPU do: a kernel of ours, or a product of the vendor's library.
use super::cublaslt::{Handle, Library};
use super::driver::{Context, Gpu, Said};
use super::module::{Kernel, Module};
use super::product::Product;
use super::stream::Stream;
use super::tensor_map;
use amc_artifact::{Block, Code, Plan};
use anyhow::{Context as _, Result, bail};
use cudarc::driver::sys;
use std::fmt::Display;
use std::rc::Rc;

/// What launches of one kernel of the plan run.
pub enum Callee {
    Kernel(Kernel),
    Product(Product),
}

/// What a launch is given for an operand, or for an array of them; it is copied into the launch, or into the graph that holds
/// it.
pub enum Argument {
    Address(u64),
    Map(Box<sys::CUtensorMap>),
    Addresses(Box<[u64]>),
    Maps(Box<[sys::CUtensorMap]>),
}

/// The library that the plan's products want, if it has such.
///
/// # Errors
/// It is not there.
pub fn library(plan: &Plan, gpu: &Gpu) -> Result<Option<Library>> {
    let wanted = plan.kernels.iter().any(|kernel| kernel.vendor_product().is_some());
    wanted.then(|| Library::open(gpu)).transpose()
}

/// Everything that the plan's launches run; `library` is the one that it wants.
///
/// # Errors
/// A kernel that is a CPU's or missing, a driver that cannot make the maps that kernels want, a product that the library cannot
/// compute.
pub fn find_all(plan: &Plan, module: &Module, library: Option<Library>, context: &Context) -> Result<Vec<Callee>> {
    let wants_maps = |kernel: &amc_artifact::Kernel| matches!(&kernel.code, Code::Gpu(block) if !block.maps.is_empty());
    if plan.kernels.iter().any(wants_maps) {
        tensor_map::ensure_driver_encodes()?;
    }
    let handle = library.map(|library| Handle::new(library, context).map(Rc::new)).transpose()?;
    let find = |(index, kernel): (usize, &amc_artifact::Kernel)| match (&kernel.code, &handle) {
        (Code::Gpu(block), _) => Ok(Callee::Kernel(module.kernel(&kernel.symbol, block)?)),
        (Code::Vendor(product), Some(handle)) => {
            let product = Product::new(handle, &kernel.symbol, product);
            Ok(Callee::Product(product.with_context(|| first_launch(plan, index))?))
        }
        _ => bail!("kernel `{}` of the plan has no block of threads: it is a CPU's", kernel.symbol),
    };
    plan.kernels.iter().enumerate().map(find).collect()
}

/// The first launch of a kernel, in words.
fn first_launch(plan: &Plan, kernel: usize) -> String {
    let symbol = &plan.kernels[kernel].symbol;
    let launches =
        plan.programs.iter().flat_map(|program| program.launches.iter().enumerate().map(move |it| (program, it)));
    let mut of_it = launches.filter(|(_, (_, launch))| launch.kernel as usize == kernel);
    match of_it.next() {
        None => format!("product `{symbol}`, which is never launched"),
        Some((program, (number, launch))) => {
            format!(
                "product `{symbol}`, launch {number} of program `{}`, which computes `{}`",
                program.name, launch.label
            )
        }
    }
}

/// The parameters of a kernel whose operands are at these addresses.
fn arguments_of(block: &Block, addresses: &[u64]) -> Result<Box<[Argument]>> {
    let mut arguments = vec![];
    let mut rest = addresses;
    while let [address, ..] = rest {
        let operand = addresses.len() - rest.len();
        let (map, array) = (block.map(operand), block.array(operand));
        let count = array.map_or(1, |array| (array.end() as usize - operand).min(rest.len()));
        let (own, others) = rest.split_at(count.max(1));
        arguments.push(match (map, array) {
            (None, None) => Argument::Address(*address),
            (None, Some(_)) => Argument::Addresses(own.into()),
            (Some(map), None) => Argument::Map(Box::new(tensor_map::encoded(map, *address)?)),
            (Some(map), Some(_)) => {
                Argument::Maps(own.iter().map(|address| tensor_map::encoded(map, *address)).collect::<Result<_>>()?)
            }
        });
        rest = others;
    }
    Ok(arguments.into())
}

impl Callee {
    pub fn symbol(&self) -> &str {
        match self {
            Callee::Kernel(kernel) => &kernel.symbol,
            Callee::Product(product) => &product.symbol,
        }
    }

    /// What it gets for operands at these addresses.
    ///
    /// # Errors
    /// What the driver says of a tensor map.
    pub fn arguments(&self, addresses: &[u64]) -> Result<Box<[Argument]>> {
        match self {
            Callee::Kernel(kernel) => arguments_of(kernel.block(), addresses),
            Callee::Product(_) => Ok(addresses.iter().map(|address| Argument::Address(*address)).collect()),
        }
    }

    /// Puts a launch of `tasks` tasks into the stream; `failed` says what has, if it did.
    ///
    /// # Safety
    /// Module and library live; `args` are what the plan gives to the launch, of memory that it may use as the plan says and
    /// that lives until the launch, or a graph of it, is done with.
    pub unsafe fn launch(&self, stream: &Stream, tasks: u32, args: &[Argument], failed: impl Display) -> Result<()> {
        match self {
            // SAFETY: the caller's promise.
            Callee::Kernel(kernel) => unsafe { kernel.launch(stream, tasks, args) }.said(failed),
            Callee::Product(product) => {
                let address = |arg: &Argument| match arg {
                    Argument::Address(address) => Ok(*address),
                    _ => bail!("a tensor map or an array for a product"),
                };
                let addresses = args.iter().map(address).collect::<Result<Vec<u64>>>()?;
                // SAFETY: the caller's promise.
                unsafe { product.launch(stream, &addresses) }.with_context(|| failed.to_string())
            }
        }
    }
}
