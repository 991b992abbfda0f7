//! Launches between which no thread waits may run in any order: here they do.
use amc_artifact::{Begins, Launch, Plan};

/// The plan with the launches of every stage from last to first.
pub fn reversed(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    for program in &mut plan.programs {
        let stages = program.launches.chunk_by(|_, next| next.begins == Begins::Beside);
        let launches = stages.flat_map(|stage| {
            let turned = stage.iter().rev().enumerate();
            turned.map(|(at, launch)| {
                let begins = if at == 0 { stage[0].begins.clone() } else { Begins::Beside };
                Launch { begins, ..launch.clone() }
            })
        });
        program.launches = launches.collect();
    }
    plan
}
