//! The pipeline on one page: from the forward graph to the graph that kernels are selected for.
//!
//! Forward fusions that matter are ops already when the graph is built (attention, linear + cross-entropy), so `train`
//! differentiates each as a whole and no pattern has to be found again in the backward graph.
use crate::pass::{self, Context, Pass, Phase, Report};
use crate::{autodiff, fuse, late, tidy};
use amc_ir::Module;

const TIDY: &[Pass] = &[
    Pass { name: "canonicalize", doc: "algebra that drops instructions", run: tidy::canonicalize },
    Pass { name: "common_values", doc: "equal instructions are computed once", run: tidy::common_values },
    Pass { name: "dead_values", doc: "what nothing needs is dropped", run: tidy::dead_values },
];

/// Phases in order.
pub const PIPELINE: &[Phase] = &[
    Phase { name: "tidy", doc: "algebra, common values, dead instructions of the forward graph", passes: TIDY },
    Phase {
        name: "train",
        doc: "from the forward graph to one microbatch: backward functions, gradients accumulated into states",
        passes: &[Pass {
            name: "autodiff",
            doc: "reverse-mode gradients, a backward function per layer",
            run: autodiff::run,
        }],
    },
    Phase { name: "tidy_again", doc: "the same over the backward graph", passes: TIDY },
    Phase {
        name: "fuse",
        doc: "values that are computed together become one op",
        passes: &[
            Pass {
                name: "share_loss",
                doc: "the loss comes from the pass that makes its gradient",
                run: fuse::share_loss,
            },
            Pass {
                name: "norm_residual",
                doc: "a norm's gradient joins the residual stream's",
                run: fuse::norm_residual,
            },
            Pass {
                name: "matmul_sum",
                doc: "sums of products share their tiles (LoRA, input gradients)",
                run: fuse::matmul_sum,
            },
            Pass { name: "dead_values", doc: "what nothing needs is dropped", run: tidy::dead_values },
            Pass {
                name: "late_recompute",
                doc: "values computed again for gradients of weights wait for the gradients of their operands",
                run: late::late_recompute,
            },
        ],
    },
];

/// Every pass by name, for `amc opt`.
pub fn find(name: &str) -> Option<&'static Pass> {
    PIPELINE.iter().flat_map(|phase| phase.passes).find(|pass| pass.name == name)
}

/// Runs the phases up to and including `stop_after` (all where it is `None`), calling `after` once behind each pass.
pub fn run(
    module: &mut Module,
    context: &mut Context,
    stop_after: Option<&str>,
    mut after: impl FnMut(&Report, &Module),
) -> Vec<Report> {
    let mut reports = vec![];
    for phase in PIPELINE {
        for pass in phase.passes {
            let report = pass::run(phase.name, pass, module, context);
            after(&report, module);
            reports.push(report);
        }
        if stop_after == Some(phase.name) {
            break;
        }
    }
    reports
}
