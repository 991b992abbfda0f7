//! Kernels as the plan lists them.
use amc_artifact::{self as artifact, Storage};
use amc_kernels::Geometry;
use amc_kernels::emit::Elem;
use amc_kernels::gpu::tensor_map::TensorMap;

pub fn listed(kernel: &amc_kernels::Kernel) -> artifact::Kernel {
    let amc_kernels::Work { family, operations, bytes, varies } = kernel.work;
    let varies = match varies {
        amc_kernels::Varies::Never => artifact::Varies::Never,
        amc_kernels::Varies::Labels => artifact::Varies::Labels,
        amc_kernels::Varies::Pairs { window } => artifact::Varies::Pairs { window: window.map(|it| it as u64) },
    };
    artifact::Kernel {
        symbol: kernel.symbol.clone(),
        work: artifact::Work { family: family.into(), operations, bytes, varies },
        block: kernel.geometry.as_ref().map(block),
    }
}

fn block(geometry: &Geometry) -> artifact::Block {
    let Geometry { threads, shared_bytes, ref maps } = *geometry;
    let map = |map: &TensorMap| artifact::TensorMap {
        operand: map.operand as u32,
        storage: match map.elem {
            Elem::F32 => Storage::F32,
            Elem::Bf16 => Storage::Bf16,
            Elem::I32 => Storage::I32,
        },
        rows: map.rows as u64,
        columns: map.columns as u64,
        stride: map.stride as u64,
        box_rows: map.box_rows as u32,
    };
    artifact::Block { threads, shared_bytes, maps: maps.iter().map(map).collect() }
}
