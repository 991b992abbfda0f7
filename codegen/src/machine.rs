//! LLVM IR → optimised x86-64 object, PTX, assembly or text.
use crate::{Error, lower::Lowering};
use amc_kernels::{Gpu, Kernel, Target};
use inkwell::{
    OptimizationLevel,
    attributes::AttributeLoc,
    context::Context as LlvmContext,
    module::{Linkage, Module as LlvmModule},
    passes::PassBuilderOptions,
    targets::{
        CodeModel, FileType, InitializationConfig, RelocMode, Target as LlvmTarget, TargetMachine, TargetTriple,
    },
};

const CPU_TRIPLE: &str = "x86_64-unknown-linux-gnu";
const GPU_TRIPLE: &str = "nvptx64-nvidia-cuda";

/// Everything that one thread needs to compile kernels for one target.
pub struct Compiler {
    lowering: Lowering,
    machine: TargetMachine,
}

impl Compiler {
    pub fn new(target: &Target) -> Result<Compiler, Error> {
        LlvmTarget::initialize_x86(&InitializationConfig::default());
        Compiler::of(CPU_TRIPLE, &target.cpu, &target.features, RelocMode::PIC)
    }

    pub fn for_gpu(gpu: Gpu) -> Result<Compiler, Error> {
        LlvmTarget::initialize_nvptx(&InitializationConfig::default());
        Compiler::of(GPU_TRIPLE, gpu.name(), &format!("+ptx{}", Gpu::PTX_VERSION), RelocMode::Default)
    }

    fn of(triple: &str, cpu: &str, features: &str, relocation: RelocMode) -> Result<Compiler, Error> {
        let triple = TargetTriple::create(triple);
        let llvm = LlvmTarget::from_triple(&triple).map_err(|error| Error::Llvm(error.to_string()))?;
        let level = OptimizationLevel::Aggressive;
        let machine = llvm
            .create_target_machine(&triple, cpu, features, level, relocation, CodeModel::Default)
            .ok_or_else(|| Error::Llvm(format!("no target machine for `{cpu}`")))?;
        Ok(Compiler { lowering: Lowering::new(), machine })
    }

    pub fn object(&self, kernel: &Kernel) -> Result<Vec<u8>, Error> {
        self.emit(kernel, FileType::Object)
    }

    /// The kernel as a module of PTX.
    pub fn ptx(&self, kernel: &Kernel) -> Result<Vec<u8>, Error> {
        self.emit(kernel, FileType::Assembly)
    }

    pub fn assembly(&self, kernel: &Kernel) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.emit(kernel, FileType::Assembly)?).into_owned())
    }

    pub fn llvm_ir(&self, kernel: &Kernel) -> Result<String, Error> {
        let llvm = LlvmContext::create();
        Ok(self.optimised(kernel, &llvm)?.print_to_string().to_string())
    }

    fn emit(&self, kernel: &Kernel, kind: FileType) -> Result<Vec<u8>, Error> {
        let llvm = LlvmContext::create();
        let module = self.optimised(kernel, &llvm)?;
        let buffer = self
            .machine
            .write_to_memory_buffer(&module, kind)
            .map_err(|error| refused(kernel, "LLVM cannot emit it", error))?;
        Ok(buffer.as_slice().to_vec())
    }

    fn optimised<'c>(&self, kernel: &Kernel, llvm: &'c LlvmContext) -> Result<LlvmModule<'c>, Error> {
        let module = self.lowering.translate(kernel, llvm)?;
        module.set_name(&kernel.symbol);
        module.set_source_file_name(&kernel.symbol);
        module.set_triple(&self.machine.get_triple());
        module.set_data_layout(&self.machine.get_target_data().get_data_layout());
        prepare(&module, kernel, llvm)?;
        module.verify().map_err(|error| refused(kernel, "LLVM refuses its IR", error))?;
        // Templates write vectors and unroll where it pays; to do more costs half of the compile time and gains nothing
        // that the benchmarks show.
        let options = PassBuilderOptions::create();
        options.set_loop_vectorization(false);
        options.set_loop_slp_vectorization(false);
        options.set_loop_unrolling(false);
        module
            .run_passes("default<O2>", &self.machine, options)
            .map_err(|error| refused(kernel, "LLVM cannot optimise it", error))?;
        Ok(module)
    }
}

/// Only the kernel's own symbol is visible, and loops are not turned into calls of `memset` or `memcpy`.
fn prepare(module: &LlvmModule, kernel: &Kernel, llvm: &LlvmContext) -> Result<(), Error> {
    if module.get_function(&kernel.symbol).is_none_or(|function| function.count_basic_blocks() == 0) {
        return Err(refused(kernel, "its text", "no function of that name is defined in it"));
    }
    for function in module.get_functions().filter(|function| function.count_basic_blocks() > 0) {
        function.add_attribute(AttributeLoc::Function, llvm.create_string_attribute("no-builtins", ""));
        if function.get_name().to_bytes() != kernel.symbol.as_bytes() {
            function.set_linkage(Linkage::Internal);
        }
    }
    Ok(())
}

fn refused(kernel: &Kernel, stage: &'static str, found: impl ToString) -> Error {
    Error::Kernel { symbol: kernel.symbol.clone(), stage, found: found.to_string() }
}
