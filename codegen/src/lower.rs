//! MLIR text → LLVM dialect → LLVM IR, in one context per thread.
use crate::Error;
use amc_kernels::Kernel;
use inkwell::{
    context::{AsContextRef, Context as LlvmContext},
    module::Module as LlvmModule,
};
use melior::{
    Context,
    diagnostic::Diagnostic,
    dialect::DialectRegistry,
    ir::Module,
    pass::PassManager,
    utility::{parse_pass_pipeline, register_all_dialects, register_all_llvm_translations, register_all_passes},
};
use std::sync::{Arc, Mutex, Once};

const PIPELINE: &str = "builtin.module(convert-scf-to-cf,convert-math-to-llvm,convert-vector-to-llvm,\
    convert-nvvm-to-llvm,convert-to-llvm,reconcile-unrealized-casts)";

/// An MLIR context that keeps what MLIR says instead of printing it.
pub struct Lowering {
    context: Context,
    said: Arc<Mutex<Vec<String>>>,
}

impl Lowering {
    pub fn new() -> Lowering {
        static PASSES: Once = Once::new();
        PASSES.call_once(register_all_passes);
        let registry = DialectRegistry::new();
        register_all_dialects(&registry);
        // Threads are ours: one context each, without MLIR's own pool.
        let context = Context::new_with_registry(&registry, false);
        register_all_llvm_translations(&context);
        let said = Arc::new(Mutex::new(Vec::new()));
        let listener = said.clone();
        context.attach_diagnostic_handler(move |diagnostic| {
            listener.lock().expect("the listener does not panic").push(describe(&diagnostic));
            true
        });
        Lowering { context, said }
    }

    /// The unoptimised LLVM module of a kernel.
    pub fn translate<'c>(&self, kernel: &Kernel, llvm: &'c LlvmContext) -> Result<LlvmModule<'c>, Error> {
        self.said.lock().expect("the listener does not panic").clear();
        let fail = |stage| Error::Kernel { symbol: kernel.symbol.clone(), stage, found: self.heard() };
        let text = kernel.text().ok_or_else(|| fail("it has no text: a library computes it"))?;
        let mut module = Module::parse(&self.context, text).ok_or_else(|| fail("MLIR refuses its text"))?;
        let manager = PassManager::new(&self.context);
        parse_pass_pipeline(manager.as_operation_pass_manager(), PIPELINE).map_err(|_| fail("pass pipeline"))?;
        manager.run(&mut module).map_err(|_| fail("MLIR cannot lower it"))?;
        // SAFETY: both crates declare the same opaque LLVMContext; the operation is a live module in the LLVM dialect.
        let raw = unsafe {
            mlir_sys::mlirTranslateModuleToLLVMIR(
                module.as_operation().to_raw(),
                llvm.as_ctx_ref() as mlir_sys::LLVMContextRef,
            )
        };
        if raw.is_null() {
            return Err(fail("MLIR cannot translate it to LLVM IR"));
        }
        // SAFETY: the module was just made in `llvm`, whose lifetime the result carries, and nobody else owns it.
        Ok(unsafe { LlvmModule::new(raw as llvm_sys::prelude::LLVMModuleRef) })
    }

    fn heard(&self) -> String {
        let said = self.said.lock().expect("the listener does not panic");
        if said.is_empty() { "no diagnostic".into() } else { said.join("; ") }
    }
}

/// `line:column: message`, and its notes.
fn describe(diagnostic: &Diagnostic) -> String {
    let place = diagnostic.location().to_string();
    let place = place.trim_start_matches("loc(").trim_end_matches(')').replace("\"-\":", "line ");
    let notes: Vec<String> =
        (0..diagnostic.note_count()).filter_map(|i| diagnostic.note(i).ok()).map(|note| format!(" ({note})")).collect();
    format!("{place}: {diagnostic}{}", notes.concat())
}
