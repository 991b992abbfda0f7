//! Runs a GPU's kernels in the interpreter, or on the GPU that there is ([`crate::device`]).
use crate::device::OnDevice;
use amc_codegen::ptx;
use amc_kernels::emit::Elem;
use amc_kernels::gpu::tensor_map::TensorMap;
use amc_kernels::{Code, Geometry, Gpu, Kernel};
use amc_ptx::{Argument, Device, Launch, Mode, Swizzle, TensorElement};
use std::ops::Range;
use std::path::PathBuf;

/// A module of PTX.
pub struct Interpreted {
    kernels: Vec<amc_ptx::Kernel>,
    device: Option<OnDevice>,
}

impl Interpreted {
    pub fn load(kernels: &[&Kernel]) -> Interpreted {
        let kernels: Vec<Kernel> = kernels.iter().map(|kernel| (*kernel).clone()).collect();
        let by_warpgroups = |kernel: &Kernel| kernel.text().is_some_and(|text| text.contains("wgmma"));
        let hopper = kernels.iter().any(by_warpgroups);
        let gpu = Gpu::ALL[usize::from(hopper)];
        let text = ptx(&kernels, gpu).unwrap_or_else(|error| panic!("{error}"));
        let kernels = amc_ptx::load(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        Interpreted { kernels, device: OnDevice::load(&text, hopper) }
    }

    /// What operands with these contents hold after a launch; `aliases` are pairs that share the first one's memory.
    pub fn run(&self, kernel: &Kernel, contents: &[&[u8]], aliases: &[(usize, usize)], mode: Mode) -> Vec<Vec<u8>> {
        if let Some(device) = &self.device {
            return device.run(kernel, contents, aliases);
        }
        note(&kernel.symbol);
        let mut device = Device::new();
        let addresses: Vec<u64> =
            contents.iter().enumerate().map(|(i, bytes)| device.upload(&format!("operand {i}"), bytes)).collect();
        let owner = |i: usize| aliases.iter().find(|alias| alias.1 == i).map_or(i, |alias| alias.0);
        let geometry = geometry(kernel);
        let argument = |operands: Range<usize>| {
            let map = geometry.maps.iter().find(|map| map.operand == operands.start);
            let bytes = |i: usize| match map {
                None => addresses[owner(i)].to_le_bytes().to_vec(),
                Some(map) => encoded(map, addresses[owner(i)]),
            };
            Argument::Bytes(operands.flat_map(bytes).collect())
        };
        let arguments: Vec<Argument> = parameters(geometry, addresses.len()).into_iter().map(argument).collect();
        let launch = Launch {
            dynamic_shared: geometry.shared_bytes.into(),
            mode,
            ..Launch::new([kernel.tasks, 1, 1], [geometry.threads, 1, 1])
        };
        let entry = self.kernels.iter().find(|entry| entry.name == kernel.symbol).expect("the kernel's entry");
        device.launch(entry, &launch, &arguments).unwrap_or_else(|error| panic!("{error}"));
        let read = |i: usize| device.read(addresses[owner(i)], contents[i].len() as u64);
        (0..contents.len()).map(read).collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}"))
    }
}

pub fn geometry(kernel: &Kernel) -> &Geometry {
    let Code::Gpu(_, geometry) = &kernel.code else { panic!("`{}` is no kernel of a GPU's", kernel.symbol) };
    geometry
}

/// The operands of every parameter, of so many operands in all.
pub fn parameters(geometry: &Geometry, operands: usize) -> Vec<Range<usize>> {
    let mut list = vec![];
    let mut first = 0;
    while first < operands {
        let array = geometry.arrays.iter().find(|array| array.first == first);
        let end = first + array.map_or(1, |array| array.count);
        list.push(first..end);
        first = end;
    }
    list
}

/// Leaves a file for the kernel in the folder that `./x test` names, which counts those that were interpreted.
fn note(symbol: &str) {
    let Some(folder) = std::env::var_os("AMC_INTERPRETED").map(PathBuf::from) else { return };
    let noted = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(symbol), ""));
    noted.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

/// A matrix's map, as the driver would make it.
fn encoded(map: &TensorMap, address: u64) -> Vec<u8> {
    assert_eq!(map.elem, Elem::Bf16);
    let encoded = amc_ptx::TensorMap {
        element: TensorElement::Bf16,
        address,
        sizes: vec![map.columns as u64, map.rows as u64],
        strides: vec![2 * map.stride as u64],
        box_sizes: vec![map.box_columns() as u32, map.box_rows as u32],
        element_strides: vec![1, 1],
        swizzle: match map.box_row_bytes {
            32 => Swizzle::Bytes32,
            64 => Swizzle::Bytes64,
            _ => Swizzle::Bytes128,
        },
        fill_nan: false,
    };
    encoded.encode().unwrap_or_else(|error| panic!("{map:?}: {error}"))
}
