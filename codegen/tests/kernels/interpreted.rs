//! Runs a GPU's kernels in the interpreter.
use amc_codegen::ptx;
use amc_kernels::{Gpu, Kernel};
use amc_ptx::{Argument, Device, Launch, Mode};

/// A module of PTX.
pub struct Interpreted {
    kernels: Vec<amc_ptx::Kernel>,
}

impl Interpreted {
    pub fn load(kernels: &[&Kernel]) -> Interpreted {
        let kernels: Vec<Kernel> = kernels.iter().map(|kernel| (*kernel).clone()).collect();
        let text = ptx(&kernels, Gpu::ALL[0]).unwrap_or_else(|error| panic!("{error}"));
        Interpreted { kernels: amc_ptx::load(&text).unwrap_or_else(|error| panic!("{error}\n{text}")) }
    }

    /// What operands with these contents hold after a launch; `aliases` are pairs that share the first one's memory.
    pub fn run(&self, kernel: &Kernel, contents: &[&[u8]], aliases: &[(usize, usize)], mode: Mode) -> Vec<Vec<u8>> {
        let mut device = Device::new();
        let addresses: Vec<u64> =
            contents.iter().enumerate().map(|(i, bytes)| device.upload(&format!("operand {i}"), bytes)).collect();
        let owner = |i: usize| aliases.iter().find(|alias| alias.1 == i).map_or(i, |alias| alias.0);
        let arguments: Vec<Argument> = (0..addresses.len()).map(|i| Argument::U64(addresses[owner(i)])).collect();
        let geometry = kernel.geometry.expect("a GPU's kernel");
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
