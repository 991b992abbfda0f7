//! Kernels as the plan lists them.
use amc_artifact::{self as artifact, Storage};
use amc_kernels::emit::Elem;
use amc_kernels::gemm::Operand;
use amc_kernels::gpu::tensor_map::TensorMap;
use amc_kernels::{Code, Geometry, OperandArray, VendorProduct};

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
        code: match &kernel.code {
            Code::Cpu(_) => artifact::Code::Cpu,
            Code::Gpu(_, geometry) => artifact::Code::Gpu(block(geometry)),
            Code::Vendor(product) => artifact::Code::Vendor(vendor_product(product)),
        },
    }
}

fn block(geometry: &Geometry) -> artifact::Block {
    let Geometry { threads, shared_bytes, ref maps, ref arrays } = *geometry;
    let map = |map: &TensorMap| artifact::TensorMap {
        operand: map.operand as u32,
        storage: storage(map.elem),
        rows: map.rows as u64,
        columns: map.columns as u64,
        stride: map.stride as u64,
        box_rows: map.box_rows as u32,
        box_row_bytes: map.box_row_bytes as u32,
    };
    let array = |array: &OperandArray| artifact::OperandArray { first: array.first as u32, count: array.count as u32 };
    let (maps, arrays) = (maps.iter().map(map).collect(), arrays.iter().map(array).collect());
    artifact::Block { threads, shared_bytes, maps, arrays }
}

fn vendor_product(product: &VendorProduct) -> artifact::VendorProduct {
    let VendorProduct { m, n, k, a, b, out, adds, workspace_bytes } = *product;
    let factor = |operand: Operand| artifact::Factor { transposed: operand.transposed, stride: operand.stride as u64 };
    artifact::VendorProduct {
        m: m as u64,
        n: n as u64,
        k: k as u64,
        a: factor(a),
        b: factor(b),
        out: storage(out),
        adds,
        workspace_bytes: workspace_bytes as u64,
    }
}

fn storage(elem: Elem) -> Storage {
    match elem {
        Elem::F32 => Storage::F32,
        Elem::Bf16 => Storage::Bf16,
        Elem::I32 => Storage::I32,
    }
}
